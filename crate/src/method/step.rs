//! One training step, the same for all methods and for every loop that calls it.

use super::{Batch, Trainer};
use crate::nn::Gradients;
use crate::{Context, Result, bail, ensure};

/// The losses of a player: the first, by which divergence is judged; the last; and the sum since
/// the mean was last asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    pub(crate) first: Option<f64>,
    pub(crate) sum: f64,
    pub(crate) count: u64,
    pub(crate) last: f64,
    pub(crate) norm: f64,
    pub(crate) rate: f64,
}

impl Losses {
    /// None yet, of each player of `trainer`.
    pub fn of(trainer: &dyn Trainer) -> Vec<Self> {
        trainer.players().iter().map(|_| Self::default()).collect()
    }

    // One more, with the norm of its gradient and its learning rate.
    fn add(&mut self, loss: f64, norm: f64, rate: f64) {
        self.first.get_or_insert(loss);
        self.sum += loss;
        self.count += 1;
        (self.last, self.norm, self.rate) = (loss, norm, rate);
    }

    /// The first.
    pub fn first(&self) -> f64 {
        self.first.unwrap_or(f64::NAN)
    }

    /// The last.
    pub fn last(&self) -> f64 {
        self.last
    }

    /// The mean since it was last asked for, the last norm and the last rate.
    pub fn take(&mut self) -> (f64, f64, f64) {
        // A player that has not stepped since shows its last loss once more.
        let mean = if self.count == 0 { self.last } else { self.sum / self.count as f64 };
        (self.sum, self.count) = (0.0, 0);
        (mean, self.norm, self.rate)
    }
}

/// Take step `k` of `trainer`: for each player whose turn it is, its loss on the batch, which goes
/// into its `losses`, its gradient, clipped where that is asked for, and its own step. `parts`
/// gives the batch, once for each of these players: the parts that it is split into, each with its
/// share of the whole.
///
/// [`Trainer::follow`] is left to the caller: until then targets and stages are those of step `k`.
///
/// # Errors
/// A loss or a gradient that is not finite, or a loss that the method calls diverged, with the step
/// and the learning rate: the player has not moved then. Errors of the batch and the networks.
pub fn step<P>(
    trainer: &mut dyn Trainer,
    k: u64,
    losses: &mut [Losses],
    parts: impl Fn() -> P,
) -> Result<()>
where
    P: Iterator<Item = Result<(Batch, f64)>>,
{
    let players = trainer.players().len();
    ensure!(losses.len() == players, "the losses of {} players for {players}", losses.len());
    for turn in trainer.turns(k) {
        let rate = trainer.players()[turn].learning_rate(k);
        let found = gradients(trainer, turn, k, parts()).and_then(|found| {
            losses[turn].add(found.loss, found.norm, rate);
            trainer.check_loss(turn, found.loss, losses[turn].first())?;
            Ok(found.gradients)
        });
        let found = found.with_context(|| format!("at step {k} (learning rate {rate:e})"))?;
        trainer.players_mut()[turn].step(&found, k)?;
    }
    Ok(())
}

struct Found {
    loss: f64,
    norm: f64,
    gradients: Gradients,
}

// The mean loss of `player` on a batch, the norm of its gradient, and the gradient, clipped where
// that is asked for: by parts where the batch is split, weighted by their sizes.
fn gradients(
    trainer: &dyn Trainer,
    player: usize,
    k: u64,
    parts: impl Iterator<Item = Result<(Batch, f64)>>,
) -> Result<Found> {
    let of = trainer.players()[player];
    let (mut value, mut sum) = (0.0, None::<Gradients>);
    for part in parts {
        let (part, share) = part?;
        let loss = trainer.loss(player, k, &part)?;
        let loss = if share == 1.0 { loss } else { (loss * share)? };
        value += f64::from(loss.to_scalar::<f32>()?);
        let gradients = of.params().gradients(&loss)?;
        match &mut sum {
            Some(sum) => sum.add(gradients)?,
            None => sum = Some(gradients),
        }
    }
    let Some(mut gradients) = sum else { bail!("a batch of no samples") };
    // The parameter comes first: it says more than the loss.
    let norm = gradients.norm().with_context(|| format!("the loss is {value}"))?;
    ensure!(diverged: value.is_finite(), "the loss is {value}, the norm of the gradient {norm}");
    of.clip(&mut gradients, norm)?;
    Ok(Found { loss: value, norm, gradients })
}
