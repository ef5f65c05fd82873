//! The key schedule of AES-256 with the instruction that is there for it (FIPS 197, section 5.2).

use core::arch::x86_64::{
    __m128i, _mm_aeskeygenassist_si128, _mm_shuffle_epi32, _mm_slli_si128, _mm_xor_si128,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::AesNi;

/// Rounds of AES-256, and the whitening before them.
pub(super) const ROUND_KEYS: usize = 15;

/// The round keys of AES-256, first used first.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Schedule(pub(super) [[u8; 16]; ROUND_KEYS]);

impl Schedule {
    /// Expands a key.
    pub(super) fn new(_: AesNi, key: &[u8; 32]) -> Self {
        // SAFETY: the machine has AES-NI: the caller holds the proof.
        unsafe { expand(key) }
    }
}

#[target_feature(enable = "aes")]
fn expand(key: &[u8; 32]) -> Schedule {
    let [even, odd]: [[u8; 16]; 2] = zerocopy::transmute!(*key);
    let mut pair = (vector(even), vector(odd));
    let mut keys = [[0; 16]; ROUND_KEYS];
    let (pairs, last) = keys.as_chunks_mut::<2>();
    let mut rounds = pairs.iter_mut();
    let mut emit = |(even, odd): (__m128i, __m128i)| {
        if let Some(round) = rounds.next() {
            *round = [block(even), block(odd)];
        }
    };
    emit(pair);
    macro_rules! next {
        ($($constant:literal)*) => {$(
            pair.0 = mixed(pair.0, _mm_shuffle_epi32::<0xff>(
                _mm_aeskeygenassist_si128::<$constant>(pair.1)));
            pair.1 = mixed(pair.1, _mm_shuffle_epi32::<0xaa>(
                _mm_aeskeygenassist_si128::<0>(pair.0)));
            emit(pair);
        )*};
    }
    next!(0x01 0x02 0x04 0x08 0x10 0x20);
    let round = _mm_aeskeygenassist_si128::<0x40>(pair.1);
    for key in last {
        *key = block(mixed(pair.0, _mm_shuffle_epi32::<0xff>(round)));
    }
    Schedule(keys)
}

/// Each word is the sum of those up to it in the key before, and of one transformed word.
#[inline]
#[target_feature(enable = "sse2")]
fn mixed(mut key: __m128i, word: __m128i) -> __m128i {
    key = _mm_xor_si128(key, _mm_slli_si128::<4>(key));
    key = _mm_xor_si128(key, _mm_slli_si128::<8>(key));
    _mm_xor_si128(key, word)
}

fn vector(block: [u8; 16]) -> __m128i {
    zerocopy::transmute!(block)
}

fn block(vector: __m128i) -> [u8; 16] {
    zerocopy::transmute!(vector)
}
