use consistency::plot::Figure; use consistency::data::*; use candle_core::*; use consistency::rng::Key;
fn main() -> consistency::Result<()> {
  let d=digits(DType::F32,&Device::Cpu)?;
  Figure::images("Digits", &d.train.narrow(0,0,40)?, 10)?.save("/tmp/f1.png")?;
  Figure::image_rows("Side by side", [("teacher, Heun, 36 NFE", d.train.narrow(0,0,10)?),("CD, 1 NFE", d.train.narrow(0,10,10)?)])?.save("/tmp/f2.png")?;
  let k:Vec<f64>=(0..200).map(|i| 10.*i as f64).collect(); let l:Vec<f64>=k.iter().map(|k| 50.*(-k/500.).exp()+1.+0.2*(k/37.).sin()).collect();
  let fig=Figure::new("Training losses").x("iteration k").y("loss").log_y().line("CD, squared \u{2113}\u{2082}", &k,&l).line("CT", &k, l.iter().map(|v| v*0.3).collect::<Vec<_>>());
  fig.save("/tmp/f3.png")?; std::fs::write("/tmp/f3.json", fig.json()?.to_string())?; println!("{}", fig.text());
  let pts=spirals(1000,0.03,&Key::new(0),DType::F64,&Device::Cpu)?.to_vec2::<f64>()?; let (x,y):(Vec<f64>,Vec<f64>)=pts.iter().map(|p|(p[0],p[1])).unzip();
  let pm=moons(1000,0.03,&Key::new(0),DType::F64,&Device::Cpu)?.to_vec2::<f64>()?; let (xm,ym):(Vec<f64>,Vec<f64>)=pm.iter().map(|p|(p[0],p[1])).unzip();
  let a=Figure::new("spirals").x("x1").y("x2").equal().points("data",&x,&y); let b=Figure::new("moons").x("x1").y("x2").equal().points("data",&xm,&ym);
  let h=Figure::new("heat").x("u").y("v").heatmap("z",(0.,1.),(0.,1.),(0..20).map(|i|(0..20).map(|j| (i*j) as f64).collect()).collect());
  let t=Figure::new("trajectories").x("noise level t").log_x().y("x").lines("PF ODE", (0..20).map(|i| { let t:Vec<f64>=(0..40).map(|j| 0.002*1.3f64.powi(j)).collect(); let y=t.iter().map(|t| (i as f64-10.)*0.1*(1.+t)).collect(); (t,y)}));
  let fig=Figure::panels("Four panels", 2, [a,b,h,t]); fig.save("/tmp/f4.png")?; std::fs::write("/tmp/f4.json", fig.json()?.to_string())?;
  Ok(()) }
