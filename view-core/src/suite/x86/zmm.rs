//! What the kernels at 512 bits share: a vector is a cache line, four AES blocks of one page.

use core::arch::x86_64::{
    __m512i, _MM_HINT_T0, _mm_prefetch, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_shuffle_i32x4, _mm512_stream_si512, _mm512_xor_si512,
};

use zeroize::Zeroize;

use super::Vaes512;
use super::schedule::{ROUND_KEYS, Schedule};
use crate::page::{PAGE_SIZE, Page};

/// Lines in a page.
pub(super) const LINES: usize = PAGE_SIZE / 64;

/// A page as its lines.
pub(super) type Lines = [__m512i; LINES];

/// The page's lines, to read.
#[inline]
pub(super) fn lines(page: &Page) -> &Lines {
    zerocopy::transmute_ref!(page)
}

/// The page's lines, to write.
#[inline]
pub(super) fn lines_mut(page: &mut Page) -> &mut Lines {
    zerocopy::transmute_mut!(page)
}

/// Four blocks side by side.
#[inline]
pub(super) const fn four(blocks: [[u8; 16]; 4]) -> __m512i {
    zerocopy::transmute!(blocks)
}

/// The same block four times.
#[inline]
pub(super) const fn repeat(block: [u8; 16]) -> __m512i {
    four([block; 4])
}

/// The four blocks of a vector.
#[inline]
pub(super) fn blocks(vector: __m512i) -> [[u8; 16]; 4] {
    zerocopy::transmute!(vector)
}

/// Nothing but zeroes.
#[inline]
pub(super) const fn zero() -> __m512i {
    repeat([0; 16])
}

/// The round keys of AES-256, each four times side by side.
#[repr(C, align(64))]
pub(super) struct Keys(pub(super) [__m512i; ROUND_KEYS]);

impl Keys {
    /// Expands a key for the machine that the proof is about.
    pub(super) fn new(proof: Vaes512, key: &[u8; 32]) -> Self {
        Self(Schedule::new(proof.into(), key).0.map(repeat))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// AES-256 of every block of few vectors (FIPS 197, section 5.1).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn encrypt<const N: usize>(keys: &Keys, vectors: &mut [__m512i; N]) {
    let Keys([first, ..]) = keys;
    for vector in &mut *vectors {
        *vector = sum(*vector, *first);
    }
    rounds(keys, vectors);
}

/// The rounds of AES-256 alone, of every block of few vectors that are whitened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn rounds<const N: usize>(
    Keys([_, middle @ .., last]): &Keys,
    vectors: &mut [__m512i; N],
) {
    for key in middle {
        for vector in &mut *vectors {
            *vector = _mm512_aesenc_epi128(*vector, *key);
        }
    }
    for vector in &mut *vectors {
        *vector = _mm512_aesenclast_epi128(*vector, *last);
    }
}

/// Four lines of four pages, turned: the first block of each page, the second of each, and so on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn turned([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0x44>(c, d));
    let (first, second) =
        (_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd));
    let (ab, cd) = (_mm512_shuffle_i32x4::<0xee>(a, b), _mm512_shuffle_i32x4::<0xee>(c, d));
    let (third, fourth) =
        (_mm512_shuffle_i32x4::<0x88>(ab, cd), _mm512_shuffle_i32x4::<0xdd>(ab, cd));
    [first, second, third, fourth]
}

/// Writes a line: into the cache, or past it.
///
/// # Safety
/// If `COLD`, the thread executes `sfence` before any other reads or writes the line.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) unsafe fn put<const COLD: bool>(line: &mut __m512i, vector: __m512i) {
    if COLD {
        // SAFETY: the line is ours to write and aligned; the caller sees to the fence.
        unsafe { _mm512_stream_si512(line, vector) }
    } else {
        *line = vector;
    }
}

/// Asks for a line, so that it is in the first-level cache when its turn comes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn prefetch(line: &__m512i) {
    _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(line).cast());
}

/// The sum of two vectors in GF(2^128), block by block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn sum(a: __m512i, b: __m512i) -> __m512i {
    _mm512_xor_si512(a, b)
}
