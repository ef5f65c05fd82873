//! SIV-CMAC-512 with VAES at 256 bits: sixteen pages are worked on at once, two to a vector.

use core::arch::x86_64::{
    __m256i as Vector, _mm256_add_epi32 as add, _mm256_aesenc_epi128 as round,
    _mm256_aesenclast_epi128 as last_round, _mm256_shuffle_epi8 as shuffle,
    _mm256_stream_si256 as store_past_cache, _mm256_xor_si256 as xor,
};

use super::Vaes256 as Proof;

/// Blocks in a vector.
const LANES: usize = 2;

/// How far on each block of a vector is.
const NUMBERS: [[u32; 4]; LANES] = [[0; 4], [0, 0, 0, 1]];

/// How far on the next vector is.
const STEP: u32 = 2;

super::narrow::vectors!("aes,avx2,vaes");
super::siv_narrow::kernel!("aes,avx2,vaes");
