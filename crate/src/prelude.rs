//! What every cell of a notebook sees: `use consistency::prelude::*;`.

pub use crate::data::{
    Dataset, Digits, Entry, Images, batch_rows, catalog, digits, moons, rings_mixture, select,
    spirals,
};
pub use crate::edit::{self, Edit, Operator, Steps};
pub use crate::evaluate::{
    Assignment, Classifier, DigitsComparison, Features, Inception, InceptionFeatures, Memorization,
    Neighbours, PrecisionRecall, Score, Spread, Statistics, frechet_distance, inception_score,
    kernel_distance, kernel_distance_of_subsets, precision_recall,
};
pub use crate::experiment::{
    Card, DataConfig, Experiment, Monitor, Progress, RunFolder, Trained, Training, on_threads,
    train,
};
pub use crate::hub::Hub;
pub use crate::interrupt::{check_interrupt, stoppable};
pub use crate::loss::{
    Compare, Distance, Lpips, LpipsConfig, Metric, Pair, Pooling, Reduction, Weight, Weighting,
    consistency_loss, distillation_pair, score_matching_loss, training_pair,
};
pub use crate::method::{
    ClassifierConfig, ConsistencyDistillation, ConsistencyTraining, Method, MethodConfig,
    ScoreMatching,
};
pub use crate::model::{
    ConsistencyModel, ConvNetConfig, EdmDenoiser, Learner, MlpConfig, NcsnppConfig, Network,
    NetworkConfig, Pretrained, UNetConfig,
};
pub use crate::nn::{Ema, Optimizer, OptimizerConfig, OptimizerKind, Params};
pub use crate::notebook::{
    Live, Run, Show, budget, check, column, input, live, mean_square, paths, reproduced,
    runs_folder, values,
};
pub use crate::plot::Figure;
pub use crate::process::{
    Coefficients, Convention, Decay, Density, Empirical, ExactFlow, FlowMap, GaussianMixture,
    Growth, LinearSde, NoiseRange, Parameterization, Scaling, Schedule, Solver, Spacing, TimeGrid,
    VpSchedule, forward_sde, perturb, pf_ode_slope, reverse_sde, trajectory,
};
pub use crate::record::{Budget, Provenance, Table};
pub use crate::reproduce::{self, Reproduction};
pub use crate::rng::Key;
pub use crate::sample::{self, Churn, Sampler};
pub use crate::seam::{
    ConsistencyFunction, Counted, Denoiser, EndingAt, Generator, MapTangent, Tangent, TwoTimeMap,
    per_sample,
};
pub use crate::theory::{self, ByParameter, Dual, Limit, Number, Slope, Source, TanhModel};
pub use candle_core::{D, DType, Device, IndexOp, Tensor, Var};
pub use polars::df;
pub use polars::prelude::{ChunkAgg, Column, DataFrame, NamedFrom, Series};
