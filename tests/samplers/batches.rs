//! A sample is the same in any batch: its noise, its class, and the noise that is given for it.

use candle_core::{DType, Device, Tensor};
use consistency::model::{Condition, EdmDenoiser, Network};
use consistency::rng::Key;
use consistency::sample::{Classes, Draws};
use consistency::seam::Denoiser;
use consistency::{Error, Result};
use std::collections::HashMap;

const COUNT: u64 = 13;
const SHAPE: [usize; 3] = [1, 48, 48];

/// Its output is the class of each sample, everywhere.
struct Class;

impl Network for Class {
    fn forward(&self, xs: &Tensor, on: Condition) -> Result<Tensor> {
        let labels = on.labels.ok_or_else(|| Error::new("no classes"))?;
        let labels: Vec<f32> = labels.iter().map(|label| *label as f32).collect();
        let rows = labels.len();
        Ok(Tensor::from_vec(labels, (rows, 1, 1, 1), xs.device())?.broadcast_as(xs.shape())?)
    }
}

fn draws(at_once: usize, given: HashMap<String, Tensor>) -> Draws {
    let key = Key::new(3);
    Draws {
        shape: SHAPE.to_vec(),
        device: Device::Cpu,
        start: key.stream("start"),
        renoise: key.stream("renoise"),
        classes: Classes::Random { key: key.stream("class"), count: 10 },
        given,
        at_once,
    }
}

/// Samples that are made of all that a sample has of its own, and the sizes of the batches.
fn drawn(draws: &Draws) -> Result<(Vec<f32>, Vec<usize>)> {
    let sizes = std::cell::RefCell::new(Vec::new());
    let network = EdmDenoiser::new(Box::new(Class), 0.5);
    let (samples, nfe) = draws.of(&network, 0..COUNT, &Device::Cpu, |d, batch| {
        let indices = batch.indices();
        sizes.borrow_mut().push((indices.end - indices.start) as usize);
        let answer = d.denoise(&batch.start()?, &[1.0])?;
        Ok((answer + batch.renoise(1)?)?)
    })?;
    assert_eq!((samples.dims(), nfe), (&[COUNT as usize, 1, 48, 48][..], 1));
    Ok((samples.flatten_all()?.to_vec1()?, sizes.into_inner()))
}

#[test]
fn the_size_of_the_batches_changes_no_bit() -> Result<()> {
    let rows = |range| Key::new(4).normal(range, &SHAPE, DType::F32, &Device::Cpu);
    let given = HashMap::from([("noise.2".to_string(), rows(0..COUNT)?)]);
    let mut all = Vec::new();
    for given in [HashMap::new(), given] {
        let (whole, sizes) = drawn(&draws(100, given.clone()))?;
        assert_eq!(sizes, [13]);
        // Images of 48x48 have 2.25 times the pixels of those of 32x32.
        for (at_once, expected) in [(1, vec![1; 13]), (9, vec![4, 4, 4, 1]), (12, vec![5, 5, 3])] {
            let (parts, sizes) = drawn(&draws(at_once, given.clone()))?;
            assert_eq!(sizes, expected);
            assert!(parts == whole, "{at_once} at once");
        }
        all.push(whole);
    }
    assert!(all[0] != all[1], "the noise that was given was not used");
    Ok(())
}

#[test]
fn all_of_one_class() -> Result<()> {
    let network = EdmDenoiser::new(Box::new(Class), 0.5);
    for class in [2, 7] {
        let draws = Draws { classes: Classes::All(class), ..draws(4, HashMap::new()) };
        let (samples, _) = draws.of(&network, 0..3, &Device::Cpu, |d, batch| {
            d.denoise(&batch.start()?.zeros_like()?, &[1.0])
        })?;
        // At x = 0 the denoiser is c_out F, and F is the class.
        let expected = class as f32 * 0.5 / (1.0f32 + 0.25).sqrt();
        let values: Vec<f32> = samples.flatten_all()?.to_vec1()?;
        assert!(values.iter().all(|value| (value - expected).abs() < 1e-6), "{}", values[0]);
    }
    Ok(())
}
