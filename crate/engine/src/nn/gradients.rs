//! The gradients of a loss with respect to the parameters of a network.

use super::ops;
use crate::{Result, bail, ensure};
use candle_core::Tensor;
use std::collections::BTreeMap;

/// A gradient for each parameter, under its name.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    tensors: BTreeMap<String, Tensor>,
}

impl Gradients {
    pub(super) fn new(tensors: BTreeMap<String, Tensor>) -> Self {
        Self { tensors }
    }

    /// The gradient with respect to the parameter `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Name and gradient, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// The Euclidean norm of all of them together.
    ///
    /// # Errors
    /// A gradient that is not finite; the message names the first parameter that has one.
    pub fn norm(&self) -> Result<f64> {
        let mut sum = 0.0;
        for (name, gradient) in &self.tensors {
            let squares = ops::sum_of_squares(gradient)?;
            ensure!(diverged: squares.is_finite(), "the gradient of {name} is not finite");
            sum += squares;
        }
        Ok(sum.sqrt())
    }

    /// Multiply all by `factor`.
    pub fn scale(&mut self, factor: f64) -> Result<()> {
        if factor != 1.0 {
            for gradient in self.tensors.values_mut() {
                ops::scale_in_place(gradient, factor)?;
            }
        }
        Ok(())
    }

    /// Add the gradients of another part of the batch.
    ///
    /// # Errors
    /// A parameter that only one of them has.
    pub fn add(&mut self, other: Gradients) -> Result<()> {
        ensure!(
            self.tensors.len() == other.tensors.len(),
            "gradients of {} and of {} parameters",
            self.tensors.len(),
            other.tensors.len()
        );
        for (name, gradient) in other.tensors {
            let Some(sum) = self.tensors.get_mut(&name) else {
                bail!("only one part of the batch has a gradient for {name}");
            };
            if sum.device().is_cpu() {
                ops::add_in_place(sum, &gradient)?;
            } else {
                *sum = (&*sum + gradient)?;
            }
        }
        Ok(())
    }
}
