//! The transforms, and what they hold.

use super::{CPU, ROUNDING, exact, gap, grid, images, values};
use candle_core::{DType, Tensor};
use consistency::Result;
use consistency::edit::{LUMA, Operator, Steps, colorize, grey, inpaint, super_resolve};
use consistency::rng::Key;

#[test]
fn the_operators_are_orthogonal_and_their_first_column_is_the_papers() -> Result<()> {
    for operator in [
        Operator::Identity,
        Operator::Color,
        Operator::Patch(1),
        Operator::Patch(2),
        Operator::Patch(8),
    ] {
        let q = operator.matrix();
        for a in 0..q.len() {
            for b in 0..q.len() {
                let dot: f64 = q.iter().map(|row| row[a] * row[b]).sum();
                assert!((dot - f64::from(u8::from(a == b))).abs() < 1e-14, "{operator:?} {a} {b}");
            }
        }
        let first: Vec<f64> = q.iter().map(|row| row[0]).collect();
        let want = match operator {
            Operator::Color => {
                LUMA.map(|w| w / LUMA.iter().map(|w| w * w).sum::<f64>().sqrt()).to_vec()
            }
            _ => vec![1.0 / (q.len() as f64).sqrt(); q.len()],
        };
        for (got, want) in first.iter().zip(want) {
            assert!((got - want).abs() < 1e-14, "{operator:?}: {first:?}");
        }
    }
    Ok(())
}

#[test]
fn the_operators_are_their_matrices_and_go_back() -> Result<()> {
    for (dtype, rounding) in ROUNDING {
        let x = images(2, &[3, 4, 6], dtype)?;
        for operator in [Operator::Identity, Operator::Color, Operator::Patch(2)] {
            let back = operator.invert(&operator.apply(&x)?)?;
            assert!(gap(&back, &x)? < rounding, "{operator:?}");
        }
        let at = |b: usize, c: usize, i: usize, j: usize| {
            values(&x).map(|v| v[((b * 3 + c) * 4 + i) * 6 + j])
        };
        // Colour of a pixel: sum_l x_l Q[l][k].
        let (q, y) = (Operator::Color.matrix(), values(&Operator::Color.apply(&x)?)?);
        for k in 0..3 {
            let want = (0..3).map(|l| Ok(at(1, l, 2, 5)? * q[l][k])).sum::<Result<f64>>()?;
            assert!((y[((3 + k) * 4 + 2) * 6 + 5] - want).abs() < rounding, "colour {k}");
        }
        // The patch in row 1, column 2 of image 1, channel 2.
        let (q, y) = (Operator::Patch(2).matrix(), Operator::Patch(2).apply(&x)?);
        assert_eq!(y.dims(), [2, 3, 4, 2, 3]);
        let y = values(&y.narrow(0, 1, 1)?.narrow(1, 2, 1)?)?;
        for k in 0..4 {
            let pixel = |l: usize| at(1, 2, 2 + l / 2, 4 + l % 2);
            let want = (0..4).map(|l| Ok(pixel(l)? * q[l][k])).sum::<Result<f64>>()?;
            assert!((y[(k * 2 + 1) * 3 + 2] - want).abs() < rounding, "coefficient {k}");
        }
    }
    Ok(())
}

#[test]
fn inpainting_keeps_known_pixels_to_the_bit() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        for shape in [vec![1, 8, 8], vec![3, 5, 7], vec![2]] {
            let data = images(5, &shape, dtype)?;
            let y = images(3, &shape, dtype)?.affine(0.9, 0.05)?;
            // A mask for each sample.
            let mask = Key::new(1).normal(0..3, &shape, DType::F64, &CPU)?.gt(0.0)?;
            // A hole may hold anything.
            let holes = (y.ones_like()? * f64::NAN)?;
            let torn = mask.where_cond(&holes, &y)?;
            let steps = Steps::along(&grid()?);
            let x = inpaint(&exact(&data)?, &torn, &mask, &steps, &Key::new(2))?;
            let (known, x, y) = (values(&mask)?, values(&x)?, values(&y)?);
            let mut changed = 0;
            for ((mask, x), y) in known.iter().zip(x).zip(y) {
                if *mask == 0.0 {
                    assert_eq!(x.to_bits(), y.to_bits(), "{dtype:?} {shape:?}");
                } else {
                    assert!(x.is_finite(), "a hole that was not filled");
                    changed += usize::from(x != y);
                }
            }
            assert!(changed > 0, "no pixel was filled in");
        }
    }
    Ok(())
}

#[test]
fn colorization_keeps_the_grey_values() -> Result<()> {
    for (dtype, rounding) in ROUNDING {
        for (h, w) in [(4, 4), (3, 5)] {
            let data = images(6, &[3, h, w], dtype)?;
            let before = grey(&images(4, &[3, h, w], dtype)?.narrow(0, 1, 3)?)?;
            let steps = Steps::along(&grid()?);
            let x = colorize(&exact(&data)?, &before, &steps, &Key::new(3))?;
            assert_eq!(x.dims(), [3, 3, h, w]);
            assert!(gap(&grey(&x)?, &before)? < rounding, "{dtype:?}");
            // It has colours, and not three equal channels.
            assert!(gap(&x.narrow(1, 0, 1)?, &x.narrow(1, 2, 1)?)? > 0.1);
        }
    }
    let one = Tensor::new(&[0.4, 0.4, 0.4], &CPU)?.reshape((1, 3, 1, 1))?;
    assert!((values(&grey(&one)?)?[0] - 0.4).abs() < 1e-15, "(g, g, g) is g");
    Ok(())
}

#[test]
fn super_resolution_keeps_the_means_of_the_patches() -> Result<()> {
    for (dtype, rounding) in ROUNDING {
        for (p, c, h, w) in [(2, 1, 4, 4), (4, 3, 2, 3), (8, 1, 1, 1), (1, 2, 3, 3)] {
            let data = images(6, &[c, p * h, p * w], dtype)?;
            let low = images(3, &[c, h, w], dtype)?;
            let steps = Steps::along(&grid()?);
            let x = super_resolve(&exact(&data)?, &low, p, &steps, &Key::new(4))?;
            assert_eq!(x.dims(), [3, c, p * h, p * w]);
            assert!(gap(&x.avg_pool2d(p)?, &low)? < rounding, "{dtype:?}, patches of {p}");
            let flat = low.upsample_nearest2d(p * h, p * w)?;
            assert_eq!(gap(&x, &flat)? > 0.1, p > 1, "detail, where there are patches");
        }
    }
    Ok(())
}
