//! Where tensors are.

use crate::{Context, Result, bail};
use candle_core::Device;

/// The device of this name: `cpu`, `cuda`, or `cuda:1` for the second GPU.
///
/// ```
/// use consistency::device;
/// assert!(device("cpu")?.is_cpu());
/// let error = device("gpu").unwrap_err().to_string();
/// assert_eq!(error, "device 'gpu': choose cpu, cuda or cuda:N");
/// # Ok::<(), consistency::Error>(())
/// ```
///
/// # Errors
/// An invalid name, a build without CUDA, or a machine without a GPU; the message says what to do.
pub fn device(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::Cpu);
    }
    let ordinal = match name.strip_prefix("cuda") {
        Some("") => Some(0),
        Some(rest) => rest.strip_prefix(':').and_then(|n| n.parse().ok()),
        None => None,
    };
    let Some(ordinal) = ordinal else {
        bail!("device '{name}': choose cpu, cuda or cuda:N");
    };
    cuda(ordinal).with_context(|| format!("device '{name}'"))
}

/// Allow the tensor cores of NVIDIA GPUs to round the factors of f32 products to 10 bits of
/// mantissa (TF32), or forbid it. It holds for the whole process.
pub fn allow_tf32(allow: bool) {
    // In a build without CUDA candle's function does nothing.
    candle_core::cuda::set_gemm_reduced_precision_f32(allow);
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Result<Device> {
    bail!(
        "this build runs on the CPU alone; with an NVIDIA GPU and the CUDA toolkit, `cargo lab setup \
         --features cuda` makes one that runs on both (in a program: `cargo build --release \
         --features cuda`)"
    )
}

#[cfg(feature = "cuda")]
fn cuda(ordinal: usize) -> Result<Device> {
    use candle_core::cuda_backend::cudarc::driver::result;
    use candle_core::cuda_backend::cudarc::driver::sys;
    let device = Device::new_cuda(ordinal).map_err(|e| {
        crate::Error::new(format!(
            "no GPU can be used here ({e}): look at `nvidia-smi`, or run with `--device cpu`"
        ))
    })?;
    // Freed memory stays with the process: by default the pool gives all of it back to the
    // system at each synchronisation, and every tensor pays for that.
    // SAFETY: the pool belongs to the device that has just been opened, and the attribute's
    // value is a u64 that outlives the call.
    unsafe {
        let mut keep = u64::MAX;
        let pool = result::device::get(ordinal as i32)
            .and_then(|device| result::device::get_default_mem_pool(device));
        if let Ok(pool) = pool {
            result::mem_pool::set_attribute(
                pool,
                sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                (&raw mut keep).cast(),
            )
            .map_err(|e| crate::Error::new(format!("keeping the GPU's memory pool: {e:?}")))?;
        }
    }
    Ok(device)
}
