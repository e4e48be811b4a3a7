//! Scaled dot-product attention.

use super::{tensor, tensors, with_real, with_values};
use crate::nn::kernels::attention::Attention;
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{Result, Tensor, bail};

impl Tape {
    /// softmax(q k' / sqrt(C / heads)) v for each of `heads` parts of the channels: `q`, `k` and
    /// `v` are (B, .., C), and so is the output.
    pub(crate) fn attention(
        &mut self,
        q: &Value,
        k: &Value,
        v: &Value,
        heads: usize,
    ) -> Result<Value> {
        let dims = q.dims().to_vec();
        if dims.len() < 3 || k.dims() != dims || v.dims() != dims {
            bail!("attention over {dims:?}, {:?} and {:?}", k.dims(), v.dims());
        }
        let channels = dims[dims.len() - 1];
        if heads == 0 || !channels.is_multiple_of(heads) {
            bail!("{channels} channels do not divide into {heads} heads");
        }
        let positions = dims[1..dims.len() - 1].iter().product();
        let of = Attention { batch: dims[0], positions, channels, heads };
        let (on_kernels, settings) = (self.on_kernels(q.tensor()), self.settings());
        let (ys, sums) = if on_kernels {
            with_real!(q.tensor(), T => {
                let operands = [q.tensor(), k.tensor(), v.tensor()];
                let (ys, sums) = with_values(operands, |[q, k, v]: [&[T]; 3]| {
                    Ok(of.forward(q, k, v))
                })?;
                let by_query = (of.batch, heads, positions);
                (tensor(ys, dims.clone())?, Some(tensor(sums, by_query)?))
            })
        } else {
            (tensors::attention(settings, &of, q.tensor(), k.tensor(), v.tensor())?, None)
        };
        let tangent = if q.tangent().or(k.tangent()).or(v.tangent()).is_some() {
            let (dq, dk, dv) =
                (q.tangent_or_zeros()?, k.tangent_or_zeros()?, v.tangent_or_zeros()?);
            let (q, k, v) = (q.tensor(), k.tensor(), v.tensor());
            Some(match &sums {
                Some(sums) => with_real!(q, T => {
                    let operands = [q, k, v, &ys, sums, &dq, &dk, &dv];
                    let compute = |[q, k, v, ys, sums, dq, dk, dv]: [&[T]; 8]| {
                        Ok(of.tangent([q, k, v], (ys, sums), [dq, dk, dv]))
                    };
                    tensor(with_values(operands, compute)?, dims.clone())?
                }),
                None => tensors::attention_moved(settings, &of, [q, k, v], [&dq, &dk, &dv])?,
            })
        } else {
            None
        };
        let (saved, output) = ([q.clone(), k.clone(), v.clone()], ys.clone());
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let [q, k, v] = &saved;
            let grads = if let Some(sums) = &sums {
                with_real!(dys, T => {
                    let operands = [q.tensor(), k.tensor(), v.tensor(), &output, sums, &dys];
                    let compute = |[q, k, v, ys, sums, dys]: [&[T]; 6]| {
                        Ok(of.backward([q, k, v], (ys, sums), dys))
                    };
                    let [dq, dk, dv] = with_values(operands, compute)?;
                    [tensor(dq, dims.clone())?, tensor(dk, dims.clone())?, tensor(dv, dims.clone())?]
                })
            } else {
                tensors::attention_back(settings, &of, q.tensor(), k.tensor(), v.tensor(), &dys)?
            };
            for (value, gradient) in saved.iter().zip(grads) {
                slots.give(value, gradient)?;
            }
            Ok(())
        };
        Ok(self.push((ys, tangent), &[q, k, v], &[], backward))
    }
}
