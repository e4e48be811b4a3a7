//! Heat maps in a PNG: their cells, and the bar that shows what the colours mean.

use super::canvas::{Area, FINE, TEXT, failed, font};
use crate::Result;
use plotters::prelude::*;
use plotters::style::colors::colormaps::{ColorMap, ViridisRGB};

pub(super) fn extremes(values: &[Vec<f64>]) -> (f64, f64) {
    let all = values.iter().flatten().copied();
    all.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
}

// The scale of a heat map: its colours with the lowest and the highest value.
pub(super) fn color_bar(area: &Area, (low, high): (f64, f64)) -> Result<()> {
    let (_, tall) = area.dim_in_pixel();
    let (top, bottom) = ((TEXT * FINE) as i32, tall as i32 - (TEXT * 7 / 2 * FINE) as i32);
    let width = (18 * FINE) as i32;
    for y in top..bottom {
        let share = f64::from(bottom - y) / f64::from((bottom - top).max(1));
        let ink = ViridisRGB.get_color(share).filled();
        area.draw(&Rectangle::new([(0, y), (width, y + 1)], ink)).map_err(failed)?;
    }
    for (value, y) in [(high, top), (low, bottom - (TEXT * FINE) as i32)] {
        let text = Text::new(short(value), (width + (6 * FINE) as i32, y), font(TEXT * 4 / 5));
        area.draw(&text).map_err(failed)?;
    }
    Ok(())
}

fn short(value: f64) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-2..1e4).contains(&size) {
        format!("{value:.1e}")
    } else {
        let text = format!("{value:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    }
}

/// A rectangle of the map and its colour.
type Cell = ([(f64, f64); 2], RGBColor);

pub(super) fn heat_cells(x: (f64, f64), y: (f64, f64), values: &[Vec<f64>]) -> Vec<Cell> {
    let (low, high) = extremes(values);
    let columns = values.first().map_or(0, Vec::len).max(1);
    let step = ((x.1 - x.0) / columns as f64, (y.1 - y.0) / values.len().max(1) as f64);
    let mut cells = Vec::with_capacity(values.len() * columns);
    for (row, line) in values.iter().enumerate() {
        for (column, value) in line.iter().enumerate() {
            let corner = (x.0 + column as f64 * step.0, y.0 + row as f64 * step.1);
            let share = if high > low { (value - low) / (high - low) } else { 0.5 };
            cells.push((
                [corner, (corner.0 + step.0, corner.1 + step.1)],
                ViridisRGB.get_color(share),
            ));
        }
    }
    cells
}
