//! The arithmetic of the layers on slices: f32 and f64, channels last, on all threads.
//!
//! Activations are (B, H, W, C): a vector register then holds channels of one position, in
//! every layer and for every image size. Work is split into pieces whose results do not
//! depend on how many threads there are.

pub(crate) mod attention;
pub(crate) mod convolution;
pub(crate) mod epilogue;
pub(crate) mod group_norm;
pub(crate) mod panels;
pub(crate) mod pointwise;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod resample;
pub(crate) mod simd;
mod team;
pub(crate) mod window;
pub(crate) mod winograd;

use candle_core::{CpuStorage, WithDType};
use num_traits::Float;
use simd::Vector;
use std::cell::RefCell;

/// Below this many elements a split costs more than it gains.
pub(crate) const PARALLEL: usize = 1 << 15;
/// Elements of one piece of split work.
pub(crate) const PIECE: usize = 1 << 14;

/// The element types of training and of its tests.
pub(crate) trait Real: WithDType + Float + std::iter::Sum {
    #[cfg(target_arch = "x86_64")]
    type Avx512: Vector<Self>;
    #[cfg(target_arch = "x86_64")]
    type Avx2: Vector<Self>;

    fn wrap(values: Vec<Self>) -> CpuStorage;
    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]>;
    /// e^x, in a form that vectorises in loops over slices where the type allows it. `fused` is
    /// that of the [`Vector`] in use.
    fn exponential(self, fused: bool) -> Self;
}

impl Real for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx512 = simd::F32x16;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = simd::F32x8;

    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F32(values)
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        }
    }

    #[inline(always)]
    fn exponential(self, fused: bool) -> Self {
        pointwise::exponential(self, fused)
    }
}

impl Real for f64 {
    #[cfg(target_arch = "x86_64")]
    type Avx512 = simd::F64x8;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = simd::F64x4;

    fn wrap(values: Vec<Self>) -> CpuStorage {
        CpuStorage::F64(values)
    }

    fn slice_mut(storage: &mut CpuStorage) -> Option<&mut [Self]> {
        match storage {
            CpuStorage::F64(values) => Some(values),
            _ => None,
        }
    }

    #[inline(always)]
    fn exponential(self, _: bool) -> Self {
        self.exp()
    }
}

/// A place that several threads write to, each to its own part.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(*mut T);

// SAFETY: whoever writes through it keeps the parts apart.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(values: *mut T) -> Self {
        Self(values)
    }

    pub(crate) fn at(self, offset: usize) -> *mut T {
        self.0.wrapping_add(offset)
    }
}

/// A vector of `len` elements, every one of which `fill` writes.
///
/// # Safety
/// `fill` writes all of them. (Zeros first would be one more pass over the memory.)
pub(crate) unsafe fn filled<T: Real>(len: usize, fill: impl FnOnce(Shared<T>)) -> Vec<T> {
    let mut values = Vec::with_capacity(len);
    fill(Shared(values.as_mut_ptr()));
    // SAFETY: `len` elements have been reserved, and written by `fill`.
    unsafe { values.set_len(len) };
    values
}

thread_local! {
    // Whole pages, kept from one call to the next: fresh ones cost as much as what is
    // computed in them.
    static SCRATCH: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Call `f` with `len` numbers of this thread's scratch memory, aligned to a cache line. They hold
/// whatever was left there.
pub(crate) fn with_scratch<T: Real, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    const LINE: usize = 64;
    // A nested call finds none, and makes its own.
    let mut words = SCRATCH.with(RefCell::take);
    let needed = len * size_of::<T>() + LINE;
    if words.len() * size_of::<u64>() < needed {
        words = vec![0; needed.div_ceil(size_of::<u64>())];
    }
    let bytes = words.as_mut_ptr().cast::<u8>();
    // SAFETY: `len` numbers fit behind the first line's end, and any bits are valid numbers.
    let scratch = unsafe {
        let start = bytes.add(bytes.align_offset(LINE)).cast::<T>();
        std::slice::from_raw_parts_mut(start, len)
    };
    let result = f(scratch);
    SCRATCH.with(|kept| {
        if kept.borrow().len() < words.len() {
            *kept.borrow_mut() = words;
        }
    });
    result
}

/// `work` on each of `0..count`, on all threads if there are enough `elements` to share.
pub(crate) fn each(count: usize, elements: usize, work: impl Fn(usize) + Sync + Send) {
    if elements < PARALLEL || count < 2 {
        (0..count).for_each(work);
    } else {
        team::share(count, &work);
    }
}
