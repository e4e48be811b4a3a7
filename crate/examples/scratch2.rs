use consistency::{rng::Key, nn::*, model::*, loss::*, process::*, data::*, evaluate::*, seam::*, sample};
use candle_core::*;
use std::time::Instant;
fn arg(n:&str,d:f64)->f64{ std::env::var(n).ok().map(|v|v.parse().unwrap()).unwrap_or(d) }
struct Eval { held: Tensor, near: Neighbours, agree: f64 }
impl Eval { fn show(&self, name:&str, f: impl Fn(&Tensor,&Key)->consistency::Result<Tensor>) -> consistency::Result<()> {
    let mut fd=0.; let mut sh=0.; let n=4;
    for i in 0..n { let k=Key::new(99).step(i); let z=k.normal(0..450,&[1,8,8],DType::F32,&Device::Cpu)?; let x=f(&z,&k.stream("s"))?.clamp(-1f32,1f32)?; fd+=frechet_distance(&x,&self.held)?; sh+=self.near.share_assigned(&x,self.agree)?; }
    println!("{name:24} FD {:.3} share {:.3}", fd/n as f64, sh/n as f64); Ok(()) } }
fn main() -> consistency::Result<()> { rayon::ThreadPoolBuilder::new().num_threads(arg("T",1.) as usize).build().unwrap().install(||run()) }
fn run() -> consistency::Result<()> {
    let key = Key::new(arg("SEED",0.) as u64);
    let dev=Device::Cpu;
    let d = digits(DType::F32, &dev)?;
    let ev = { let near=Neighbours::new(&d.train,&d.train_labels,10)?; let agree=near.usual_agreement(&d.held_out,0.9)?; Eval{held:d.held_out.clone(),near,agree} };
    println!("agree {} held share {}", ev.agree, ev.near.share_assigned(&d.held_out, ev.agree)?);
    let mut floor=0.; for i in 0..4 { let rows=batch_rows(1347,450,i,&Key::new(5)); floor+=frechet_distance(&select(&d.train,&rows)?,&d.held_out)?; } println!("floor {:.3}", floor/4.);
    let sd = arg("SD",0.5); let tmax=arg("TMAX",80.);
    let range = NoiseRange{t_max:tmax,..Default::default()};
    let batch=arg("B",128.) as usize;
    let mode=std::env::var("MODE").unwrap_or("teacher,cd,ct".into());
    let net_cfg = if arg("UNET",0.)>0. { NetworkConfig::Unet(UNetConfig{channels:vec![arg("W",32.) as usize, 2*arg("W",32.) as usize],..Default::default()}) } else { NetworkConfig::Mlp(MlpConfig{width:arg("W",256.) as usize, blocks:arg("L",4.) as usize, time_features:64}) };
    let mut tp = Params::new(DType::F32, &dev);
    let net = tp.init(&key.stream("teacher"), |s| net_cfg.build(s, &[1,8,8]))?;
    println!("{tp:?}");
    let path = std::path::PathBuf::from(std::env::var("TEACHER").unwrap_or("/tmp/teacher.safetensors".into()));
    let tema = Ema::new(&tp)?;
    let order = |k:u64,s:&str| select(&d.train, &batch_rows(1347, batch, k, &key.stream(s)));
    if mode.contains("teacher") {
        let den = EdmDenoiser::new(net, sd);
        let sm = ScoreMatching{sigma_data:sd,p_mean:arg("PM",-1.2),p_std:arg("PS",1.2)};
        let its=arg("KT",4000.) as u64; let t0=Instant::now();
        let mut opt = Optimizer::new(OptimizerConfig{learning_rate:arg("LRT",1e-3), ..Default::default()}, &tp)?;
        let mut acc=0.;
        for k in 0..its {
            let x0=order(k,"order")?; let kk=key.stream("t").step(k); let z=kk.normal_like(&x0,0)?; let s=sm.noise_levels(batch,&kk.stream("sigma"));
            let loss=score_matching_loss(&den,&x0,&z,&s,&sm)?; let g=loss.backward()?; 
            let decay = if arg("DECAY",1.)>0. { ((its-k) as f64/(its as f64*0.3)).min(1.0) } else {1.0};
            opt.step(&tp,&g,decay)?; tema.update(&tp, arg("EMA",0.999).min((1.+k as f64)/(10.+k as f64)))?;
            acc+=loss.to_scalar::<f32>()?; if (k+1)%1000==0 { println!("  t {} {:.2} {:.1}s", k+1, acc/1000., t0.elapsed().as_secs_f64()); acc=0.; }
        }
        candle_core::safetensors::save(&tema.params().tensors().into_iter().collect(), &path)?;
    } else { tema.params().assign_tensors(&candle_core::safetensors::load(&path,&dev)?.into_iter().collect())?; }
    let teacher = EdmDenoiser::new(tema.params().frozen(|s| net_cfg.build(s,&[1,8,8]))?, sd);
    for n in [10,18,40] { let g=range.karras(n)?; ev.show(&format!("heun N={n}"), |z,_| sample::pf_ode(&teacher,Solver::Heun,z,&g))?; }
    for m in ["cd","ct"] { if !mode.contains(m) {continue;}
        let cd = m=="cd";
        let mut p = Params::new(DType::F32,&dev);
        let student=p.init(&key.stream(m),|s|net_cfg.build(s,&[1,8,8]))?;
        if cd { p.assign(tema.params())?; }
        let ema=Ema::new(&p)?; let target=Ema::new(&p)?;
        let eps=range.eps;
        let f=ConsistencyModel::new(student,Parameterization::Skip,sd,eps);
        let fm=ConsistencyModel::new(target.params().frozen(|s|net_cfg.build(s,&[1,8,8]))?,Parameterization::Skip,sd,eps);
        let fe=ConsistencyModel::new(ema.params().frozen(|s|net_cfg.build(s,&[1,8,8]))?,Parameterization::Skip,sd,eps);
        let its=arg(if cd {"KCD"} else {"KCT"},4000.) as u64;
        let sch=Schedule{s0:arg("S0",2.) as u32,s1:arg("S1",150.) as u32,mu0:arg("MU0",0.9),convention:Convention::Paper};
        let npts=arg("NCD",18.) as usize; let mu=arg("MU",0.0);
        let dist = if arg("HUBER",0.)>0. { Distance::new(Metric::PseudoHuber{c:arg("HUBER",0.03)}) } else if arg("L1",0.)>0. {Distance::new(Metric::L1)} else if arg("L2",0.)>0. {Distance::new(Metric::L2)} else {Distance::default()};
        let w=Weighting{weight: if arg("INV",0.)>0. {Weight::InverseGap} else {Weight::Uniform},..Default::default()};
        let mut opt=Optimizer::new(OptimizerConfig{learning_rate:arg(if cd {"LRCD"} else {"LRCT"},4e-4),..Default::default()},&p)?;
        let t0=Instant::now(); let mut acc=0.;
        for k in 0..its {
            let grid=range.karras(if cd {npts} else {sch.points(k,its)})?;
            let x0=order(k,m)?; let kk=key.stream(m).step(k); let z=kk.normal_like(&x0,0)?;
            let n=kk.stream("n").integers(0..batch as u64,1..grid.points())?;
            let pair = if cd { distillation_pair(&x0,&z,&n,&grid,&teacher,Solver::Heun)? } else { training_pair(&x0,&z,&n,&grid)? };
            let loss=consistency_loss(&f,&fm,&pair,&dist,&w)?; let g=loss.backward()?;
            let decay = if arg("DECAY",1.)>0. { ((its-k) as f64/(its as f64*0.3)).min(1.0) } else {1.0};
            opt.step(&p,&g,decay)?;
            target.update(&p, if cd {mu} else if arg("MU0",0.9)==0. {0.} else {sch.mu(k,its)})?;
            ema.update(&p, arg("EMA",0.999).min((1.+k as f64)/(10.+k as f64)))?;
            acc+=loss.to_scalar::<f32>()?; if (k+1)%1000==0 { println!("  {m} {} N={} {:.4} {:.1}s", k+1, grid.points(), acc/1000., t0.elapsed().as_secs_f64()); acc=0.; }
        }
        let _ = candle_core::safetensors::save(&ema.params().tensors().into_iter().collect(), format!("/tmp/{m}.safetensors"));
        ev.show(&format!("{m} 1 step"), |z,_| sample::one_step(&fe,z,range.t_max))?;
        for tau in [0.3,0.6,0.8,1.0,1.5,2.5] { ev.show(&format!("{m} 2 step {tau}"), |z,k| sample::multistep(&fe,z,range.t_max,&[tau],eps,k))?; }
    }
    Ok(())
}
