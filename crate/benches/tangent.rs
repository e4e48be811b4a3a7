//! What a derivative costs: a network's answer with its Jacobian-vector product beside the answer
//! alone, in turn. `cargo lab bench tangent`.

use candle_core::{DType, Device, Tensor};
use consistency::Result;
use consistency::model::{Condition, MlpConfig, NcsnppConfig, NetworkConfig, UNetConfig};
use consistency::nn::{Params, vectors};
use consistency::rng::Key;
use std::time::Instant;

/// Timed pairs of calls.
const PAIRS: usize = 11;
/// A call that is shorter is repeated until it has taken this long.
const AT_LEAST: f64 = 0.05;

fn cases() -> [(&'static str, NetworkConfig, [usize; 4]); 4] {
    let unet = |widths: &[usize], layers| NetworkConfig::Unet(UNetConfig::small(widths, layers));
    [
        ("digits MLP", NetworkConfig::Mlp(MlpConfig::default()), [128, 1, 8, 8]),
        ("digits U-Net", unet(&[32, 64], 1), [128, 1, 8, 8]),
        ("32x32 U-Net", unet(&[64, 128, 128], 2), [32, 3, 32, 32]),
        ("NCSN++", NetworkConfig::Ncsnpp(NcsnppConfig::default()), [8, 3, 32, 32]),
    ]
}

/// Seconds of one call.
fn timed(work: &dyn Fn() -> Result<Tensor>) -> Result<f64> {
    let (start, mut calls) = (Instant::now(), 0.0);
    while calls == 0.0 || start.elapsed().as_secs_f64() < AT_LEAST {
        // Something must wait for the result.
        work()?.flatten_all()?.get(0)?.to_scalar::<f32>()?;
        calls += 1.0;
    }
    Ok(start.elapsed().as_secs_f64() / calls)
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() -> Result<()> {
    println!("f32, {}; medians of {PAIRS} pairs", vectors());
    println!("{:<16}{:>12}{:>16}{:>8}", "", "answer, ms", "with tangent", "ratio");
    for (name, config, shape) in cases() {
        let (key, batch) = (Key::new(11), shape[0] as u64);
        let mut params = Params::new(DType::F32, &Device::Cpu);
        params.init(&key, |scope| config.build(scope, &shape[1..]))?;
        // Sampling takes no gradients, and a tangent neither.
        let network = params.frozen(|scope| config.build(scope, &shape[1..]))?;
        let noise =
            |name: &str| key.stream(name).normal(0..batch, &shape[1..], DType::F32, &Device::Cpu);
        let (x, v) = (noise("x")?, noise("v")?);
        let c: Vec<f64> = key.normals(0..batch).iter().map(|z| 0.3 * z).collect();
        let (on, rate) = (Condition::from(&c), [0.5]);
        let moving = Condition { noise_rate: Some(&rate), ..on };
        let answer = || network.forward(&x, on);
        let moved = || Ok(network.push_forward(&x, Some(&v), moving)?.1);
        let (mut alone, mut both, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..=PAIRS {
            let (one, two) = (timed(&answer)?, timed(&moved)?);
            if pair > 0 {
                alone.push(one);
                both.push(two);
                ratios.push(two / one);
            }
        }
        let (one, two, ratio) = (median(alone), median(both), median(ratios));
        println!("{name:<16}{:>12.2}{:>16.2}{ratio:>8.2}", 1e3 * one, 1e3 * two);
    }
    Ok(())
}
