//! The cases: their networks and layers, and our side's call of each.

use candle_core::{DType, Device, Tensor, Var};
use consistency::model::{Condition, MlpConfig, NcsnppConfig, Network, NetworkConfig, UNetConfig};
use consistency::nn::{
    Act, Attention, Conv2d, Ema, GroupNorm, Link, Optimizer, OptimizerConfig, Params, Settings,
    Tape, Value, on_tape, pull_back,
};
use consistency::rng::Key;
use consistency::{Error, Result, bail};
use serde_json::{Value as Json, json};
use std::collections::HashMap;
use std::path::Path;

#[derive(Clone)]
pub enum What {
    Network(Box<NetworkConfig>),
    /// A layer over (H, W, C): a convolution, a group norm with SiLU, an attention.
    Convolution,
    GroupNorm,
    Attention,
}

#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub what: What,
    /// (B, C, H, W)
    pub shape: [usize; 4],
    /// Whether our side computes activations again in the backward pass.
    pub checkpoint: bool,
}

pub fn cases(cuda: bool) -> Vec<Case> {
    let layer = |name, what, shape| Case { name, what, shape, checkpoint: false };
    let network = |name, config, shape| layer(name, What::Network(Box::new(config)), shape);
    let medium = || NetworkConfig::Unet(UNetConfig::small(&[64, 128, 128], 2));
    let ncsnpp = NetworkConfig::Ncsnpp(NcsnppConfig::default());
    let mlp = NetworkConfig::Mlp(MlpConfig::default());
    vec![
        network("digits MLP", mlp, [128, 1, 8, 8]),
        network(
            "digits U-Net",
            NetworkConfig::Unet(UNetConfig::small(&[32, 64], 1)),
            [128, 1, 8, 8],
        ),
        network("32x32 U-Net", medium(), [32, 3, 32, 32]),
        Case {
            checkpoint: true,
            ..network("32x32 U-Net, activation checkpointing", medium(), [32, 3, 32, 32])
        },
        network("NCSN++", ncsnpp, [if cuda { 512 } else { 8 }, 3, 32, 32]),
        layer("attention 128x16x16", What::Attention, [32, 128, 16, 16]),
        layer("3x3 convolution 64x32x32", What::Convolution, [32, 64, 32, 32]),
        layer("3x3 convolution 128x16x16", What::Convolution, [64, 128, 16, 16]),
        layer("group norm + SiLU 64x32x32", What::GroupNorm, [32, 64, 32, 32]),
        layer("group norm + SiLU 128x16x16", What::GroupNorm, [64, 128, 16, 16]),
    ]
}

pub const GROUPS: usize = 32;
pub const HEADS: usize = 2;

impl Case {
    pub fn json(&self, training: bool) -> Result<Json> {
        let mode = if training { "train" } else { "sample" };
        Ok(match &self.what {
            What::Network(config) => {
                let config = serde_json::to_value(config).map_err(|e| Error::new(e.to_string()))?;
                json!({ "mode": mode, "network": config })
            }
            What::Convolution => json!({ "mode": mode, "layer": "convolution" }),
            What::GroupNorm => json!({ "mode": mode, "layer": "group-norm", "groups": GROUPS }),
            What::Attention => {
                json!({ "mode": mode, "layer": "attention", "groups": GROUPS, "heads": HEADS })
            }
        })
    }
}

pub type Layer = Box<dyn Fn(&mut Tape, &Value) -> Result<Value>>;

pub enum Model {
    Network(Box<dyn Network>),
    Layer(Layer, Option<Link>),
}

/// Our side of a case.
pub struct Work {
    case: Case,
    training: bool,
    pub params: Params,
    model: Model,
    x: Var,
    y: Tensor,
    c: Vec<f64>,
    optimizer: Optimizer,
    average: Ema,
}

impl Work {
    pub fn new(case: &Case, training: bool, device: &Device) -> Result<Self> {
        let key = Key::new(11);
        let [batch, channels, height, width] = case.shape;
        let settings = Settings { checkpoint: case.checkpoint, ..Settings::default() };
        let mut params = Params::new(DType::F32, device).with(settings);
        let model = params.init(&key, |scope| {
            let link = if training { scope.link() } else { None };
            Ok(match &case.what {
                What::Network(config) => {
                    Model::Network(config.build(scope, &[channels, height, width])?)
                }
                What::Convolution => {
                    let layer = Conv2d::new(scope, channels, channels, 3, 1.0)?;
                    Model::Layer(Box::new(move |t, x| layer.forward(t, x)), link)
                }
                What::GroupNorm => {
                    let layer = GroupNorm::new(scope, GROUPS, channels, 1e-5)?;
                    Model::Layer(Box::new(move |t, x| layer.forward(t, x, Act::Silu)), link)
                }
                What::Attention => {
                    let layer = Attention::new(scope, channels, HEADS, (GROUPS, 1e-5), 1.0)?;
                    Model::Layer(Box::new(move |t, x| layer.forward(t, x)), link)
                }
            })
        })?;
        // Zeros at the start would make every output zero.
        for (name, var) in params.trained() {
            let dims = var.dims();
            let fan_in: usize = dims.iter().skip(1).product();
            let std = if dims.len() > 1 { (1.0 / fan_in as f64).sqrt() } else { 0.1 };
            let noise = key.stream(name).normal(0..1, &[var.elem_count()], DType::F32, device)?;
            let value = (noise.reshape(dims)? * std)?;
            let one = dims.len() == 1 && name.ends_with("weight");
            var.set(&if one { (value + 1.0)? } else { value })?;
        }
        let mut shape = case.shape[1..].to_vec();
        let is_layer = !matches!(case.what, What::Network(_));
        if is_layer {
            shape = vec![height, width, channels];
        }
        let noise =
            |name: &str| key.stream(name).normal(0..batch as u64, &shape, DType::F32, device);
        let model = match model {
            // Sampling takes no gradients.
            Model::Network(_) if !training => {
                Model::Network(params.frozen(|scope| match &case.what {
                    What::Network(config) => config.build(scope, &[channels, height, width]),
                    _ => bail!("a layer is no network"),
                })?)
            }
            model => model,
        };
        let config = OptimizerConfig { learning_rate: 1e-4, ..OptimizerConfig::default() };
        let none = Params::new(DType::F32, device);
        let trained = if training && !is_layer { &params } else { &none };
        Ok(Self {
            optimizer: Optimizer::new(config, trained)?,
            average: Ema::new(trained)?,
            c: key.normals(0..batch as u64).iter().map(|z| 0.3 * z).collect(),
            x: Var::from_tensor(&noise("x")?)?,
            y: noise("y")?,
            case: case.clone(),
            training,
            params,
            model,
        })
    }

    pub fn output(&self) -> Result<Tensor> {
        match &self.model {
            Model::Network(network) => {
                network.forward(&self.x.as_detached_tensor(), Condition::from(&self.c))
            }
            Model::Layer(layer, link) => {
                let x = if self.training {
                    self.x.as_tensor().clone()
                } else {
                    self.x.as_detached_tensor()
                };
                on_tape(&x, link.as_ref(), Settings::default(), |t, x| layer(t, x))
            }
        }
    }

    pub fn run(&mut self) -> Result<()> {
        if let (Model::Layer(layer, link), true) = (&self.model, self.training) {
            let settings = Settings::default();
            pull_back(&self.x, &self.y, link.as_ref(), settings, |t, x| layer(t, x))?;
            self.params.device().synchronize()?;
            return Ok(());
        }
        let answer = self.output()?;
        if self.training {
            let batch = self.case.shape[0] as f64;
            let loss = ((answer - &self.y)?.sqr()?.sum_all()? / batch)?;
            let gradients = self.params.gradients(&loss)?;
            self.optimizer.step(&self.params, &gradients, 1.0)?;
            self.average.update(&self.params, 0.999)?;
        } else {
            // Something must wait for the result.
            answer.flatten_all()?.get(0)?.to_scalar::<f32>()?;
        }
        self.params.device().synchronize()?;
        Ok(())
    }

    /// What the other side is given.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        for (name, tensor) in self.params.tensors() {
            tensors.insert(format!("params/{name}"), tensor.to_device(&Device::Cpu)?);
        }
        let first = |x: &Tensor| -> Result<Tensor> {
            let x = x.to_device(&Device::Cpu)?;
            Ok(match self.model {
                Model::Network(_) => x,
                Model::Layer(..) => x.permute((0, 3, 1, 2))?.contiguous()?,
            })
        };
        tensors.insert("input/x".into(), first(&self.x.as_detached_tensor())?);
        tensors.insert("input/y".into(), first(&self.y)?);
        let c: Vec<f32> = self.c.iter().map(|c| *c as f32).collect();
        tensors.insert("input/c".into(), Tensor::new(c, &Device::Cpu)?);
        Ok(candle_core::safetensors::save(&tensors, path)?)
    }

    /// Our output in the other side's order.
    pub fn answer(&self) -> Result<Vec<f32>> {
        let ys = self.output()?.detach().to_device(&Device::Cpu)?;
        let ys = match self.model {
            Model::Network(_) => ys,
            Model::Layer(..) => ys.permute((0, 3, 1, 2))?.contiguous()?,
        };
        Ok(ys.flatten_all()?.to_vec1()?)
    }
}
