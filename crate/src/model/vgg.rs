//! The convolutions of VGG16 (Simonyan and Zisserman 2015), whose activations LPIPS compares.

use crate::Result;
use crate::nn::{Conv2d, Scope, Tape, Value, relu};

/// The channels of each block.
pub(crate) const CHANNELS: [usize; 5] = [64, 128, 256, 512, 512];
/// torchvision's numbers for the convolutions of each block.
const NUMBERS: [&[usize]; 5] = [&[0, 2], &[5, 7], &[10, 12, 14], &[17, 19, 21], &[24, 26, 28]];

/// Five blocks of 3x3 convolutions with ReLU.
pub(crate) struct Vgg16 {
    blocks: Vec<Vec<Conv2d>>,
}

impl Vgg16 {
    /// For images of three channels, under torchvision's names (`features.N.weight`).
    pub fn new(scope: &mut Scope) -> Result<Self> {
        let (mut blocks, mut inputs) = (Vec::new(), 3);
        for (channels, numbers) in CHANNELS.into_iter().zip(NUMBERS) {
            let mut convolutions = Vec::new();
            for number in numbers {
                let mut place = scope.at(format!("features.{number}"));
                convolutions.push(Conv2d::new(&mut place, inputs, channels, 3, 1.0)?);
                inputs = channels;
            }
            blocks.push(convolutions);
        }
        Ok(Self { blocks })
    }

    /// The activations (B, H, W, C) at the end of each block, for images (B, H, W, 3); `pool` halves
    /// the sides between two blocks.
    pub fn features(
        &self,
        tape: &mut Tape,
        xs: &Value,
        pool: impl Fn(&mut Tape, &Value) -> Result<Value>,
    ) -> Result<Vec<Value>> {
        let mut xs = xs.clone();
        let mut features: Vec<Value> = Vec::with_capacity(self.blocks.len());
        for (i, block) in self.blocks.iter().enumerate() {
            if i > 0 {
                xs = pool(tape, &xs)?;
            }
            for convolution in block {
                let ys = convolution.forward(tape, &xs)?;
                xs = relu(tape, &ys)?;
            }
            features.push(xs.clone());
        }
        Ok(features)
    }
}
