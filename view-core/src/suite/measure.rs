//! What this machine can do without a suite, for benches: what a suite's speed is held against.

#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
use super::x86;
use crate::page::Page;

/// Copies pages with stores that go past the cache, and waits until they are done. As many as the
/// shorter list has.
///
/// `None`, and nothing is copied, where this crate has no kernel for the machine.
pub fn copy_past_cache(from: &[Page], to: &mut [Page]) -> Option<()> {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    {
        x86::measure::copy(x86::Vaes512::here()?, from, to);
        Some(())
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable))))]
    {
        let _ = (from, to);
        None
    }
}

/// Encrypts blocks that never leave the registers, with AES-256, and tells how many bytes that was:
/// 1024 each time. No suite that encrypts every block once does better.
///
/// `None`, and nothing is done, where this crate has no kernel for the machine.
pub fn encrypt_in_registers(times: usize) -> Option<usize> {
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    {
        Some(x86::measure::encrypt(x86::Vaes512::here()?, times))
    }
    #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable))))]
    {
        let _ = times;
        None
    }
}
