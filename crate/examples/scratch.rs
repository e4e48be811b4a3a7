use consistency::{*, rng::Key, nn::*, model::*, loss::*, process::*, data::*};
use candle_core::*;
use std::time::Instant;
fn main() -> consistency::Result<()> {
 let n: usize=std::env::var("T").unwrap_or("2".into()).parse().unwrap(); rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(||run())
}
fn run() -> consistency::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let width: usize = args[1].parse().unwrap(); let blocks: usize = args[2].parse().unwrap(); let batch: usize = args[3].parse().unwrap();
    let key = Key::new(0);
    let d = digits(DType::F32, &Device::Cpu)?;
    let mut p = Params::new(DType::F32, &Device::Cpu);
    let cfg = NetworkConfig::Mlp(MlpConfig{width, blocks, time_features:64});
    let net = p.init(&key, |s| cfg.build(s, &[1,8,8]))?;
    println!("{p:?}");
    let den = EdmDenoiser::new(net, 0.5);
    let sm = ScoreMatching::default();
    let mut opt = Optimizer::new(OptimizerConfig{learning_rate:1e-3, ..Default::default()}, &p)?;
    let ema = Ema::new(&p)?;
    let mut tf=0.; let mut tb=0.; let mut to=0.; let mut te=0.; let mut td=0.;
    let n=300u64;
    for k in 0..n {
        let t0=Instant::now();
        let x0 = select(&d.train, &batch_rows(1347, batch, k, &key.stream("order")))?;
        let kk = key.stream("train").step(k);
        let z = kk.normal_like(&x0, 0)?;
        let s = sm.noise_levels(batch, &kk.stream("sigma"));
        let t1=Instant::now();
        let loss = score_matching_loss(&den, &x0, &z, &s, &sm)?;
        let t2=Instant::now();
        let g = loss.backward()?;
        let t3=Instant::now();
        opt.step(&p, &g, 1.0)?;
        let t4=Instant::now();
        ema.update(&p, 0.999)?;
        let t5=Instant::now();
        td+=(t1-t0).as_secs_f64(); tf+=(t2-t1).as_secs_f64(); tb+=(t3-t2).as_secs_f64(); to+=(t4-t3).as_secs_f64(); te+=(t5-t4).as_secs_f64();
        if k%100==0 { println!("{k} {:.3}", loss.to_scalar::<f32>()?); }
    }
    let n=n as f64/1e3;
    println!("ms: data {:.2} fwd {:.2} bwd {:.2} opt {:.2} ema {:.2}", td/n, tf/n, tb/n, to/n, te/n);
    Ok(())
}
