//! What the variants of a reproduction change: one table and one figure each.

use super::super::config::Sweep;
use super::super::sampling::Sampling;
use super::numbers::{Entry, METRICS, ORIGIN, metrics};
use super::ours::{heads, rows};
use crate::Result;
use crate::plot::Figure;
use crate::record::Budget;
use crate::record::page::{Block, Picture, Table, columns};
use std::path::Path;

/// One table per reproduction that has variants, and its figure where anything was measured.
pub(super) fn blocks(folder: &Path, entries: &[Entry]) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    for base in entries {
        let names = base.reproduction.variants();
        if names.is_empty() || base.reproduction.published.is_some() {
            continue;
        }
        let mut variants: Vec<Entry> =
            names.iter().map(|name| Entry::read(folder, name)).collect::<Result<_>>()?;
        variants.retain(|variant| !variant.reproduction.reduced);
        if variants.is_empty() {
            continue;
        }
        blocks.push(Block::Heading(3, format!("Ablation of {}", base.reproduction.name)));
        let budget = shared(base, &variants);
        blocks.push(Block::Table(table(base, &variants, budget)));
        blocks.extend(figure(base, &variants, budget)?);
    }
    Ok(blocks)
}

// The largest budget that the reproduction itself and a variant were run with: numbers of
// different budgets say nothing about what differs.
fn shared(base: &Entry, variants: &[Entry]) -> Option<Budget> {
    let ran = |entry: &Entry, budget: Budget| {
        entry.reproduction.samplings().iter().any(|one| entry.measured(one, budget).is_some())
    };
    Budget::ALL
        .into_iter()
        .rev()
        .find(|budget| ran(base, *budget) && variants.iter().any(|variant| ran(variant, *budget)))
}

fn table(base: &Entry, variants: &[Entry], budget: Option<Budget>) -> Table {
    let metrics = metrics(std::iter::once(base).chain(variants));
    let mut names = vec!["variant".to_string(), "sampling".to_string(), "NFE".to_string()];
    names.extend(heads(&metrics));
    names.extend(ORIGIN.map(String::from));
    let all = std::iter::once(base).chain(variants).flat_map(|entry| {
        let pick = |sampling: &Sampling| {
            let same = budget.and_then(|budget| entry.measured(sampling, budget));
            same.or_else(|| entry.best(sampling))
        };
        let mut samplings = entry.reproduction.samplings();
        samplings.retain(|sampling| {
            !matches!(
                sampling,
                Sampling::Renoised { .. } | Sampling::FromData { .. } | Sampling::FromImages(_)
            )
        });
        rows(entry, &samplings, &metrics, label(entry), &pick)
    });
    Table { rows: all.collect(), columns: columns("", &names) }
}

// A variant's own name; the reproduction's full name.
fn label(entry: &Entry) -> &str {
    entry.reproduction.variant().unwrap_or(&entry.reproduction.name)
}

/// A mean and half of its interval.
type Value = (f64, Option<f64>);

/// One number of every variant that has it, and beside it each number that the variants sweep.
fn figure(base: &Entry, variants: &[Entry], budget: Option<Budget>) -> Result<Option<Block>> {
    let (Some(budget), Some(sampling)) = (budget, base.reproduction.samplings().into_iter().next())
    else {
        return Ok(None);
    };
    let of = |entry: &Entry, metric: &str| -> Option<Value> {
        let (mean, half, _) = entry.measured(&sampling, budget)?.value(metric)?;
        Some((mean, half))
    };
    // Only a distance: smaller is better.
    let distances =
        METRICS.into_iter().filter(|metric| metric.contains("FID") || metric.contains("distance"));
    let measured = distances
        .map(|metric| (metric, of(base, metric), variants.iter().any(|v| of(v, metric).is_some())))
        .find(|(_, base, any)| base.is_some() && *any);
    let Some((metric, Some(here), _)) = measured else { return Ok(None) };
    let values: Vec<(&str, Value)> =
        variants.iter().filter_map(|v| Some((label(v), of(v, metric)?))).collect();
    let name = &base.reproduction.name;
    let mut panels = vec![all_of_them(name, here, &values, metric)];
    for sweep in base.reproduction.sweeps() {
        let points: Vec<(f64, Value)> = sweep
            .variants
            .iter()
            .filter_map(|(value, name)| {
                let variant = variants.iter().find(|v| v.reproduction.name == *name)?;
                Some((*value, of(variant, metric)?))
            })
            .collect();
        if points.len() > 1 {
            panels.push(sweep_of(&sweep, here, points, metric));
        }
    }
    let title = format!("{name}: {metric}, {}, budget {}", sampling.name(), budget.name());
    let figure = match panels.as_slice() {
        [one] => one.clone().titled(&title),
        many => Figure::panels(&title, 2, many),
    };
    let caption = format!(
        "{metric} of `{name}` and its variants; {}, budget {}; means with 95 % intervals over the \
         seeds",
        sampling.name(),
        budget.name()
    );
    let file = format!("figures/ablation-{name}.png");
    let picture = Picture { caption, file, png: figure.png()?, pixels: false };
    Ok(Some(Block::Pictures(vec![picture])))
}

// One line per variant, with the reproduction itself on top and in another colour.
fn all_of_them(name: &str, here: Value, values: &[(&str, Value)], metric: &str) -> Figure {
    let mut names: Vec<&str> = values.iter().rev().map(|(name, _)| *name).collect();
    names.push(name);
    let across = |at: usize, (mean, half): Value| {
        let (half, y) = (half.unwrap_or(0.0), at as f64);
        [(mean - half, y), (mean + half, y)]
    };
    let top = values.len();
    let places = || values.iter().rev().enumerate();
    let points: Vec<(f64, f64)> = places().map(|(at, (_, value))| (value.0, at as f64)).collect();
    let lines: Vec<_> = places().map(|(at, (_, value))| across(at, *value)).collect();
    Figure::new("each variant")
        .x(metric)
        .y_names(&names)
        .intervals("", &[(here.0, top as f64)], &[across(top, here)])
        .intervals("", &points, &lines)
}

// A swept number against what came out, the reproduction's own value in the other colour.
fn sweep_of(sweep: &Sweep, here: Value, mut points: Vec<(f64, Value)>, metric: &str) -> Figure {
    let upright = |(x, (mean, half)): (f64, Value)| {
        let half = half.unwrap_or(0.0);
        [(x, mean - half), (x, mean + half)]
    };
    let own = (sweep.here, here);
    let lines: Vec<_> = points.iter().map(|point| upright(*point)).collect();
    let dots: Vec<(f64, f64)> = points.iter().map(|(x, (mean, _))| (*x, *mean)).collect();
    points.push(own);
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (x, y): (Vec<f64>, Vec<f64>) = points.iter().map(|(x, (mean, _))| (*x, *mean)).unzip();
    let wide =
        x.first().is_some_and(|low| *low > 0.0) && x.last() > x.first().map(|v| v * 8.0).as_ref();
    let figure = Figure::new(format!("by {}", sweep.path))
        .x(&sweep.path)
        .y(metric)
        .intervals("", &[(sweep.here, here.0)], &[upright(own)])
        .intervals("", &dots, &lines)
        .lines("", &[(x, y)]);
    if wide { figure.log_x() } else { figure }
}
