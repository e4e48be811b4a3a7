//! What a cell shows while it runs.

use super::link::{link, lock};
use super::show::{Show, escape};
use crate::Result;
use crate::bar::State;
use crate::interrupt::{check_interrupt, unwind_if_interrupted};
use serde_json::{Map, Value, json};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An output of a cell that changes in place; [`live`] makes it.
///
/// ```
/// use consistency::prelude::*;
/// fn count(view: &Live) -> consistency::Result<()> {
///     (0..3).try_for_each(|i| view.show(&i))
/// }
/// assert!(live(count).is_ok());
/// ```
#[derive(Debug)]
pub struct Live {
    id: String,
    shown: AtomicBool,
    metadata: Value,
    // What was shown last, whole, where only a part of it was sent.
    whole: Mutex<Option<Bundle>>,
}

type Bundle = Vec<(&'static str, String)>;

/// JupyterLab draws an interactive figure once and ignores what comes for it later: while an output
/// moves, its picture is sent alone.
const INTERACTIVE: &str = "application/vnd.plotly.v1+json";

impl Live {
    pub(super) fn new(kind: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Front-ends keep a display's id across restarts: the process is part of it.
        let id = format!("consistency-{kind}-{}-{number}", std::process::id());
        let metadata = if kind == "bar" { json!({ "consistency": "bar" }) } else { json!({}) };
        Self { id, shown: AtomicBool::new(false), metadata, whole: Mutex::new(None) }
    }

    /// Show `value` in place of what this output showed before.
    ///
    /// The front-end gets at most ten states a second, and the last one always. A figure is a
    /// picture while it moves, and interactive when the cell has ended.
    ///
    /// # Errors
    /// The stop button was pressed.
    pub fn show(&self, value: &(impl Show + ?Sized)) -> Result<()> {
        check_interrupt()?;
        let whole = value.bundle();
        let moving: Bundle =
            whole.iter().filter(|(media, _)| *media != INTERACTIVE).cloned().collect();
        self.put(&moving);
        let last = (moving.len() < whole.len()).then_some(whole);
        *lock(&self.whole) = last;
        Ok(())
    }

    /// Show the last state, whole, also where the cell was stopped.
    pub(super) fn end(&self, value: &(impl Show + ?Sized)) {
        lock(&self.whole).take();
        self.put(&value.bundle());
    }

    pub(super) fn put(&self, bundle: &[(&'static str, String)]) {
        super::cell::settle();
        let update = self.shown.swap(true, Ordering::Relaxed);
        let Some(link) = link() else {
            if let (false, Some((_, text))) = (update, bundle.last()) {
                std::println!("{text}");
            }
            return;
        };
        link.send(&json!({
            "op": "display",
            "id": self.id,
            "update": update,
            "data": data(bundle),
            "metadata": self.metadata,
        }));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let last = lock(&self.whole).take();
        if let Some(whole) = last {
            self.put(&whole);
        }
    }
}

/// Do `work` with an output of the cell that it changes in place: a figure that grows, the samples
/// of a fixed noise during a training.
///
/// ```
/// use consistency::prelude::*;
/// let (mut xs, mut ys) = (Vec::new(), Vec::new());
/// live(|view| {
///     for i in 0..3 {
///         xs.push(f64::from(i));
///         ys.push(f64::from(i * i));
///         view.show(&Figure::new("squares").line("y", &xs, &ys))?;
///     }
///     Ok(())
/// })?;
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// What `work` gives; the stop button was pressed.
pub fn live<T>(work: impl FnOnce(&Live) -> Result<T>) -> Result<T> {
    work(&Live::new("live"))
}

/// Show a value once, where the cell is.
pub(super) fn show_once(bundle: &[(&'static str, String)]) {
    unwind_if_interrupted();
    if !bundle.is_empty() {
        Live::new("show").put(bundle);
    }
}

// Jupyter wants media of JSON as values, all others as text.
fn data(bundle: &[(&'static str, String)]) -> Map<String, Value> {
    let value = |media: &str, content: &String| {
        let parsed = media.ends_with("json").then(|| serde_json::from_str(content).ok()).flatten();
        parsed.unwrap_or_else(|| Value::from(content.as_str()))
    };
    bundle.iter().map(|(media, content)| (media.to_string(), value(media, content))).collect()
}

/// A bar, as HTML and as text.
pub(super) fn bar(done: u64, total: u64, text: &str) -> Vec<(&'static str, String)> {
    let value =
        if total > 0 { format!(" value=\"{done}\" max=\"{total}\"") } else { String::new() };
    let html = format!("<progress{value} style=\"width: 16em\"></progress> {}", escape(text));
    vec![("text/html", html), ("text/plain", text.to_string())]
}

/// Show where a long call is: [`crate::bar`].
pub(super) fn show_bar(state: &State) {
    use std::collections::HashMap;
    static SHOWN: Mutex<Option<HashMap<u64, Live>>> = Mutex::new(None);
    if link().is_none() {
        return;
    }
    let mut shown = lock(&SHOWN);
    let shown = shown.get_or_insert_default();
    let live = shown.entry(state.id).or_insert_with(|| Live::new("bar"));
    let text = line(state);
    match state.ended {
        None => live.put(&bar(state.done, state.total, &text)),
        Some(_) => {
            live.put(&[("text/plain", text)]);
            shown.remove(&state.id);
        }
    }
}

// "sampling: 120 of 400 (30 %), 40 a second, 7 s left"
fn line(state: &State) -> String {
    let State { what, done, total, .. } = state;
    let seconds = state.elapsed.as_secs_f64();
    let time = span(seconds);
    match state.ended {
        Some(true) => format!("{what}: {done} in {time}"),
        Some(false) => format!("{what}: ended at {done} of {total} after {time}"),
        None if *total == 0 => format!("{what}: {done}, {time}"),
        None => {
            let percent = 100.0 * *done as f64 / *total as f64;
            let rate = done.saturating_sub(state.from) as f64 / seconds.max(1e-9);
            let left = match total.saturating_sub(*done) {
                _ if rate <= 0.0 => String::new(),
                todo => format!(", {} left", span(todo as f64 / rate)),
            };
            let rate = if rate >= 10.0 { format!("{rate:.0}") } else { format!("{rate:.1}") };
            format!("{what}: {done} of {total} ({percent:.0} %), {rate} a second{left}")
        }
    }
}

pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
