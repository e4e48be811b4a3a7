//! The residual block of the U-Nets, with its two ways of taking the noise level and its
//! three of changing the size.

use crate::Result;
use crate::nn::{
    Act, Conv2d, ConvEpilogue, Dropout, GroupNorm, Linear, Masks, Scope, Tape, Value,
    average_pool2, fir_down2, fir_up2, upsample_nearest2,
};

/// Whether a block changes the size of its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Same,
    /// By nearest neighbours, or by the filter [1, 3, 3, 1].
    Up {
        fir: bool,
    },
    /// By the mean of four, or by the filter.
    Down {
        fir: bool,
    },
}

impl Size {
    fn of(self, tape: &mut Tape, xs: &Value) -> Result<Value> {
        match self {
            Self::Same => Ok(xs.clone()),
            Self::Up { fir: false } => upsample_nearest2(tape, xs),
            Self::Up { fir: true } => fir_up2(tape, xs),
            Self::Down { fir: false } => average_pool2(tape, xs),
            Self::Down { fir: true } => fir_down2(tape, xs),
        }
    }
}

/// The names of a block's layers.
pub(super) struct Names {
    pub norms: [&'static str; 2],
    pub convs: [&'static str; 2],
    pub time: &'static str,
    pub shortcut: &'static str,
}

/// What all blocks of a network share.
#[derive(Clone, Copy)]
pub(super) struct Common {
    /// Features of the noise level's embedding.
    pub time: usize,
    pub eps: f64,
    /// Scale and shift the second norm, rather than add to its input.
    pub modulated: bool,
    pub dropout: f64,
    /// The factor on the sum of the block and its residual.
    pub factor: f64,
    /// The initial standard deviation of the last convolution's weights, as a fraction of the usual
    /// one.
    pub last: f64,
}

/// norm, SiLU, resampling, convolution, the noise level, norm, SiLU, dropout, convolution, on
/// a residual.
#[derive(Clone, Debug)]
pub(super) struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time: Linear,
    norm2: GroupNorm,
    dropout: Dropout,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
    size: Size,
    modulated: bool,
    factor: f64,
}

impl ResBlock {
    /// `groups` holds the groups of both norms; with `project` the residual has a 1x1 convolution
    /// even where the number of channels stays.
    pub fn new(
        scope: &mut Scope,
        names: &Names,
        (inputs, outputs): (usize, usize),
        groups: [usize; 2],
        (size, project): (Size, bool),
        common: Common,
    ) -> Result<Self> {
        let Common { time, eps, modulated, dropout, factor, last } = common;
        let shortcut = if inputs == outputs && !project {
            None
        } else {
            Some(Conv2d::new(&mut scope.at(names.shortcut), inputs, outputs, 1, 1.0)?)
        };
        let conditioning = if modulated { 2 * outputs } else { outputs };
        Ok(Self {
            norm1: GroupNorm::new(&mut scope.at(names.norms[0]), groups[0], inputs, eps)?,
            conv1: Conv2d::new(&mut scope.at(names.convs[0]), inputs, outputs, 3, 1.0)?,
            time: Linear::new(&mut scope.at(names.time), time, conditioning, 1.0)?,
            norm2: GroupNorm::new(&mut scope.at(names.norms[1]), groups[1], outputs, eps)?,
            dropout: Dropout::new(scope, dropout)?,
            conv2: Conv2d::new(&mut scope.at(names.convs[1]), outputs, outputs, 3, last)?,
            shortcut,
            size,
            modulated,
            factor,
        })
    }

    /// `xs` (B, H, W, C); `emb` (B, time), after its SiLU.
    pub fn forward(
        &self,
        tape: &mut Tape,
        xs: &Value,
        emb: &Value,
        dropout: Option<Masks>,
    ) -> Result<Value> {
        let block = self.clone();
        tape.block(&[xs, emb], move |tape, v| block.run(tape, &v[0], &v[1], dropout))
    }

    fn run(&self, tape: &mut Tape, xs: &Value, emb: &Value, masks: Option<Masks>) -> Result<Value> {
        let h = self.norm1.forward(tape, xs, Act::Silu)?;
        let h = self.size.of(tape, &h)?;
        let conditioning = self.time.forward(tape, emb)?;
        let h = if self.modulated {
            let h = self.conv1.forward(tape, &h)?;
            self.norm2.modulated(tape, &h, &conditioning, Act::Silu)?
        } else {
            let epilogue =
                ConvEpilogue { per_sample: Some(&conditioning), ..ConvEpilogue::default() };
            let h = self.conv1.forward_with(tape, &h, epilogue)?;
            self.norm2.forward(tape, &h, Act::Silu)?
        };
        let h = self.dropout.forward(tape, &h, masks)?;
        let residual = self.size.of(tape, xs)?;
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(tape, &residual)?,
            None => residual,
        };
        let epilogue = ConvEpilogue {
            residual: Some(&residual),
            factor: self.factor,
            ..ConvEpilogue::default()
        };
        self.conv2.forward_with(tape, &h, epilogue)
    }
}
