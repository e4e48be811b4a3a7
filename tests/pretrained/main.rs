//! Promise: published checkpoints load as what they are, or one clear error says what is
//! wrong with them.

mod defaults;
mod files;
mod flax;
#[path = "../support/formula.rs"]
mod formula;
mod kinds;
#[path = "../support/msgpack.rs"]
mod msgpack;
#[path = "../support/networks.rs"]
mod networks;
mod pickles;
mod sizes;
mod teach;
mod weights;

use consistency::Result;
use std::path::PathBuf;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A file of this test's own.
fn beside(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/pretrained").join(name)
}

fn message<T>(result: Result<T>) -> String {
    match result {
        Ok(_) => String::from("no error at all"),
        Err(error) => error.to_string(),
    }
}

fn gap(a: &candle_core::Tensor, b: &candle_core::Tensor) -> Result<f64> {
    Ok(f64::from((a - b)?.abs()?.max_all()?.to_scalar::<f32>()?))
}
