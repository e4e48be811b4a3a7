//! A figure as a PNG, drawn by plotters at twice the size and averaged down, which gives
//! its lines smooth edges.

use super::canvas::{Area, FINE, TEXT, average, failed, font, register_fonts};
use super::clip::{clip, inside};
use super::heat::{color_bar, extremes, heat_cells};
use super::{Figure, Mark, Montage, Panel, color};
use crate::Result;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;

/// The size of one panel in pixels.
const PANEL: (usize, usize) = (860, 540);
pub(super) fn figure(figure: &Figure) -> Result<Vec<u8>> {
    register_fonts();
    let (rows, columns) = (figure.rows(), figure.columns.min(figure.panels.len()));
    let (width, height) = size(figure, rows, columns);
    let mut fine = vec![255u8; width * height * FINE * FINE * 3];
    {
        let pixels = ((width * FINE) as u32, (height * FINE) as u32);
        let root = BitMapBackend::with_buffer(&mut fine, pixels).into_drawing_area();
        draw(figure, &root, rows, columns)
            .and_then(|()| root.present().map_err(failed))
            .map_err(|error| error.context(format!("drawing the figure '{}'", figure.title)))?;
    }
    Ok(encode(&average(&fine, width, height), width, height))
}

fn size(figure: &Figure, rows: usize, columns: usize) -> (usize, usize) {
    let title = title_height(figure);
    if let [panel] = figure.panels.as_slice()
        && let [Mark::Images(montage)] = panel.marks.as_slice()
    {
        let (width, height) = montage_size(montage);
        return (width + label_width(montage) + 20, height + title + 20);
    }
    let shrink = if columns > 1 { (5, 8) } else { (1, 1) };
    (PANEL.0 * columns * shrink.0 / shrink.1, PANEL.1 * rows * shrink.0 / shrink.1 + title)
}

/// The size of a montage on the page: whole pixels per pixel, about 700 across at most.
pub(super) fn montage_size(montage: &Montage) -> (usize, usize) {
    let scale = (700 / montage.width.max(1)).clamp(1, 8);
    (montage.width * scale, montage.height * scale)
}

fn title_height(figure: &Figure) -> usize {
    if figure.title.is_empty() { 10 } else { TEXT * 5 / 2 }
}

fn label_width(montage: &Montage) -> usize {
    let longest = montage.labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    longest * TEXT * 11 / 20
}

fn draw(figure: &Figure, root: &Area, rows: usize, columns: usize) -> Result<()> {
    let (title, body) = root.split_vertically((title_height(figure) * FINE) as u32);
    centred(&title, &figure.title, TEXT * 6 / 5)?;
    for (panel, area) in figure.panels.iter().zip(body.split_evenly((rows, columns))) {
        let area = if figure.panels.len() > 1 {
            let (title, area) = area.split_vertically((TEXT * 3 / 2 * FINE) as u32);
            centred(&title, &panel.title, TEXT)?;
            area
        } else {
            area
        };
        match panel.marks.first() {
            Some(Mark::Images(montage)) => picture(montage, &area)?,
            _ => chart(panel, &area)?,
        }
    }
    Ok(())
}

fn centred(area: &Area, text: &str, height: usize) -> Result<()> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    let (width, tall) = area.dim_in_pixel();
    let style = font(height).into_text_style(area).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw(&Text::new(text.to_string(), (width as i32 / 2, tall as i32 / 2), style))
        .map_err(failed)
}

// An axis whose ticks we choose.
struct Ticks {
    range: Range<f64>,
    at: Vec<f64>,
}

impl Ranged for Ticks {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.at.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

fn chart(panel: &Panel, area: &Area) -> Result<()> {
    if let Some(Mark::Heatmap { values, .. }) = panel.marks.first() {
        let (wide, _) = area.dim_in_pixel();
        let (area, bar) = area.split_horizontally(wide as i32 - (90 * FINE) as i32);
        color_bar(&bar, extremes(values))?;
        return cartesian(panel, &area);
    }
    cartesian(panel, area)
}

fn cartesian(panel: &Panel, area: &Area) -> Result<()> {
    let points: Vec<(f64, f64)> = panel.marks.iter().flat_map(Mark::points).collect();
    let mut x = panel.x.span(points.iter().map(|p| p.0));
    let mut y = panel.y.span(points.iter().map(|p| p.1));
    let longest = panel.y.names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let left = (TEXT * 7 / 2).max((longest + 2) * TEXT * 11 / 20);
    let bottom = TEXT * 5 / 2;
    if panel.equal {
        let (w, h) = area.dim_in_pixel();
        let fine = FINE as f64;
        let inner = (f64::from(w) - left as f64 * fine, f64::from(h) - bottom as f64 * fine);
        (x, y) = widen(x, y, inner.0 / inner.1);
    }
    let (x_ticks, y_ticks) = (panel.x.ticks(x), panel.y.ticks(y));
    let label_of = |ticks: &[(f64, String)], at: f64| {
        ticks.iter().find(|t| t.0 == at).map_or_else(String::new, |t| t.1.clone())
    };
    let axis = |axis: &super::Axis, range: (f64, f64), ticks: &[(f64, String)]| Ticks {
        range: axis.place(range.0)..axis.place(range.1),
        at: ticks.iter().map(|t| t.0).collect(),
    };
    let mut chart = ChartBuilder::on(area)
        .margin((TEXT / 2 * FINE) as i32)
        .x_label_area_size((bottom * FINE) as i32)
        .y_label_area_size((left * FINE) as i32)
        .build_cartesian_2d(axis(&panel.x, x, &x_ticks), axis(&panel.y, y, &y_ticks))
        .map_err(failed)?;
    chart
        .configure_mesh()
        .bold_line_style(RGBColor(230, 230, 230).stroke_width(FINE as u32))
        .light_line_style(TRANSPARENT)
        .axis_style(RGBColor(130, 130, 130).stroke_width(FINE as u32))
        .label_style(font(TEXT * 9 / 10))
        .axis_desc_style(font(TEXT))
        .x_desc(panel.x.label.clone())
        .y_desc(panel.y.label.clone())
        .x_labels(x_ticks.len().max(1))
        .y_labels(y_ticks.len().max(1))
        .x_label_formatter(&|v| label_of(&x_ticks, *v))
        .y_label_formatter(&|v| label_of(&y_ticks, *v))
        .draw()
        .map_err(failed)?;
    let place = |p: &(f64, f64)| (panel.x.place(p.0), panel.y.place(p.1));
    let (low, high) = (place(&(x.0, y.0)), place(&(x.1, y.1)));
    let mut named = 0;
    for mark in &panel.marks {
        let (index, name) = match mark {
            Mark::Lines { color, name, .. } | Mark::Points { color, name, .. } => (*color, name),
            Mark::Heatmap { x, y, values, .. } => {
                let cells = heat_cells(*x, *y, values);
                chart
                    .draw_series(cells.into_iter().map(|(corners, fill)| {
                        Rectangle::new(corners.map(|p| place(&p)), fill.filled())
                    }))
                    .map_err(failed)?;
                continue;
            }
            Mark::Images(_) => continue,
        };
        let (r, g, b) = color(index);
        let ink = RGBColor(r, g, b);
        let series = match mark {
            Mark::Lines { lines, thin, .. } => {
                let (width, alpha) = if *thin { (1, 0.6) } else { (2, 1.0) };
                let style = ink.mix(alpha).stroke_width((width * FINE) as u32);
                let placed = lines.iter().map(|line| line.iter().map(place).collect::<Vec<_>>());
                let paths: Vec<_> = placed
                    .flat_map(|line| clip(&line, low, high))
                    .map(|part| PathElement::new(part, style))
                    .collect();
                chart.draw_series(paths).map_err(failed)?
            }
            Mark::Points { points, .. } => {
                let size = if points.len() > 200 { 2 } else { 4 } * FINE as i32;
                let shown = points.iter().map(place).filter(|p| inside(*p, low, high));
                let dots: Vec<_> =
                    shown.map(|p| Circle::new(p, size, ink.mix(0.7).filled())).collect();
                chart.draw_series(dots).map_err(failed)?
            }
            Mark::Heatmap { .. } | Mark::Images(_) => continue,
        };
        if !name.is_empty() {
            named += 1;
            let dots = matches!(mark, Mark::Points { .. });
            let (half, width) = ((12 * FINE) as i32, (3 * FINE) as u32);
            series.label(name).legend(move |(x, y)| {
                if dots {
                    EmptyElement::at((x + half, y))
                        + Circle::new((0, 0), 5 * FINE as i32, ink.filled())
                        + PathElement::new(vec![(0, 0)], ink.filled())
                } else {
                    EmptyElement::at((x, y))
                        + Circle::new((half, 0), 0, ink.filled())
                        + PathElement::new(vec![(0, 0), (2 * half, 0)], ink.stroke_width(width))
                }
            });
        }
    }
    if named > 0 && !(named == 1 && panel.marks.len() == 1 && panel.marks[0].name().is_empty()) {
        chart
            .configure_series_labels()
            .position(free_corner(panel, x, y))
            .label_font(font(TEXT * 9 / 10))
            .legend_area_size((30 * FINE) as u32)
            .margin((10 * FINE) as u32)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(210, 210, 210).stroke_width(FINE as u32))
            .draw()
            .map_err(failed)?;
    }
    Ok(())
}

// The corner with the fewest points, the upper right among equals.
fn free_corner(panel: &Panel, x: (f64, f64), y: (f64, f64)) -> SeriesLabelPosition {
    let mut counts = [0usize; 4];
    let share = |axis: &super::Axis, v: f64, range: (f64, f64)| {
        let (low, high) = (axis.place(range.0), axis.place(range.1));
        (axis.place(v) - low) / (high - low)
    };
    for (px, py) in panel.marks.iter().flat_map(Mark::points) {
        let (sx, sy) = (share(&panel.x, px, x), share(&panel.y, py, y));
        let side = |s: f64| if s < 0.4 { Some(0) } else { (s > 0.6).then_some(1) };
        if let (Some(right), Some(top)) = (side(sx), side(sy)) {
            counts[2 * (1 - top) + (1 - right)] += 1;
        }
    }
    let corners = [
        SeriesLabelPosition::UpperRight,
        SeriesLabelPosition::UpperLeft,
        SeriesLabelPosition::LowerRight,
        SeriesLabelPosition::LowerLeft,
    ];
    let best = (0..4).min_by_key(|i| counts[*i]).unwrap_or(0);
    corners[best].clone()
}

// Widen one range so that a unit of x is as long as one of y in a box of this shape.
fn widen(x: (f64, f64), y: (f64, f64), ratio: f64) -> ((f64, f64), (f64, f64)) {
    let (w, h) = (x.1 - x.0, y.1 - y.0);
    let about = |r: (f64, f64), size: f64| {
        let middle = (r.0 + r.1) / 2.0;
        (middle - size / 2.0, middle + size / 2.0)
    };
    if w / h < ratio { (about(x, h * ratio), y) } else { (x, about(y, w / ratio)) }
}

// A montage in its area, with the labels of its rows at the left.
fn picture(montage: &Montage, area: &Area) -> Result<()> {
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    let (wide, tall) = area.dim_in_pixel();
    let labels = label_width(montage) * FINE;
    let room = ((wide as usize).saturating_sub(labels + 20 * FINE), tall as usize - 10 * FINE);
    let scale = (room.0 / montage.width).min(room.1 / montage.height).max(1);
    let left = labels + 10 * FINE + (room.0.saturating_sub(montage.width * scale)) / 2;
    for y in 0..montage.height {
        for x in 0..montage.width {
            let at = (y * montage.width + x) * 3;
            let ink = RGBColor(montage.rgb[at], montage.rgb[at + 1], montage.rgb[at + 2]);
            let corner = ((left + x * scale) as i32, (y * scale) as i32);
            let other = (corner.0 + scale as i32, corner.1 + scale as i32);
            area.draw(&Rectangle::new([corner, other], ink.filled())).map_err(failed)?;
        }
    }
    for (label, place) in montage.labels.iter().zip(montage.label_places()) {
        let style =
            font(TEXT * 9 / 10).into_text_style(area).pos(Pos::new(HPos::Right, VPos::Center));
        let at = ((left - 8 * FINE) as i32, (place * scale as f64) as i32);
        area.draw(&Text::new(label.clone(), at, style)).map_err(failed)?;
    }
    Ok(())
}

/// A PNG of `width * height` RGB pixels.
pub(super) fn encode(rgb: &[u8], width: usize, height: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.set_depth(::png::BitDepth::Eight);
    encoder.set_compression(::png::Compression::High);
    // Writing to memory fails only where the sizes disagree.
    let done = encoder.write_header().and_then(|mut writer| writer.write_image_data(rgb));
    debug_assert!(done.is_ok(), "{done:?}");
    bytes
}
