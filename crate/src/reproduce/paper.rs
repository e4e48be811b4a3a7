//! The paper's own experiments as a notebook shows them: what they train with, their noise
//! levels and schedules, and the published numbers.

use super::config::{Reproduction, folder};
use crate::experiment::Experiment;
use crate::plot::Figure;
use crate::process::TimeGrid;
use crate::record::Budget;
use crate::{Error, Result, bail};
use polars::df;
use polars::prelude::{DataFrame, DataType};

/// Points of a figure over a whole training.
const MOMENTS: u64 = 400;

/// The project's reproduction `name` (or `NAME.VARIANT`), whole, as it runs on a GPU.
///
/// # Errors
/// As [`Reproduction::read`].
pub fn experiment(name: &str) -> Result<Experiment> {
    Reproduction::read(&folder(), name)?.experiment(0, Budget::Full, "cuda", Some("its-teacher"))
}

/// The noise level at which a consistency model's second step starts, of the reproduction `name`.
///
/// # Errors
/// One without a second step; as [`Reproduction::read`].
pub fn tau(name: &str) -> Result<f64> {
    let of = Reproduction::read(&folder(), name)?;
    let second = of.evaluate.taus.iter().find_map(|taus| taus.first().copied());
    second.ok_or_else(|| Error::new(format!("{name} has no second step")))
}

/// The columns of the paper's table 3 for these reproductions, a row each.
///
/// # Errors
/// As [`experiment`].
pub fn hyper_parameters(names: &[&str]) -> Result<DataFrame> {
    let all = names.iter().map(|name| experiment(name)).collect::<Result<Vec<_>>>()?;
    let by_method =
        |k: usize| all.iter().map(|of| of.method.hyper_parameters()[k].clone()).collect::<Vec<_>>();
    // As table 3 has it, rounded.
    let ema = |of: &Experiment| ((of.training.ema.all()[0] * 1e6).round() / 1e6).to_string();
    let d = |of: &Experiment| of.method.lpips().map(|_| "LPIPS");
    Ok(df![
        "run" => names,
        "learning rate" => all.iter().map(|of| of.optimizer.learning_rate).collect::<Vec<_>>(),
        "batch" => all.iter().map(|of| of.training.batch as u64).collect::<Vec<_>>(),
        "steps" => all.iter().map(|of| of.training.iterations).collect::<Vec<_>>(),
        "EMA" => all.iter().map(ema).collect::<Vec<_>>(),
        "N" => by_method(0),
        "mu" => by_method(1),
        "d" => all.iter().map(d).collect::<Vec<_>>(),
    ]?)
}

/// Grids of noise levels, one above the other, with T and the level at which sampling starts
/// again: (name, grid, tau) each.
pub fn grids(title: &str, all: &[(&str, &TimeGrid, f64)]) -> Figure {
    let (mut x, mut y, mut starts, mut above) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (i, (_, grid, tau)) in all.iter().enumerate() {
        x.extend_from_slice(grid.times());
        y.resize(x.len(), i as f64);
        starts.extend(grid.times().last().copied().into_iter().chain([*tau]));
        above.resize(starts.len(), i as f64 + 0.15);
    }
    let names: Vec<&str> = all.iter().map(|(name, ..)| *name).collect();
    Figure::new(title)
        .x("noise level t")
        .log_x()
        .y_names(&names)
        .y_range(-0.6, all.len() as f64 + 0.2)
        .points("levels of the grid", &x, &y)
        .points("where sampling starts (T) and starts again (tau)", &starts, &above)
}

/// N(k) and mu(k) over the steps of a training.
///
/// # Errors
/// A method without a time grid or a target.
pub fn schedule(title: &str, of: &Experiment) -> Result<Figure> {
    let total = of.training.iterations;
    let at: Vec<u64> = (0..=MOMENTS).map(|i| i * total / MOMENTS).collect();
    let k: Vec<f64> = at.iter().map(|k| *k as f64).collect();
    let both = |k: &u64| Some((of.method.points(*k, total)? as f64, of.method.mu(*k, total)?));
    let found: Option<(Vec<f64>, Vec<f64>)> = at.iter().map(both).collect();
    let Some((points, mu)) = found else {
        bail!("{}: {} has no time grid or no target", of.name, of.method.name());
    };
    let panel = |title: &str, name: &str, y: &[f64]| {
        Figure::new(title).x("training step k").line(name, &k, y)
    };
    Ok(Figure::panels(
        title,
        2,
        &[
            panel("grid points", "N(k)", &points).y("N"),
            panel("decay rate of the target", "mu(k)", &mu).y("mu"),
        ],
    ))
}

/// The published FID of a method at a number of network evaluations, from a table of
/// [`published`](super::published).
///
/// # Errors
/// No such row.
pub fn fid(table: &DataFrame, method: &str, nfe: u64) -> Result<f64> {
    let (evaluations, fid) = cost_and_quality(table)?;
    let methods = table.column("method")?.str()?;
    let mut rows = methods.iter().zip(&evaluations).zip(&fid);
    let found = rows.find(|((m, n), _)| *m == Some(method) && **n == nfe as f64);
    let none = || Error::new(format!("the table has no '{method}' at {nfe} evaluations"));
    found.map(|(_, fid)| *fid).ok_or_else(none)
}

/// Published FID against network evaluations: one colour per group of methods, lines for the
/// paper's own two. From a table of [`published`](super::published).
///
/// # Errors
/// Another table.
pub fn quality_against_cost(title: &str, table: &DataFrame) -> Result<Figure> {
    let (nfe, fid) = cost_and_quality(table)?;
    let (groups, methods) = (table.column("group")?.str()?, table.column("method")?.str()?);
    let of = |keep: &dyn Fn(&str, &str) -> bool| -> (Vec<f64>, Vec<f64>) {
        let rows = groups.iter().zip(methods.iter()).zip(nfe.iter().zip(&fid));
        let kept = rows.filter(|((g, m), _)| keep(g.unwrap_or(""), m.unwrap_or("")));
        kept.map(|(_, (nfe, fid))| (*nfe, *fid)).unzip()
    };
    let own = ["CD", "CT"];
    let mut figure = Figure::new(title)
        .x("network evaluations a sample (NFE)")
        .y("FID, published")
        .log_x()
        .log_y();
    let mut names: Vec<&str> = groups.iter().flatten().collect();
    names.dedup();
    for name in names {
        let (x, y) = of(&|group, method| group == name && !own.contains(&method));
        figure = figure.points(name, &x, &y);
    }
    for name in own {
        let (x, y) = of(&|_, method| method == name);
        figure = figure.line(name, &x, &y);
    }
    Ok(figure)
}

// NFE and FID, row by row; NaN stands for a number that was not published.
fn cost_and_quality(table: &DataFrame) -> Result<(Vec<f64>, Vec<f64>)> {
    let numbers = |name: &str| -> Result<Vec<f64>> {
        let column = table.column(name)?.cast(&DataType::Float64)?;
        Ok(column.f64()?.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    };
    Ok((numbers("NFE")?, numbers("FID")?))
}
