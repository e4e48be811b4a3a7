//! A nearest-neighbour classifier of real images, and how firmly it assigns others.

use crate::{Result, ensure};
use candle_core::{D, DType, Tensor};

/// The `k` nearest images of a labelled set, by Euclidean distance.
///
/// ```
/// use consistency::prelude::*;
/// let data = Tensor::new(&[[0.0f64], [0.1], [5.0], [5.2]], &Device::Cpu)?; // (4, 1)
/// let near = Neighbours::new(&data, &[0, 0, 1, 1], 3)?;
/// let x = Tensor::new(&[[4.0f64]], &Device::Cpu)?;
/// assert_eq!(near.assign(&x)?, [Assignment { label: 1, agreement: 2.0 / 3.0 }]);
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Neighbours {
    data: Tensor,    // (N, D), f64
    squares: Tensor, // (1, N)
    labels: Vec<u8>,
    k: usize,
}

/// The classifier's answer for one image.
///
/// ```
/// use consistency::prelude::*;
/// let data = Tensor::new(&[[0.0f64], [1.0]], &Device::Cpu)?; // (2, 1)
/// // Two neighbours, each with its own label: a tie.
/// let assigned = Neighbours::new(&data, &[7, 3], 2)?.assign(&data)?;
/// assert_eq!(assigned[0], Assignment { label: 3, agreement: 0.5 });
/// # Ok::<(), consistency::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Assignment {
    /// The label that most of the neighbours have (the smallest label in a tie).
    pub label: u8,
    /// The share of the k neighbours that have it.
    pub agreement: f64,
}

impl Neighbours {
    /// The classifier of `data` (N, ..) with its `labels`, by `k` neighbours.
    ///
    /// # Errors
    /// A number of labels that is not N, or k beyond N.
    pub fn new(data: &Tensor, labels: &[u8], k: usize) -> Result<Self> {
        let data = data.flatten_from(1)?.to_dtype(DType::F64)?.contiguous()?;
        let rows = data.dims()[0];
        ensure!(labels.len() == rows, "{} labels for {rows} images", labels.len());
        ensure!(k >= 1 && k <= rows, "{k} neighbours among {rows} images");
        let squares = data.sqr()?.sum(D::Minus1)?.unsqueeze(0)?;
        Ok(Self { data, squares, labels: labels.to_vec(), k })
    }

    /// The assignment of each image of `x`, (B, ..).
    pub fn assign(&self, x: &Tensor) -> Result<Vec<Assignment>> {
        let x = x.flatten_from(1)?.to_dtype(DType::F64)?;
        // |x - y|^2 less |x|^2, which is the same for all y
        let distances =
            (x.matmul(&self.data.t()?)? * -2.0)?.broadcast_add(&self.squares)?.to_vec2::<f64>()?;
        Ok(distances.iter().map(|row| self.vote(row)).collect())
    }

    fn vote(&self, distances: &[f64]) -> Assignment {
        let mut order: Vec<usize> = (0..distances.len()).collect();
        if self.k < order.len() {
            order.select_nth_unstable_by(self.k - 1, |a, b| {
                distances[*a].total_cmp(&distances[*b]).then(a.cmp(b))
            });
        }
        let mut votes = [0usize; 256];
        for i in &order[..self.k] {
            votes[usize::from(self.labels[*i])] += 1;
        }
        let mut label = 0;
        for candidate in 1..=255u8 {
            if votes[usize::from(candidate)] > votes[usize::from(label)] {
                label = candidate;
            }
        }
        Assignment { label, agreement: votes[usize::from(label)] as f64 / self.k as f64 }
    }

    /// The agreement that a share of at least `share` of the images `real` reaches.
    ///
    /// # Errors
    /// No images.
    pub fn usual_agreement(&self, real: &Tensor, share: f64) -> Result<f64> {
        let mut agreements: Vec<f64> = self.assign(real)?.iter().map(|a| a.agreement).collect();
        ensure!(!agreements.is_empty(), "the usual agreement of no images");
        agreements.sort_by(|a, b| b.total_cmp(a));
        let needed = (share * agreements.len() as f64).ceil() as usize;
        Ok(agreements[needed.clamp(1, agreements.len()) - 1])
    }

    /// The share of the images `x` that are assigned with at least this agreement.
    pub fn share_assigned(&self, x: &Tensor, agreement: f64) -> Result<f64> {
        let assigned = self.assign(x)?;
        let firm = assigned.iter().filter(|a| a.agreement >= agreement).count();
        Ok(firm as f64 / assigned.len().max(1) as f64)
    }
}
