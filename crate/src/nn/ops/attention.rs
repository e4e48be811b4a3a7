//! Scaled dot-product attention.

use super::{computed, tensor, tensors, with_real, with_values};
use crate::nn::kernels::attention::Attention;
use crate::nn::tape::{Slots, Tape, Value};
use candle_core::{Result, Tensor, bail};

impl Tape {
    /// softmax(q k' / sqrt(C / heads)) v for each of `heads` parts of the channels: `q`, `k`
    /// and `v` are (B, .., C), and so is the answer.
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
        let ys = if on_kernels {
            computed!(dims.clone(), [q.tensor(), k.tensor(), v.tensor()], |[q, k, v]| of
                .forward(q, k, v))?
        } else {
            tensors::attention(settings, &of, q.tensor(), k.tensor(), v.tensor())?
        };
        let saved = [q.clone(), k.clone(), v.clone()];
        let backward = move |dys: Tensor, slots: &mut Slots| {
            let [q, k, v] = &saved;
            let grads = if on_kernels {
                with_real!(dys, T => {
                    let operands = [q.tensor(), k.tensor(), v.tensor(), &dys];
                    let [dq, dk, dv] = with_values(operands, |[q, k, v, dy]: [&[T]; 4]| {
                        Ok(of.backward(q, k, v, dy))
                    })?;
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
        Ok(self.push(ys, &[q, k, v], &[], backward))
    }
}
