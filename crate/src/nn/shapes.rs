//! The names and shapes of a network's parameters, without their numbers.

use super::params::Scope;
use crate::{Result, bail, ensure};
use candle_core::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// What an error lists before it counts the rest.
const LISTED: usize = 20;

/// The names and shapes of a network's parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes {
    shapes: BTreeMap<String, Vec<usize>>,
    fixed: BTreeSet<String>,
}

impl Shapes {
    /// Those of the network that `build` builds; no memory is taken for its parameters.
    ///
    /// # Errors
    /// A configuration that no network has.
    pub fn of<N>(build: impl FnOnce(&mut Scope) -> Result<N>) -> Result<Self> {
        let mut shapes = Self::default();
        build(&mut Scope::describe(&mut shapes))?;
        Ok(shapes)
    }

    /// Those of `tensors`.
    pub fn of_tensors(tensors: &BTreeMap<String, Tensor>) -> Self {
        tensors.iter().map(|(name, tensor)| (name.clone(), tensor.dims().to_vec())).collect()
    }

    /// Whether tensors of the names and shapes `given` are this network's.
    ///
    /// # Errors
    /// All that are missing, extra or of another shape, in one message.
    pub fn check(&self, given: &Shapes) -> Result<()> {
        let mut wrong = Vec::new();
        for (name, shape) in &self.shapes {
            match given.shapes.get(name) {
                None => wrong.push(format!("{name} {shape:?} is missing")),
                Some(other) if other != shape => {
                    wrong.push(format!("{name} has shape {other:?}, the network needs {shape:?}"));
                }
                Some(_) => {}
            }
        }
        let extra = given.shapes.iter().filter(|(name, _)| !self.shapes.contains_key(*name));
        wrong.extend(extra.map(|(name, shape)| format!("{name} {shape:?} is not in the network")));
        if wrong.is_empty() {
            return Ok(());
        }
        let more = match wrong.len().saturating_sub(LISTED) {
            0 => String::new(),
            rest => format!("; and {rest} more"),
        };
        wrong.truncate(LISTED);
        bail!("these parameters do not belong to this network: {}{more}", wrong.join("; "));
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
