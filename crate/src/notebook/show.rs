//! How values are shown as the last expression of a cell.
//!
//! evcxr first compiles `(value).evcxr_display()`, and where the type has no such method compiles
//! the cell once more with `{:?}`. Types that are often shown have the method here, which saves the
//! second compile.

use crate::experiment::Progress;
use crate::plot::Figure;
use base64::Engine;
use candle_core::{DType, Tensor};
use polars::prelude::{AnyValue, DataFrame};
use std::fmt::Write as _;

/// Showing a value in a notebook: as a figure, a table or text.
///
/// ```
/// use consistency::prelude::*;
/// assert_eq!(2.5f64.bundle(), [("text/plain", "2.5".to_string())]);
/// let media: Vec<&str> = df!["n" => [1, 2]]?.bundle().iter().map(|(media, _)| *media).collect();
/// assert_eq!(media, ["text/html", "text/plain"]);
/// # Ok::<(), consistency::Error>(())
/// ```
pub trait Show {
    /// The value as pairs of a media type and its content.
    fn bundle(&self) -> Vec<(&'static str, String)>;

    /// Show it here and now, below what the cell has shown and printed before: a cell can have any
    /// number of figures and tables.
    ///
    /// ```
    /// use consistency::prelude::*;
    /// for slope in [1.0, 2.0] {
    ///     Figure::new("a line").line("y", &[0.0, 1.0], &[0.0, slope]).show();
    /// }
    /// ```
    fn show(&self) {
        super::live::show_once(&self.bundle());
    }

    /// Called by evcxr on the last expression of a cell.
    fn evcxr_display(&self) {
        let mut text = String::new();
        for (media, content) in self.bundle() {
            let _ = write!(text, "EVCXR_BEGIN_CONTENT {media}\n{content}\nEVCXR_END_CONTENT\n");
        }
        if !text.is_empty() {
            super::child::mark(text.trim_end_matches('\n'));
        }
    }
}

impl Show for Figure {
    /// Plotly's JSON, a PNG and text.
    ///
    /// # Panics
    /// A figure with a value that cannot be drawn: the cell fails.
    fn bundle(&self) -> Vec<(&'static str, String)> {
        let (json, png) = match (self.json(), self.png()) {
            (Ok(json), Ok(png)) => (json, png),
            (Err(error), _) | (_, Err(error)) => panic!("{error}"),
        };
        vec![
            ("application/vnd.plotly.v1+json", json.to_string()),
            ("image/png", base64::engine::general_purpose::STANDARD.encode(png)),
            ("text/plain", self.text()),
        ]
    }
}

/// Rows of a frame shown before the rest is left out.
const ROWS: usize = 40;

impl Show for DataFrame {
    fn bundle(&self) -> Vec<(&'static str, String)> {
        vec![("text/html", html(self)), ("text/plain", self.to_string())]
    }
}

fn html(frame: &DataFrame) -> String {
    let mut text = String::from("<table><thead><tr>");
    for name in frame.get_column_names() {
        let _ = write!(text, "<th>{}</th>", escape(name));
    }
    text.push_str("</tr></thead><tbody>");
    for row in 0..frame.height().min(ROWS) {
        text.push_str("<tr>");
        for column in frame.columns() {
            let value = column.get(row).unwrap_or(AnyValue::Null);
            let (right, cell) = match value {
                AnyValue::Float64(v) => (true, number(v)),
                AnyValue::Float32(v) => (true, number(f64::from(v))),
                AnyValue::Null => (false, String::new()),
                AnyValue::String(v) => (false, v.to_string()),
                other => (other.is_primitive_numeric(), other.to_string()),
            };
            let align = if right { "right" } else { "left" };
            let _ = write!(text, "<td style=\"text-align: {align}\">{}</td>", escape(&cell));
        }
        text.push_str("</tr>");
    }
    text.push_str("</tbody></table>");
    if frame.height() > ROWS {
        let _ = write!(text, "<p>{} of {} rows</p>", ROWS, frame.height());
    }
    text
}

// Five significant digits, whole numbers as such.
fn number(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return format!("{value}");
    }
    if !(1e-3..1e6).contains(&value.abs()) {
        return format!("{value:.3e}");
    }
    let digits = (4 - value.abs().log10().floor() as i32).max(0) as usize;
    format!("{value:.digits$}")
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

impl Show for Tensor {
    fn bundle(&self) -> Vec<(&'static str, String)> {
        vec![("text/plain", self.to_string())]
    }
}

impl Show for Progress {
    fn bundle(&self) -> Vec<(&'static str, String)> {
        vec![("text/plain", self.to_string())]
    }
}

impl Show for () {
    /// Nothing: a loop at a cell's end has no value worth showing.
    fn bundle(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

macro_rules! show_debug {
    ($($t:ty),*) => {$(
        impl Show for $t {
            fn bundle(&self) -> Vec<(&'static str, String)> {
                vec![("text/plain", format!("{self:?}"))]
            }
        }
    )*};
}

show_debug!(
    bool,
    char,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    isize,
    u8,
    u16,
    u32,
    u64,
    usize,
    str,
    String,
    DType,
    Vec<f32>,
    Vec<f64>,
    Vec<i32>,
    Vec<u32>,
    Vec<u8>,
    Vec<usize>,
    Vec<String>,
    (f64, f64),
    (f32, f32),
    (usize, usize),
    crate::evaluate::Score,
    crate::experiment::Trained,
    crate::notebook::Run
);
