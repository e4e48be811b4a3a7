//! The layers of pytorch-fid's Inception: torchvision's Inception v3 (Szegedy et al. 2016) as the
//! FID of TensorFlow has it. Its average pools do not count the padding, and the last block takes
//! the maximum instead of the mean.

use super::network::{Condition, OnTape};
use crate::Result;
use crate::nn::{
    Conv2d, Init, Parameter, Scope, Tape, Value, average_pool3, concatenate, max_pool,
    position_mean, relu, resize_bilinear,
};

/// The number of pool features.
pub(crate) const FEATURES: usize = 2048;
/// The number of classes in the logits.
const CLASSES: usize = 1008;
/// The side that every image is resized to.
const SIDE: usize = 299;

enum Part {
    /// A convolution with its batch norm folded in, and ReLU.
    Conv(Conv2d),
    Mean3,
    Largest3 {
        stride: usize,
        padding: usize,
    },
    /// Chains from one input, with their outputs side by side.
    Split(Vec<Vec<Part>>),
}

/// The network up to its pool features, and the classifier on them.
pub(crate) struct InceptionV3 {
    parts: Vec<Part>,
    pub classifier: Parameter,      // (CLASSES, FEATURES)
    pub classifier_bias: Parameter, // (CLASSES)
}

type Build<'a, 'b> = &'a mut Scope<'b>;

fn padded(
    scope: Build,
    name: &str,
    channels: (usize, usize),
    window: (usize, usize),
    stride: usize,
    padding: (usize, usize),
) -> Result<Part> {
    let (above, left) = padding;
    let sides = [above, left, above, left];
    let conv = Conv2d::windowed(&mut scope.at(name), channels, window, 1.0, stride, sides)?;
    Ok(Part::Conv(conv))
}

/// At stride 1, with the size kept.
fn same(
    scope: Build,
    name: &str,
    channels: (usize, usize),
    window: (usize, usize),
) -> Result<Part> {
    padded(scope, name, channels, window, 1, (window.0 / 2, window.1 / 2))
}

/// 3x3 without padding.
fn bare(scope: Build, name: &str, channels: (usize, usize), stride: usize) -> Result<Part> {
    padded(scope, name, channels, (3, 3), stride, (0, 0))
}

const HALVE: Part = Part::Largest3 { stride: 2, padding: 0 };

impl InceptionV3 {
    /// Under pytorch-fid's names, with `.conv` and `.bn` merged into one.
    pub fn new(scope: Build) -> Result<Self> {
        let mut parts = vec![
            bare(scope, "Conv2d_1a_3x3", (3, 32), 2)?,
            bare(scope, "Conv2d_2a_3x3", (32, 32), 1)?,
            same(scope, "Conv2d_2b_3x3", (32, 64), (3, 3))?,
            HALVE,
            same(scope, "Conv2d_3b_1x1", (64, 80), (1, 1))?,
            bare(scope, "Conv2d_4a_3x3", (80, 192), 1)?,
            HALVE,
        ];
        for (name, inputs, pooled) in
            [("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)]
        {
            parts.push(block_a(&mut scope.at(name), inputs, pooled)?);
        }
        parts.push(block_b(&mut scope.at("Mixed_6a"))?);
        for (name, narrow) in
            [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)]
        {
            parts.push(block_c(&mut scope.at(name), narrow)?);
        }
        parts.push(block_d(&mut scope.at("Mixed_7a"))?);
        parts.push(block_e(&mut scope.at("Mixed_7b"), 1280, Part::Mean3)?);
        let last = Part::Largest3 { stride: 1, padding: 1 };
        parts.push(block_e(&mut scope.at("Mixed_7c"), FEATURES, last)?);
        let mut classifier = scope.at("fc");
        let zero = Init::Constant(0.0);
        Ok(Self {
            parts,
            classifier: classifier.parameter("weight", &[CLASSES, FEATURES], zero)?,
            classifier_bias: classifier.parameter("bias", &[CLASSES], zero)?,
        })
    }
}

impl OnTape for InceptionV3 {
    /// Images (B, 3, H, W) in \[0, 1\], resized to 299 x 299: the pool features (B, 2048). No
    /// gradient passes the scaling to \[-1, 1\].
    fn run(&self, tape: &mut Tape, xs: &Value, _: Condition) -> Result<Value> {
        let xs = tape.channels_last(xs)?;
        let xs = resize_bilinear(tape, &xs, (SIDE, SIDE))?;
        let xs = tape.constant(xs.tensor().affine(2.0, -1.0)?);
        let ys = chain(&self.parts, tape, &xs)?;
        position_mean(tape, &ys)
    }
}

fn chain(parts: &[Part], tape: &mut Tape, xs: &Value) -> Result<Value> {
    let mut xs = xs.clone();
    for part in parts {
        xs = match part {
            Part::Conv(conv) => {
                let ys = conv.forward(tape, &xs)?;
                relu(tape, &ys)?
            }
            Part::Mean3 => average_pool3(tape, &xs)?,
            Part::Largest3 { stride, padding } => max_pool(tape, &xs, 3, *stride, *padding)?,
            Part::Split(chains) => {
                let mut all: Option<Value> = None;
                for parts in chains {
                    let ys = chain(parts, tape, &xs)?;
                    all = Some(match &all {
                        Some(before) => concatenate(tape, before, &ys)?,
                        None => ys,
                    });
                }
                all.unwrap_or(xs)
            }
        };
    }
    Ok(xs)
}

fn block_a(s: Build, inputs: usize, pooled: usize) -> Result<Part> {
    Ok(Part::Split(vec![
        vec![same(s, "branch1x1", (inputs, 64), (1, 1))?],
        vec![
            same(s, "branch5x5_1", (inputs, 48), (1, 1))?,
            same(s, "branch5x5_2", (48, 64), (5, 5))?,
        ],
        vec![
            same(s, "branch3x3dbl_1", (inputs, 64), (1, 1))?,
            same(s, "branch3x3dbl_2", (64, 96), (3, 3))?,
            same(s, "branch3x3dbl_3", (96, 96), (3, 3))?,
        ],
        vec![Part::Mean3, same(s, "branch_pool", (inputs, pooled), (1, 1))?],
    ]))
}

fn block_b(s: Build) -> Result<Part> {
    Ok(Part::Split(vec![
        vec![bare(s, "branch3x3", (288, 384), 2)?],
        vec![
            same(s, "branch3x3dbl_1", (288, 64), (1, 1))?,
            same(s, "branch3x3dbl_2", (64, 96), (3, 3))?,
            bare(s, "branch3x3dbl_3", (96, 96), 2)?,
        ],
        vec![HALVE],
    ]))
}

fn block_c(s: Build, narrow: usize) -> Result<Part> {
    let across = (1, 7);
    let down = (7, 1);
    Ok(Part::Split(vec![
        vec![same(s, "branch1x1", (768, 192), (1, 1))?],
        vec![
            same(s, "branch7x7_1", (768, narrow), (1, 1))?,
            same(s, "branch7x7_2", (narrow, narrow), across)?,
            same(s, "branch7x7_3", (narrow, 192), down)?,
        ],
        vec![
            same(s, "branch7x7dbl_1", (768, narrow), (1, 1))?,
            same(s, "branch7x7dbl_2", (narrow, narrow), down)?,
            same(s, "branch7x7dbl_3", (narrow, narrow), across)?,
            same(s, "branch7x7dbl_4", (narrow, narrow), down)?,
            same(s, "branch7x7dbl_5", (narrow, 192), across)?,
        ],
        vec![Part::Mean3, same(s, "branch_pool", (768, 192), (1, 1))?],
    ]))
}

fn block_d(s: Build) -> Result<Part> {
    Ok(Part::Split(vec![
        vec![same(s, "branch3x3_1", (768, 192), (1, 1))?, bare(s, "branch3x3_2", (192, 320), 2)?],
        vec![
            same(s, "branch7x7x3_1", (768, 192), (1, 1))?,
            same(s, "branch7x7x3_2", (192, 192), (1, 7))?,
            same(s, "branch7x7x3_3", (192, 192), (7, 1))?,
            bare(s, "branch7x7x3_4", (192, 192), 2)?,
        ],
        vec![HALVE],
    ]))
}

fn block_e(s: Build, inputs: usize, pool: Part) -> Result<Part> {
    let mut both = |a: &str, b: &str| -> Result<Part> {
        Ok(Part::Split(vec![
            vec![same(s, a, (384, 384), (1, 3))?],
            vec![same(s, b, (384, 384), (3, 1))?],
        ]))
    };
    let first = both("branch3x3_2a", "branch3x3_2b")?;
    let second = both("branch3x3dbl_3a", "branch3x3dbl_3b")?;
    Ok(Part::Split(vec![
        vec![same(s, "branch1x1", (inputs, 320), (1, 1))?],
        vec![same(s, "branch3x3_1", (inputs, 384), (1, 1))?, first],
        vec![
            same(s, "branch3x3dbl_1", (inputs, 448), (1, 1))?,
            same(s, "branch3x3dbl_2", (448, 384), (3, 3))?,
            second,
        ],
        vec![pool, same(s, "branch_pool", (inputs, 192), (1, 1))?],
    ]))
}
