//! What the tests of networks and metrics share: a folder that goes, and numbers that are a
//! function of a name.

use candle_core::{Device, Tensor};
use consistency::{Context, Result};
use rayon::prelude::*;
use std::fs;
use std::path::PathBuf;

/// A folder that goes when the test ends.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("consistency-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.0.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, bytes).with_context(|| path.display().to_string())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fnv1a64(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn splitmix64(state: u64) -> u64 {
    let z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The numbers in [-1, 1) that belong to a name, times `scale` plus `shift`.
pub fn formula(name: &str, dims: &[usize], scale: f64, shift: f64) -> Result<Tensor> {
    let h = fnv1a64(name);
    let count: usize = dims.iter().product();
    let values: Vec<f32> = (0..count as u64)
        .into_par_iter()
        .map(|i| {
            let z = splitmix64(h.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
            let u = (z >> 40) as f64 / f64::from(1 << 23) - 1.0;
            (u * scale + shift) as f32
        })
        .collect();
    Ok(Tensor::from_vec(values, dims, &Device::Cpu)?)
}
