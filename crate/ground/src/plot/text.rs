//! A figure in words, for a terminal, a diff and a reader without images.

use super::{Figure, Mark, Panel};
use std::fmt::Write;

pub(super) fn figure(figure: &Figure) -> String {
    let mut text = format!("Figure: {}", figure.title);
    for panel in &figure.panels {
        if figure.panels.len() > 1 {
            let _ = write!(text, "\n[{}]", panel.title);
        }
        text.push_str(&describe(panel));
    }
    text
}

fn describe(panel: &Panel) -> String {
    let mut text = String::new();
    if !panel.y.names.is_empty() {
        let _ = write!(text, "\n  from below: {}", panel.y.names.join(", "));
    }
    for mark in &panel.marks {
        match mark {
            Mark::Images(montage) => {
                let (columns, rows) = montage.grid;
                let _ = write!(text, "\n  {columns} x {rows} images");
                for label in &montage.labels {
                    let _ = write!(text, "\n  row: {label}");
                }
            }
            Mark::Heatmap { name, values, .. } => {
                let all = values.iter().flatten();
                let (low, high) = range(all.copied());
                let columns = values.first().map_or(0, Vec::len);
                let _ = write!(
                    text,
                    "\n  {name}: {columns} x {} values from {low:.4} to {high:.4}",
                    values.len()
                );
            }
            Mark::Lines { name, .. } | Mark::Points { name, .. } => {
                let points = mark.points();
                let (x0, x1) = range(points.iter().map(|p| p.0));
                let (y0, y1) = range(points.iter().map(|p| p.1));
                let _ = write!(
                    text,
                    "\n  {name}: {} points, {} {x0:.4} .. {x1:.4}, {} {y0:.4} .. {y1:.4}",
                    points.len(),
                    or(&panel.x.label, "x"),
                    or(&panel.y.label, "y")
                );
            }
        }
    }
    text
}

fn or<'a>(label: &'a str, instead: &'a str) -> &'a str {
    if label.is_empty() { instead } else { label }
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
}
