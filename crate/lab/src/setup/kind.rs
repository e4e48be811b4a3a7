//! The two kernels.

/// A kernel, and the library that it starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `consistency`, on the CPU.
    Cpu,
    /// `consistency-cuda`, on the CPU and on NVIDIA GPUs.
    Cuda,
}

impl Kind {
    /// The file that names the library that its kernels start with.
    pub fn current(self) -> &'static str {
        match self {
            Self::Cpu => "current",
            Self::Cuda => "current-cuda",
        }
    }
}
