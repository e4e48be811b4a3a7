//! Scaled dot-product attention in candle's tensor operations.

use super::product;
use crate::nn::kernels::attention::Attention;
use crate::nn::tape::Settings;
use candle_core::{D, Result, Tensor};

// (B, N, C) as (B, heads, N, d).
fn heads(of: &Attention, xs: &Tensor) -> Result<Tensor> {
    let d = of.channels / of.heads;
    xs.reshape((of.batch, of.positions, of.heads, d))?.transpose(1, 2)?.contiguous()
}

fn weights(settings: Settings, of: &Attention, q: &Tensor, k: &Tensor) -> Result<Tensor> {
    let scale = ((of.channels / of.heads) as f64).powf(-0.5);
    let scores = (product(settings, q, &k.t()?)? * scale)?;
    let most = scores.max_keepdim(D::Minus1)?;
    let weights = scores.broadcast_sub(&most)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)
}

pub fn attention(
    settings: Settings,
    of: &Attention,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<Tensor> {
    let weights = weights(settings, of, &heads(of, q)?, &heads(of, k)?)?;
    product(settings, &weights, &heads(of, v)?)?.transpose(1, 2)?.contiguous()?.reshape(q.dims())
}

pub fn attention_back(
    settings: Settings,
    of: &Attention,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    dys: &Tensor,
) -> Result<[Tensor; 3]> {
    let dims = q.dims();
    let (q, k, v, dy) = (heads(of, q)?, heads(of, k)?, heads(of, v)?, heads(of, dys)?);
    let weights = weights(settings, of, &q, &k)?;
    let scale = ((of.channels / of.heads) as f64).powf(-0.5);
    let dv = product(settings, &weights.t()?, &dy)?;
    let dw = product(settings, &dy, &v.t()?)?;
    let dot = (&weights * &dw)?.sum_keepdim(D::Minus1)?;
    let ds = ((weights * dw.broadcast_sub(&dot)?)? * scale)?;
    let back = |xs: Tensor| xs.transpose(1, 2)?.contiguous()?.reshape(dims);
    let dq = product(settings, &ds, &k)?;
    let dk = product(settings, &ds.t()?, &q)?;
    Ok([back(dq)?, back(dk)?, back(dv)?])
}

/// What the output moves along, where queries, keys and values move along `moved`.
pub fn attention_moved(
    settings: Settings,
    of: &Attention,
    [q, k, v]: [&Tensor; 3],
    [dq, dk, dv]: [&Tensor; 3],
) -> Result<Tensor> {
    let dims = q.dims();
    let (q, k, v) = (heads(of, q)?, heads(of, k)?, heads(of, v)?);
    let (dq, dk, dv) = (heads(of, dq)?, heads(of, dk)?, heads(of, dv)?);
    let weights = weights(settings, of, &q, &k)?;
    let scale = ((of.channels / of.heads) as f64).powf(-0.5);
    let scores = (product(settings, &dq, &k.t()?)? + product(settings, &q, &dk.t()?)?)?;
    let scores = (scores * scale)?;
    let mean = (&weights * &scores)?.sum_keepdim(D::Minus1)?;
    let dw = (&weights * scores.broadcast_sub(&mean)?)?;
    let dy = (product(settings, &dw, &v)? + product(settings, &weights, &dv)?)?;
    dy.transpose(1, 2)?.contiguous()?.reshape(dims)
}
