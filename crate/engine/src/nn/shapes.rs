//! The names and shapes of a network's parameters, without their numbers.

use crate::{Result, ensure};
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// How many of each kind an error lists before it counts the rest.
const LISTED: usize = 20;

/// The names and shapes of a network's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes {
    shapes: BTreeMap<String, Vec<usize>>,
    fixed: BTreeSet<String>,
}

impl Shapes {
    /// Those of `tensors`.
    pub fn of_tensors(tensors: &BTreeMap<String, Tensor>) -> Self {
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect()
    }

    /// Check that tensors with the names and shapes `given` are those of this network.
    ///
    /// # Errors
    /// All that are missing, extra or of another shape, in one message.
    pub fn check(&self, given: &Shapes) -> Result<()> {
        let names = |a: &Self, b: &Self| -> Vec<String> {
            let only = a.shapes.keys().filter(|name| !b.shapes.contains_key(*name));
            only.map(|name| format!("{name:?}")).collect()
        };
        let mut wrong = Vec::new();
        for (what, names) in [("missing", names(self, given)), ("extra", names(given, self))] {
            if !names.is_empty() {
                wrong.push(format!("{what} [{}]", listed(&names, ", ")));
            }
        }
        let shapes: Vec<String> = self
            .shapes
            .iter()
            .filter_map(|(name, shape)| {
                let other = given.shapes.get(name).filter(|other| *other != shape)?;
                Some(format!("parameter {name} has shape {other:?}, the network needs {shape:?}"))
            })
            .collect();
        if !shapes.is_empty() {
            wrong.push(listed(&shapes, "; "));
        }
        ensure!(
            wrong.is_empty(),
            "these parameters do not belong to this network: {}",
            wrong.join("; ")
        );
        Ok(())
    }

    /// Name and shape, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))
    }

    /// How many numbers are trained.
    pub fn count(&self) -> usize {
        let trained = self.shapes.iter().filter(|(name, _)| !self.fixed.contains(*name));
        trained.map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    pub(super) fn fixed(&self) -> impl Iterator<Item = &str> {
        self.fixed.iter().map(String::as_str)
    }

    pub(super) fn note(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let before = self.shapes.insert(name.to_string(), shape.to_vec());
        ensure!(before.is_none(), "two parameters are called {name}");
        Ok(())
    }

    pub(super) fn fix(&mut self, name: String) {
        self.fixed.insert(name);
    }
}

impl FromIterator<(String, Vec<usize>)> for Shapes {
    fn from_iter<I: IntoIterator<Item = (String, Vec<usize>)>>(items: I) -> Self {
        Self { shapes: items.into_iter().collect(), fixed: BTreeSet::new() }
    }
}

fn listed(all: &[String], between: &str) -> String {
    let first = all[..all.len().min(LISTED)].join(between);
    match all.len().saturating_sub(LISTED) {
        0 => first,
        rest => format!("{first} and {rest} more"),
    }
}
