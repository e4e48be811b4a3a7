//! Figures: one type, shown as interactive plotly JSON, as a PNG drawn in Rust, and as text, so
//! that a figure can be seen in JupyterLab, on a printed page and in a diff.

mod axis;
mod canvas;
mod clip;
mod heat;
mod images;
mod json;
mod png;
mod text;

use crate::{Context, Result, ensure};
use axis::Axis;
use candle_core::Tensor;
pub(crate) use images::Montage;
use std::path::Path;

/// A figure of one panel, or of several made by [`Figure::panels`].
///
/// Each method gives a new figure and takes what it plots by reference: nothing in a
/// notebook is used up by plotting it. (evcxr shows a last expression that moves a
/// variable as text.)
///
/// ```
/// use consistency::plot::Figure;
/// let figure = Figure::new("A parabola")
///     .x("x")
///     .y("y")
///     .line("y = x squared", &[0.0, 1.0, 2.0], &[0.0, 1.0, 4.0]);
/// assert!(figure.text().contains("A parabola"));
/// assert!(figure.png()?.starts_with(b"\x89PNG"));
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Figure {
    title: String,
    panels: Vec<Panel>,
    columns: usize,
}

#[derive(Clone, Debug)]
struct Panel {
    title: String,
    x: Axis,
    y: Axis,
    equal: bool,
    marks: Vec<Mark>,
}

#[derive(Clone, Debug)]
enum Mark {
    /// Polylines under one name and in one colour.
    Lines { name: String, lines: Vec<Vec<(f64, f64)>>, color: usize, thin: bool },
    /// Dots.
    Points { name: String, points: Vec<(f64, f64)>, color: usize },
    /// Values on a grid, row by row from the lowest y.
    Heatmap { name: String, x: (f64, f64), y: (f64, f64), values: Vec<Vec<f64>> },
    /// Small pictures side by side.
    Images(Montage),
}

impl Figure {
    /// An empty figure of one panel.
    pub fn new(title: impl Into<String>) -> Self {
        let title = title.into();
        let panel = Panel {
            title: String::new(),
            x: Axis::default(),
            y: Axis::default(),
            equal: false,
            marks: Vec::new(),
        };
        Self { title, panels: vec![panel], columns: 1 }
    }

    /// The same under another title.
    pub fn titled(&self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self.clone() }
    }

    /// The panels of `figures` in one, in rows of `columns`; each keeps its title.
    pub fn panels(title: impl Into<String>, columns: usize, figures: &[Figure]) -> Self {
        let panels = figures.iter().flat_map(|figure| {
            let single = figure.panels.len() == 1;
            figure.panels.iter().map(move |panel| {
                let title = if single { &figure.title } else { &panel.title };
                Panel { title: title.clone(), ..panel.clone() }
            })
        });
        Self { title: title.into(), panels: panels.collect(), columns: columns.max(1) }
    }

    /// Label the x axis, with its unit if it has one.
    pub fn x(&self, label: impl Into<String>) -> Self {
        self.with(|panel| panel.x.label = label.into())
    }

    /// Label the y axis, with its unit if it has one.
    pub fn y(&self, label: impl Into<String>) -> Self {
        self.with(|panel| panel.y.label = label.into())
    }

    /// Make the x axis logarithmic.
    pub fn log_x(&self) -> Self {
        self.with(|panel| panel.x.log = true)
    }

    /// Make the y axis logarithmic.
    pub fn log_y(&self) -> Self {
        self.with(|panel| panel.y.log = true)
    }

    /// Show only x from `low` to `high`.
    pub fn x_range(&self, low: f64, high: f64) -> Self {
        self.with(|panel| panel.x.range = Some((low, high)))
    }

    /// Show only y from `low` to `high`.
    pub fn y_range(&self, low: f64, high: f64) -> Self {
        self.with(|panel| panel.y.range = Some((low, high)))
    }

    /// Name the places 0, 1, 2 and so on of the y axis, from below, in place of numbers.
    pub fn y_names<S: AsRef<str>>(&self, names: &[S]) -> Self {
        self.with(|panel| panel.y.names = names.iter().map(|n| n.as_ref().to_string()).collect())
    }

    /// Give x and y the same scale, for points in the plane.
    pub fn equal(&self) -> Self {
        self.with(|panel| panel.equal = true)
    }

    /// A line through the points (x, y); `name` is its entry in the legend.
    pub fn line(&self, name: impl Into<String>, x: &[f64], y: &[f64]) -> Self {
        let lines = vec![pairs(x, y)];
        self.add(|color| Mark::Lines { name: name.into(), lines, color, thin: false })
    }

    /// Many thin lines (x, y) under one name and in one colour, such as trajectories.
    pub fn lines(&self, name: impl Into<String>, lines: &[(Vec<f64>, Vec<f64>)]) -> Self {
        let lines = lines.iter().map(|(x, y)| pairs(x, y)).collect();
        self.add(|color| Mark::Lines { name: name.into(), lines, color, thin: true })
    }

    /// Dots at the points (x, y).
    pub fn points(&self, name: impl Into<String>, x: &[f64], y: &[f64]) -> Self {
        let points = pairs(x, y);
        self.add(|color| Mark::Points { name: name.into(), points, color })
    }

    /// Dots at (x, y), each in an interval from one point to another; the points' entry in the
    /// legend is `name`.
    pub fn intervals(
        &self,
        name: impl Into<String>,
        points: &[(f64, f64)],
        intervals: &[[(f64, f64); 2]],
    ) -> Self {
        let lines = intervals.iter().map(|ends| ends.to_vec()).collect();
        self.with(|panel| {
            let color = panel.marks.len();
            panel.marks.push(Mark::Lines { name: String::new(), lines, color, thin: false });
            panel.marks.push(Mark::Points { name: name.into(), points: points.to_vec(), color });
        })
    }

    /// Colours over the rectangle `x` by `y`: `values` row by row, from the lowest y.
    pub fn heatmap(
        &self,
        name: impl Into<String>,
        x: (f64, f64),
        y: (f64, f64),
        values: &[Vec<f64>],
    ) -> Self {
        let values = values.to_vec();
        self.add(|_| Mark::Heatmap { name: name.into(), x, y, values })
    }

    /// A grid of images, `columns` per row: `images` is (N, C, H, W) in \[-1, 1\] with 1 or 3
    /// channels; values beyond are clipped.
    ///
    /// # Errors
    /// Another shape, or values that are not finite.
    pub fn images(title: impl Into<String>, images: &Tensor, columns: usize) -> Result<Self> {
        let montage = Montage::new(images, columns)?;
        Ok(Self::new(title).add(|_| Mark::Images(montage)))
    }

    /// Images in labelled rows: each row is (label, (N, C, H, W)), as for
    /// [`Figure::images`].
    ///
    /// # Errors
    /// Rows of different shapes, or as [`Figure::images`].
    pub fn image_rows<L: AsRef<str>>(
        title: impl Into<String>,
        rows: &[(L, Tensor)],
    ) -> Result<Self> {
        let montage = Montage::rows(rows)?;
        Ok(Self::new(title).add(|_| Mark::Images(montage)))
    }

    /// The figure in plotly's JSON (`application/vnd.plotly.v1+json`).
    ///
    /// # Errors
    /// A value that is not finite, or not positive on a logarithmic axis.
    pub fn json(&self) -> Result<serde_json::Value> {
        self.check()?;
        json::figure(self)
    }

    /// The figure as a PNG.
    ///
    /// # Errors
    /// As [`Figure::json`].
    pub fn png(&self) -> Result<Vec<u8>> {
        self.check()?;
        png::figure(self)
    }

    /// The figure in words: what is plotted, over what range.
    pub fn text(&self) -> String {
        text::figure(self)
    }

    /// Write the PNG to a file.
    ///
    /// # Errors
    /// As [`Figure::json`], or a file that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        std::fs::write(path, self.png()?).with_context(|| format!("writing {}", path.display()))
    }

    fn with(&self, change: impl FnOnce(&mut Panel)) -> Self {
        let mut figure = self.clone();
        if let Some(panel) = figure.panels.last_mut() {
            change(panel);
        }
        figure
    }

    fn add(&self, mark: impl FnOnce(usize) -> Mark) -> Self {
        self.with(|panel| {
            let color = panel.marks.len();
            panel.marks.push(mark(color));
        })
    }

    fn rows(&self) -> usize {
        self.panels.len().div_ceil(self.columns)
    }

    // A number that cannot be drawn is an error, not a gap: it is where training broke.
    fn check(&self) -> Result<()> {
        ensure!(!self.panels.is_empty(), "the figure '{}' has no panels", self.title);
        for panel in &self.panels {
            for mark in &panel.marks {
                let name = mark.name();
                for (i, (x, y)) in mark.points().into_iter().enumerate() {
                    ensure!(
                        x.is_finite() && y.is_finite(),
                        "the figure '{}': point {i} of '{name}' is ({x}, {y})",
                        self.title
                    );
                    ensure!(
                        (!panel.x.log || x > 0.0) && (!panel.y.log || y > 0.0),
                        "the figure '{}': point {i} of '{name}', ({x}, {y}), has no place on a \
                         logarithmic axis",
                        self.title
                    );
                }
                if let Mark::Heatmap { values, .. } = mark {
                    let width = values.first().map_or(0, Vec::len);
                    ensure!(
                        width > 0 && values.iter().all(|row| row.len() == width),
                        "the figure '{}': the rows of '{name}' differ in length or are empty",
                        self.title
                    );
                    ensure!(
                        values.iter().flatten().all(|v| v.is_finite()),
                        "the figure '{}': '{name}' has a value that is not finite",
                        self.title
                    );
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text())
    }
}

impl Mark {
    fn name(&self) -> &str {
        match self {
            Mark::Lines { name, .. } | Mark::Points { name, .. } | Mark::Heatmap { name, .. } => {
                name
            }
            Mark::Images(_) => "",
        }
    }

    fn points(&self) -> Vec<(f64, f64)> {
        match self {
            Mark::Lines { lines, .. } => lines.concat(),
            Mark::Points { points, .. } => points.clone(),
            Mark::Heatmap { x, y, .. } => vec![(x.0, y.0), (x.1, y.1)],
            Mark::Images(_) => Vec::new(),
        }
    }
}

fn pairs(x: &[f64], y: &[f64]) -> Vec<(f64, f64)> {
    x.iter().copied().zip(y.iter().copied()).collect()
}

/// Colours that colour-blind readers can tell apart (Okabe and Ito 2008).
const PALETTE: [(u8, u8, u8); 7] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (80, 80, 80),
];

fn color(index: usize) -> (u8, u8, u8) {
    PALETTE[index % PALETTE.len()]
}
