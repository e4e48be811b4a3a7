//! Patches of pixels as channels of one.

use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{Result, Tensor, bail};

impl Tape {
    /// (B, H, W, C) to (B, H / p, W / p, p p C): the p x p pixels of a patch become one pixel, whose
    /// channels are the patch's rows in order.
    ///
    /// # Errors
    /// Sides that p does not divide.
    pub fn fold(&mut self, xs: &Value, patch: usize) -> Result<Value> {
        let (batch, height, width, channels) = xs.tensor().dims4()?;
        if patch == 0 || height % patch != 0 || width % patch != 0 {
            bail!("an image of {height}x{width} has no patches of {patch}x{patch}");
        }
        let (rows, columns) = (height / patch, width / patch);
        let apart = [batch * rows, patch, columns, patch * channels];
        self.exchange(xs, apart, [batch, rows, columns, patch * patch * channels])
    }

    /// Back from [`Tape::fold`]: (B, H, W, p p C) to (B, p H, p W, C).
    ///
    /// # Errors
    /// Channels that p p does not divide.
    pub fn unfold(&mut self, xs: &Value, patch: usize) -> Result<Value> {
        let (batch, rows, columns, channels) = xs.tensor().dims4()?;
        if patch == 0 || channels % (patch * patch) != 0 {
            bail!("{channels} channels are no patches of {patch}x{patch} pixels");
        }
        let own = channels / (patch * patch);
        let apart = [batch * rows, columns, patch, patch * own];
        self.exchange(xs, apart, [batch, patch * rows, patch * columns, own])
    }

    // The numbers seen as (n, a, b, c), then as (n, b, a, c), then in the shape `dims`.
    fn exchange(&mut self, xs: &Value, apart: [usize; 4], dims: [usize; 4]) -> Result<Value> {
        let [n, a, b, c] = apart;
        let exchanged = move |t: &Tensor, from: [usize; 4], to: &[usize]| {
            t.reshape(from.as_slice())?.transpose(1, 2)?.contiguous()?.reshape(to)
        };
        let there = |t: &Tensor| exchanged(t, apart, &dims);
        let out = (there(xs.tensor())?, xs.moved(there)?);
        let saved = xs.clone();
        let backward = move |dys: Tensor, slots: &mut Slots| {
            slots.give(&saved, exchanged(&dys, [n, b, a, c], saved.dims())?)
        };
        Ok(self.push(out, &[xs], &[], backward))
    }
}
