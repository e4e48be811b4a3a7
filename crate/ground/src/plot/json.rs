//! A figure in plotly's JSON, by the plotly crate.

use super::{Figure, Mark, Montage, Panel, color, png};
use crate::{Error, Result};
use base64::Engine;
use plotly::common::{Anchor, Font, Line, Marker, Mode, Title};
use plotly::layout::{Annotation, Axis, AxisRange, AxisType, GridPattern, LayoutGrid, Margin};
use plotly::{HeatMap, Image, Layout, Plot, Scatter, Trace};

/// Pixels of one panel on the page.
const PANEL: (usize, usize) = (600, 380);

pub(super) fn figure(figure: &Figure) -> Result<serde_json::Value> {
    let (rows, columns) = (figure.rows(), figure.columns.min(figure.panels.len()));
    let mut plot = Plot::new();
    let mut layout = Layout::new()
        .title(Title::with_text(&figure.title))
        .font(Font::new().size(13))
        .margin(Margin::new().left(70).right(30).top(70).bottom(60))
        .plot_background_color("white");
    let single = figure.panels.len() == 1;
    if !single {
        layout = layout
            .grid(LayoutGrid::new().rows(rows).columns(columns).pattern(GridPattern::Independent));
    }
    let mut axes = Vec::new();
    for (i, panel) in figure.panels.iter().enumerate() {
        let name = |axis: &str| if i == 0 { axis.to_string() } else { format!("{axis}{}", i + 1) };
        for (m, mark) in panel.marks.iter().enumerate() {
            // One legend entry per name, even if panels repeat it.
            let first =
                !figure.panels[..i].iter().any(|p| p.marks.iter().any(|o| o.name() == mark.name()));
            plot.add_trace(trace(mark, &name("x"), &name("y"), first && m < 12));
        }
        if !single {
            layout.add_annotation(
                Annotation::new()
                    .text(&panel.title)
                    .x_ref(format!("{} domain", name("x")))
                    .y_ref(format!("{} domain", name("y")))
                    .x(0.5)
                    .y(1.0)
                    .y_anchor(Anchor::Bottom)
                    .show_arrow(false),
            );
        }
        axes.push((name("xaxis"), axis(panel, true, &name("y"))));
        axes.push((name("yaxis"), axis(panel, false, &name("x"))));
    }
    let (width, height) = size(figure, rows, columns);
    plot.set_layout(layout.width(width).height(height));
    let mut value = serde_json::to_value(&plot).map_err(|e| Error::new(e.to_string()))?;
    // The crate has setters for eight axes; a figure may have more panels.
    for (name, axis) in axes {
        value["layout"][name] =
            serde_json::to_value(axis).map_err(|e| Error::new(e.to_string()))?;
    }
    round(&mut value);
    Ok(value)
}

fn size(figure: &Figure, rows: usize, columns: usize) -> (usize, usize) {
    if let [panel] = figure.panels.as_slice()
        && let [Mark::Images(montage)] = panel.marks.as_slice()
    {
        let (width, height) = png::montage_size(montage);
        return (width + 100, height + 130);
    }
    match columns {
        1 => (PANEL.0 + 160, PANEL.1 * rows + 60),
        _ => ((PANEL.0 * columns * 3 / 5).max(PANEL.0) + 100, PANEL.1 * rows * 4 / 5 + 120),
    }
}

fn axis(panel: &Panel, horizontal: bool, other: &str) -> Axis {
    let ours = if horizontal { &panel.x } else { &panel.y };
    let mut axis = Axis::new()
        .title(Title::with_text(&ours.label))
        .show_line(true)
        .line_color("#888")
        .grid_color("#e6e6e6")
        .zero_line(false);
    if ours.log {
        axis = axis.type_(AxisType::Log).dtick(1.0);
    }
    if let Some((low, high)) = ours.range {
        axis = axis.range(AxisRange::new(ours.place(low), ours.place(high)));
    }
    if !ours.names.is_empty() {
        let places: Vec<f64> = (0..ours.names.len()).map(|i| i as f64).collect();
        axis = axis.tick_values(places).tick_text(ours.names.clone()).auto_margin(true);
    }
    if let Some(Mark::Images(montage)) = panel.marks.first() {
        axis = picture_axis(axis, montage, horizontal);
    }
    let picture = matches!(panel.marks.first(), Some(Mark::Images(_)));
    if (panel.equal || picture) && !horizontal {
        axis = axis.scale_anchor(other);
    }
    axis
}

fn picture_axis(axis: Axis, montage: &Montage, horizontal: bool) -> Axis {
    let axis = axis.show_grid(false).show_line(false);
    if horizontal || montage.labels.is_empty() {
        return axis.show_tick_labels(false);
    }
    axis.tick_values(montage.label_places()).tick_text(montage.labels.clone()).auto_margin(true)
}

fn trace(mark: &Mark, x_axis: &str, y_axis: &str, legend: bool) -> Box<dyn Trace> {
    match mark {
        Mark::Lines { name, lines, color: index, thin } => {
            let (mut x, mut y) = (Vec::new(), Vec::new());
            for line in lines {
                if !x.is_empty() {
                    // A gap between one line and the next.
                    x.push(None);
                    y.push(None);
                }
                x.extend(line.iter().map(|p| Some(p.0)));
                y.extend(line.iter().map(|p| Some(p.1)));
            }
            let line = Line::new().color(css(*index)).width(if *thin { 1.0 } else { 2.0 });
            Scatter::new(x, y)
                .mode(Mode::Lines)
                .name(name)
                .line(line)
                .opacity(if *thin { 0.6 } else { 1.0 })
                .show_legend(legend && !name.is_empty())
                .x_axis(x_axis)
                .y_axis(y_axis)
        }
        Mark::Points { name, points, color: index } => {
            let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
            let size = if points.len() > 200 { 3 } else { 6 };
            Scatter::new(x, y)
                .mode(Mode::Markers)
                .name(name)
                .marker(Marker::new().color(css(*index)).size(size).opacity(0.7))
                .show_legend(legend && !name.is_empty())
                .x_axis(x_axis)
                .y_axis(y_axis)
        }
        Mark::Heatmap { name, x, y, values } => {
            let centres = |range: &(f64, f64), count: usize| -> Vec<f64> {
                let step = (range.1 - range.0) / count.max(1) as f64;
                (0..count).map(|i| range.0 + (i as f64 + 0.5) * step).collect()
            };
            let columns = values.first().map_or(0, Vec::len);
            HeatMap::new(centres(x, columns), centres(y, values.len()), values.clone())
                .name(name)
                .color_scale(plotly::common::ColorScale::Palette(
                    plotly::common::ColorScalePalette::Viridis,
                ))
                .x_axis(x_axis)
                .y_axis(y_axis)
        }
        Mark::Images(montage) => {
            let data = base64::engine::general_purpose::STANDARD.encode(png::encode(
                &montage.rgb,
                montage.width,
                montage.height,
            ));
            Image::new(Vec::<Vec<plotly::color::Rgb>>::new())
                .source(format!("data:image/png;base64,{data}"))
                .x_axis(x_axis)
                .y_axis(y_axis)
        }
    }
}

fn css(index: usize) -> String {
    let (r, g, b) = color(index);
    format!("rgb({r},{g},{b})")
}

// Six digits are more than a screen shows, and a committed notebook stays small.
fn round(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(round),
        serde_json::Value::Object(map) => map.values_mut().for_each(round),
        serde_json::Value::Number(number) if number.is_f64() => {
            if let Some(v) = number.as_f64()
                && let Ok(short) = format!("{v:.5e}").parse::<f64>()
                && let Some(short) = serde_json::Number::from_f64(short)
            {
                *number = short;
            }
        }
        _ => {}
    }
}
