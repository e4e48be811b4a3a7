//! Interpolation through the noise.

use super::{CPU, bits, exact, gap, images, message, values};
use candle_core::{DType, Tensor};
use consistency::Result;
use consistency::edit::{interpolate, slerp};
use consistency::rng::Key;
use consistency::sample::one_step;

#[test]
fn slerp_is_a_sample_at_a_time_and_ends_at_its_ends() -> Result<()> {
    for dtype in [DType::F32, DType::F64] {
        let noise = |seed| Key::new(seed).normal(0..6, &[1, 4, 4], dtype, &CPU);
        let (a, b) = (noise(1)?, noise(2)?);
        assert_eq!(bits(&slerp(&a, &b, 0.0)?)?, bits(&a)?);
        assert_eq!(bits(&slerp(&a, &b, 1.0)?)?, bits(&b)?);
        let all = slerp(&a, &b, 0.3)?;
        for i in 0..6 {
            let one = slerp(&a.narrow(0, i, 1)?, &b.narrow(0, i, 1)?, 0.3)?;
            assert_eq!(bits(&one)?, bits(&all.narrow(0, i, 1)?)?, "sample {i}");
        }
    }
    // Two samples with angles of their own: a right one, and 60 degrees.
    let a = Tensor::new(&[[2.0, 0.0], [1.0, 0.0]], &CPU)?;
    let b = Tensor::new(&[[0.0, 2.0], [0.5, 0.75f64.sqrt()]], &CPU)?;
    let x = values(&slerp(&a, &b, 0.5)?)?;
    let want = [2f64.sqrt(), 2f64.sqrt(), (0.5f64.acos() / 2.0).cos(), 0.5];
    assert!(x.iter().zip(want).all(|(x, want)| (x - want).abs() < 1e-14), "{x:?}");
    // The same direction, the opposite one, none.
    assert!(gap(&slerp(&a, &(&a * 3.0)?, 0.5)?, &(&a * 2.0)?)? < 1e-14);
    assert!(message(slerp(&a, &a.neg()?, 0.5)).contains("sample 0: the two point opposite ways"));
    assert!(message(slerp(&a, &a.zeros_like()?, 0.5)).contains("no direction"));
    assert!(message(slerp(&a, &b, 1.5)).contains("needs 0 to 1"));
    assert!(message(slerp(&a, &b.narrow(0, 0, 1)?, 0.5)).contains("needs one shape"));
    Ok(())
}

#[test]
fn an_interpolation_is_a_row_for_each_pair() -> Result<()> {
    let data = images(5, &[1, 4, 4], DType::F64)?;
    let f = exact(&data)?;
    let noise = |seed| Key::new(seed).normal(0..3, &[1, 4, 4], DType::F64, &CPU);
    let (a, b) = (noise(1)?, noise(2)?);
    let x = interpolate(&f, &a, &b, &[0.0, 0.4, 1.0], 80.0)?;
    assert_eq!(x.dims(), [9, 1, 4, 4]);
    let column = |k: u32| x.index_select(&Tensor::new(&[k, k + 3, k + 6], &CPU)?, 0);
    for (k, z) in [(0, a.clone()), (1, slerp(&a, &b, 0.4)?), (2, b.clone())] {
        assert_eq!(bits(&column(k)?)?, bits(&one_step(&f, &z, 80.0)?)?, "column {k}");
    }
    assert!(message(interpolate(&f, &a, &b, &[], 80.0)).contains("no share"));
    Ok(())
}
