//! What the C library's allocator does with freed memory.
//!
//! A training step frees and asks for the same hundreds of megabytes again and again. By default
//! glibc gives them back to the system, which hands them out page by page, zeroed: this takes a
//! tenth of the digits U-Net's step (`reproductions/bench/README.md`).

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::sync::Once;

    /// Larger pieces go straight back to the system: this is the most that all versions accept.
    const MAPPED: i32 = 32 << 20;
    /// What an arena may keep.
    const KEPT: i32 = 1 << 30;

    /// From the first call on, keep what is freed; a user's own settings stay.
    pub fn keep() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let own = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"];
            if own.iter().any(|name| std::env::var_os(name).is_some()) {
                return;
            }
            // SAFETY: plain settings. One that is refused leaves the allocator as it was.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED);
                libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
            }
        });
    }

    /// Give back what is not in use.
    pub fn give_back() {
        // SAFETY: it may be called at any time.
        unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
mod glibc {
    pub fn keep() {}

    pub fn give_back() {}
}

pub use glibc::{give_back, keep};
