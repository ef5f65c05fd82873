//! SIV-CMAC-512 with AES-NI: eight pages are worked on at once, one to a vector.

use core::arch::x86_64::{
    __m128i as Vector, _mm_add_epi32 as add, _mm_aesenc_si128 as round,
    _mm_aesenclast_si128 as last_round, _mm_shuffle_epi8 as shuffle,
    _mm_stream_si128 as store_past_cache, _mm_xor_si128 as xor,
};

use super::AesNi as Proof;

/// Blocks in a vector.
const LANES: usize = 1;

/// How far on each block of a vector is.
const NUMBERS: [[u32; 4]; LANES] = [[0; 4]];

/// How far on the next vector is.
const STEP: u32 = 1;

super::narrow::vectors!("aes,sse4.1,ssse3");
super::siv_narrow::kernel!("aes,sse4.1,ssse3");
