//! Vectors of the machine at hand, chosen when the program runs.
//!
//! A [`Kernel`] is written once over a [`Vector`]; [`dispatch`] compiles it for AVX-512,
//! for AVX2 and for anything else, and runs the widest that the processor has. Loops
//! without explicit vectors gain too: the compiler vectorises them for the same target.

use super::Real;
use std::sync::OnceLock;

/// A register of numbers.
///
/// # Safety
/// Callers of `load` and `store` give a pointer to `LANES` numbers. A vector type is used only
/// below [`dispatch`], which has checked that the processor has it.
pub(crate) trait Vector<T>: Copy {
    /// Numbers in a register.
    const LANES: usize;
    /// Whether there are 32 registers; 16 otherwise.
    const WIDE: bool;
    /// Whether the processor multiplies and adds in one instruction; otherwise `mul_add` of a
    /// number is a function call.
    const FUSED: bool;

    unsafe fn splat(value: T) -> Self;
    unsafe fn load(from: *const T) -> Self;
    unsafe fn store(self, to: *mut T);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// self * factor + term.
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// Work that is compiled for each kind of processor.
pub(crate) trait Kernel<T: Real> {
    /// The work. Mark it `#[inline(always)]`: it takes its target from the caller.
    unsafe fn run<V: Vector<T>>(self);
}

#[derive(Clone, Copy, PartialEq)]
enum Machine {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Any,
}

fn machine() -> Machine {
    static FOUND: OnceLock<Machine> = OnceLock::new();
    *FOUND.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            let narrow = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            // `CONSISTENCY_SIMD` lets a wide machine run what a narrow one would.
            let asked = std::env::var("CONSISTENCY_SIMD").unwrap_or_default();
            if wide && narrow && asked.is_empty() {
                return Machine::Avx512;
            }
            if narrow && asked != "none" {
                return Machine::Avx2;
            }
        }
        Machine::Any
    })
}

/// The vectors in use, in words.
pub(crate) fn name() -> &'static str {
    match machine() {
        #[cfg(target_arch = "x86_64")]
        Machine::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Machine::Avx2 => "AVX2",
        Machine::Any => "portable",
    }
}

/// Numbers in one register of `T` on this machine.
pub(crate) fn lanes<T: Real>() -> usize {
    let bytes = match machine() {
        #[cfg(target_arch = "x86_64")]
        Machine::Avx512 => 64,
        _ => 32,
    };
    bytes / size_of::<T>()
}

/// Whether there are 32 registers.
pub(crate) fn wide() -> bool {
    #[cfg(target_arch = "x86_64")]
    return machine() == Machine::Avx512;
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Run `kernel` with the widest vectors there are.
pub(crate) fn dispatch<T: Real>(kernel: impl Kernel<T>) {
    // SAFETY: `machine` has detected the features of the branch taken.
    unsafe {
        match machine() {
            #[cfg(target_arch = "x86_64")]
            Machine::Avx512 => on_avx512(kernel),
            #[cfg(target_arch = "x86_64")]
            Machine::Avx2 => on_avx2(kernel),
            Machine::Any => match size_of::<T>() {
                4 => kernel.run::<Lanes<T, 8>>(),
                _ => kernel.run::<Lanes<T, 4>>(),
            },
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn on_avx512<T: Real>(kernel: impl Kernel<T>) {
    unsafe { kernel.run::<T::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn on_avx2<T: Real>(kernel: impl Kernel<T>) {
    unsafe { kernel.run::<T::Avx2>() }
}

/// x * factor + term, in one rounding where that is one instruction.
#[inline(always)]
pub(crate) fn mul_add<T: Real>(x: T, factor: T, term: T, fused: bool) -> T {
    if fused { x.mul_add(factor, term) } else { x * factor + term }
}

/// A vector for any processor: the compiler finds the registers.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<T, const N: usize>([T; N]);

impl<T: Real, const N: usize> Vector<T> for Lanes<T, N> {
    const LANES: usize = N;
    const WIDE: bool = false;
    const FUSED: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; N])
    }

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        Self(unsafe { from.cast::<[T; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        unsafe { to.cast::<[T; N]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * other.0[i]))
    }

    #[inline(always)]
    unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
        let sum = |i: usize| mul_add(self.0[i], factor.0[i], term.0[i], Self::FUSED);
        Self(std::array::from_fn(sum))
    }
}

/// The `Vector` of an Intel register, from its intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! register {
    ($name:ident($register:ty), $t:ty, $lanes:literal, $wide:literal,
     $splat:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $mul_add:ident) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name($register);

        impl Vector<$t> for $name {
            const LANES: usize = $lanes;
            const WIDE: bool = $wide;
            const FUSED: bool = true;

            #[inline(always)]
            unsafe fn splat(value: $t) -> Self {
                Self(unsafe { $splat(value) })
            }

            #[inline(always)]
            unsafe fn load(from: *const $t) -> Self {
                Self(unsafe { $load(from) })
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $t) {
                unsafe { $store(to, self.0) }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                Self(unsafe { $add(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn sub(self, other: Self) -> Self {
                Self(unsafe { $sub(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn mul(self, other: Self) -> Self {
                Self(unsafe { $mul(self.0, other.0) })
            }

            #[inline(always)]
            unsafe fn mul_add(self, factor: Self, term: Self) -> Self {
                Self(unsafe { $mul_add(self.0, factor.0, term.0) })
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod intel {
    use super::Vector;
    use std::arch::x86_64::*;

    register!(
        F32x16(__m512),
        f32,
        16,
        true,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_sub_ps,
        _mm512_mul_ps,
        _mm512_fmadd_ps
    );
    register!(
        F64x8(__m512d),
        f64,
        8,
        true,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_storeu_pd,
        _mm512_add_pd,
        _mm512_sub_pd,
        _mm512_mul_pd,
        _mm512_fmadd_pd
    );
    register!(
        F32x8(__m256),
        f32,
        8,
        false,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_sub_ps,
        _mm256_mul_ps,
        _mm256_fmadd_ps
    );
    register!(
        F64x4(__m256d),
        f64,
        4,
        false,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_storeu_pd,
        _mm256_add_pd,
        _mm256_sub_pd,
        _mm256_mul_pd,
        _mm256_fmadd_pd
    );
}

#[cfg(target_arch = "x86_64")]
pub(crate) use intel::{F32x8, F32x16, F64x4, F64x8};
