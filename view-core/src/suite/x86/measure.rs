//! What the machine can do without a suite: what suites are measured against.

use core::arch::x86_64::_mm_sfence;
use core::hint::black_box;

use super::Vaes512;
use super::eight::{Eight, encrypt_both};
use super::zmm::{Keys, lines, lines_mut, prefetch, put, zero};
use crate::page::Page;

/// Copies pages past the cache.
pub(in crate::suite) fn copy(_: Vaes512, from: &[Page], to: &mut [Page]) {
    // SAFETY: the proof says that the machine has what this is compiled for.
    unsafe { copy_lines(from, to) }
}

/// Asks for the same line of the next page with each line: the machine looks ahead within a page by
/// itself, and not past its end.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn copy_lines(from: &[Page], to: &mut [Page]) {
    let next = from.iter().skip(1).chain(from.last());
    for ((from, next), to) in from.iter().zip(next).zip(to) {
        for ((from, next), to) in lines(from).iter().zip(lines(next)).zip(lines_mut(to)) {
            prefetch(next);
            // SAFETY: the fence is below.
            unsafe { put::<true>(to, *from) };
        }
    }
    _mm_sfence();
}

/// AES-256 of blocks that never leave the registers.
pub(in crate::suite) fn encrypt(proof: Vaes512, times: usize) -> usize {
    let keys = Keys::new(proof, &[7; 32]);
    // SAFETY: the proof says that the machine has what this is compiled for.
    unsafe { encrypt_nothing(&keys, times) };
    times.saturating_mul(2).saturating_mul(size_of::<Eight>())
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn encrypt_nothing(keys: &Keys, times: usize) {
    let (mut a, mut b) = ([zero(); 8], [zero(); 8]);
    for _ in 0..times {
        (a, b) = encrypt_both((keys, a), (keys, b));
    }
    black_box((a, b));
}
