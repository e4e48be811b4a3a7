//! Promise: an edit changes what is free and nothing else. What is known stays, to the bit or to
//! rounding as stated, for images of any size, in any batch.

mod known;
mod latent;
mod steps;

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::edit::{Edit, Operator, Steps, colorize, grey, inpaint, super_resolve};
use consistency::process::{Empirical, FlowMap, NoiseRange, Solver, TimeGrid};
use consistency::rng::Key;
use consistency::seam::ConsistencyFunction;
use std::sync::Mutex;

const CPU: Device = Device::Cpu;

/// Rounding of a known coefficient, for images in [-1, 1].
const ROUNDING: [(DType, f64); 2] = [(DType::F32, 1e-5), (DType::F64, 1e-13)];

fn grid() -> Result<TimeGrid> {
    NoiseRange::default().karras(14)
}

/// Images of this shape in [-1, 1].
fn images(count: u64, shape: &[usize], dtype: DType) -> Result<Tensor> {
    Ok(Key::new(8).normal(0..count, shape, dtype, &CPU)?.tanh()?)
}

/// The exact consistency function of as many images as `data` has, on [`grid`].
fn exact(data: &Tensor) -> Result<FlowMap<Empirical>> {
    Ok(FlowMap::new(Empirical::new(data)?, Solver::Heun, grid()?))
}

fn values(x: &Tensor) -> Result<Vec<f64>> {
    Ok(x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?)
}

fn bits(x: &Tensor) -> Result<Vec<u64>> {
    Ok(values(x)?.into_iter().map(f64::to_bits).collect())
}

fn gap(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    Ok(values(a)?.iter().zip(values(b)?).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

fn message<T>(result: Result<T>) -> String {
    result.map(|_| "it was accepted".to_string()).unwrap_or_else(|error| error.to_string())
}

/// Answers what it is asked times a factor, and remembers it.
struct Scaled {
    factor: f64,
    asked: Mutex<Vec<(Tensor, f64)>>,
}

impl Scaled {
    fn by(factor: f64) -> Self {
        Self { factor, asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<(Tensor, f64)> {
        self.asked.lock().map(|asked| asked.clone()).unwrap_or_default()
    }
}

impl ConsistencyFunction for Scaled {
    fn origin(&self, x: &Tensor, t: &[f64]) -> Result<Tensor> {
        if let Ok(mut asked) = self.asked.lock() {
            asked.push((x.clone(), t[0]));
        }
        Ok((x * self.factor)?)
    }
}

/// How many images lie nearest to the row of `data` of their own number.
fn hits(x: &Tensor, data: &Tensor) -> Result<usize> {
    let (x, data) = (x.flatten_from(1)?, data.flatten_from(1)?);
    let apart = x.unsqueeze(1)?.broadcast_sub(&data.unsqueeze(0)?)?.sqr()?.sum(2)?;
    let nearest = apart.argmin(1)?.to_vec1::<u32>()?;
    Ok(nearest.iter().enumerate().filter(|(i, n)| *i == **n as usize).count())
}

#[test]
fn a_sample_is_the_same_in_any_batch() -> Result<()> {
    let data = images(5, &[3, 4, 4], DType::F32)?;
    let (f, y, grid) = (exact(&data)?, images(9, &[3, 4, 4], DType::F32)?, grid()?);
    let masks = [
        (Operator::Identity, Tensor::new(&[0u8, 1, 1, 0], &CPU)?.reshape((1, 1, 4, 1))?),
        (Operator::Color, Tensor::new(&[0u8, 1, 1], &CPU)?.reshape((1, 3, 1, 1))?),
        (Operator::Patch(2), Tensor::new(&[0u8, 1, 1, 1], &CPU)?.reshape((1, 1, 4, 1, 1))?),
    ];
    for (operator, mask) in masks {
        let steps = Steps { clip: false, ..Steps::along(&grid) };
        let edit = Edit { operator, mask, steps, guided: false };
        // The exact function forgets where it started; one that scales passes all noise on.
        let both: [&dyn ConsistencyFunction; 2] = [&f, &Scaled::by(0.5)];
        for f in both {
            let all = edit.run(f, &y, &Key::new(7), 0)?.narrow(0, 4, 3)?;
            let few = edit.run(f, &y.narrow(0, 4, 3)?, &Key::new(7), 4)?;
            assert_eq!(bits(&few)?, bits(&all)?, "{operator:?}");
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_edited_is_refused() -> Result<()> {
    let f = Scaled::by(1.0);
    let y = images(2, &[1, 6, 6], DType::F64)?;
    let (key, steps) = (Key::new(0), Steps::along(&grid()?));
    let mask = |shape: &[usize]| Tensor::ones(shape, DType::U8, &CPU);
    let with = |mask: &Tensor, steps: &Steps| message(inpaint(&f, &y, mask, steps, &key));
    for shape in [vec![2, 1, 6, 5], vec![3, 1, 6, 6], vec![6, 6]] {
        let text = with(&mask(&shape)?, &steps);
        assert!(text.contains(&format!("a mask of shape {shape:?}")), "{text}");
    }
    let half = (Tensor::ones((2, 1, 6, 6), DType::F64, &CPU)? * 0.5)?;
    assert!(with(&half, &steps).contains("0.5 in a mask"));
    for times in [vec![], vec![1.0, 2.0], vec![2.0, 2.0], vec![2.0, 0.001], vec![f64::NAN]] {
        let text = with(&mask(&[1, 1, 1, 1])?, &Steps { times, ..steps.clone() });
        assert!(text.contains("noise level"), "{text}");
    }
    let patch = Edit {
        operator: Operator::Patch(4),
        mask: mask(&[1; 5])?,
        steps: steps.clone(),
        guided: false,
    };
    let text = message(patch.run(&f, &y, &key, 0));
    assert!(text.contains("patches of 4 x 4") && text.contains("[2, 1, 6, 6]"), "{text}");
    let text = message(patch.operator.invert(&y.unsqueeze(2)?));
    assert!(text.contains("1 coefficients a patch"), "{text}");
    let color = Edit {
        operator: Operator::Color,
        mask: mask(&[1; 4])?,
        steps: steps.clone(),
        guided: false,
    };
    let text = message(color.run(&f, &y, &key, 0));
    assert!(text.contains("needs images of 3 channels"), "{text}");
    let text = message(colorize(&f, &images(2, &[3, 6, 6], DType::F64)?, &steps, &key));
    assert!(text.contains("needs grey images (B, 1, H, W)"), "{text}");
    assert!(message(grey(&y)).contains("needs images of 3 channels"));
    assert!(message(super_resolve(&f, &y, 0, &steps, &key)).contains("super-resolution by 0"));
    assert!(f.asked().is_empty(), "the function was asked before the input was looked at");
    Ok(())
}
