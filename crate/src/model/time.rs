//! How a network is conditioned on noise levels: c_noise, features of it, two linear layers. A
//! network of two noise levels has a second such pair of layers.

use super::network::Condition;
use crate::nn::{FourierEmbedding, Linear, PositionalEmbedding, Scope, Tape, Value, silu};
use crate::seam::one_a_sample;
use crate::{Result, bail, ensure};

/// The name above the parameters of the second noise level's layers. They are all that a network
/// of two noise levels has beyond the same network of one.
pub(crate) const SECOND: &str = "second_time";

/// How many noise levels a network is conditioned on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    /// t.
    #[default]
    One,
    /// t, and the noise level s where a map ends.
    Two,
}

/// Fixed features of c_noise.
#[derive(Clone, Debug)]
pub(super) enum Features {
    Positional(PositionalEmbedding),
    Fourier(FourierEmbedding),
}

/// The embedding of the noise levels.
#[derive(Clone, Debug)]
pub(super) struct TimeEmbedding {
    features: Features,
    /// c_noise is multiplied by this before its features are taken.
    pub scale: f64,
    first: (Linear, Linear),
    second: Option<(Linear, Linear)>,
}

impl TimeEmbedding {
    /// For `times` noise levels, whose first goes through the layers `first`, from `inputs`
    /// features to `width`. What the second adds starts at zero, so that a network that has taken
    /// over the weights of one with a single noise level begins equal to it.
    pub fn new(
        scope: &mut Scope,
        (features, scale): (Features, f64),
        first: (Linear, Linear),
        (inputs, width): (usize, usize),
        times: Times,
    ) -> Result<Self> {
        let second = match times {
            Times::One => None,
            Times::Two => {
                let mut scope = scope.at(SECOND);
                Some((
                    Linear::new(&mut scope.at("linear_1"), inputs, width, 1.0)?,
                    Linear::new(&mut scope.at("linear_2"), width, width, 0.0)?,
                ))
            }
        };
        Ok(Self { features, scale, first, second })
    }

    /// The embedding (B, width) for the samples `xs`, before its SiLU.
    ///
    /// # Errors
    /// Numbers that are not finite, or are neither one nor one per sample; a second noise level for
    /// a network of one, or none for a network of two.
    pub fn forward(&self, tape: &mut Tape, xs: &Value, on: Condition) -> Result<Value> {
        let first = self.through(tape, xs, (on.noise, on.noise_rate), &self.first)?;
        match (&self.second, on.second) {
            (None, None) => Ok(first),
            (Some(layers), Some(noise)) => {
                let second = self.through(tape, xs, (noise, on.second_rate), layers)?;
                Ok(tape.add(&first, &second, 1.0)?)
            }
            (Some(_), None) => bail!("this network takes two noise levels, t and s: give both"),
            (None, Some(_)) => bail!("this network takes one noise level, t, and no second one"),
        }
    }

    fn through(
        &self,
        tape: &mut Tape,
        xs: &Value,
        (noise, rate): (&[f64], Option<&[f64]>),
        layers: &(Linear, Linear),
    ) -> Result<Value> {
        let bad = noise.iter().find(|c| !c.is_finite());
        ensure!(bad.is_none(), "c_noise = {}: it must be finite", bad.unwrap_or(&f64::NAN));
        let noise = one_a_sample(noise, xs.dims()[0])?;
        let scaled: Vec<f64> = noise.iter().map(|c| self.scale * c).collect();
        let (dtype, device) = (xs.tensor().dtype(), xs.tensor().device());
        let features = match &self.features {
            Features::Positional(features) => features.forward(&scaled, dtype, device)?,
            Features::Fourier(features) => features.forward(&scaled, dtype, device)?,
        };
        let features = match rate {
            None => tape.constant(features),
            Some(rate) => {
                let rate: Vec<f64> = rate.iter().map(|rate| self.scale * rate).collect();
                let tangent = match &self.features {
                    Features::Positional(of) => of.tangent(&scaled, &rate, dtype, device)?,
                    Features::Fourier(of) => of.tangent(&scaled, &rate, dtype, device)?,
                };
                tape.moving(features, tangent)?
            }
        };
        let emb = layers.0.forward(tape, &features)?;
        let emb = silu(tape, &emb)?;
        layers.1.forward(tape, &emb)
    }
}
