//! AES by eights: eight vectors under one key, alone or beside eight others under another.
//!
//! A round takes a few cycles and a machine may do two vectors a cycle, so eight vectors in flight
//! keep one unit of four cycles and two lanes just busy, and sixteen leave it no gap.
//!
//! A cipher is put together from its rounds here, because the first of them are not always to be
//! done: chains stay [whitened](super::chains::ChainKeys), and CTR looks its [first
//! round](super::stream) up.

use core::arch::asm;
use core::arch::x86_64::{
    __m512i, _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_xor_si512,
};

use super::zmm::Keys;
use crate::page::{PAGE_SIZE, Page};

/// Eight vectors.
pub(super) type Eight = [__m512i; 8];

/// Parts of a page: eight lines each.
pub(super) const PARTS: usize = PAGE_SIZE / size_of::<Eight>();

/// A page by its parts.
pub(super) type Parts = [Eight; PARTS];

/// The page's parts, to read.
#[inline]
pub(super) fn parts(page: &Page) -> &Parts {
    zerocopy::transmute_ref!(page)
}

/// The page's parts, to write.
#[inline]
pub(super) fn parts_mut(page: &mut Page) -> &mut Parts {
    zerocopy::transmute_mut!(page)
}

/// The vector itself. Values that pass here stay in the order in which they do, and so the rounds
/// of several vectors stay side by side: a compiler that finishes one vector first, to have more
/// registers free, leaves the machine waiting.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn in_turn(mut vector: __m512i) -> __m512i {
    // SAFETY: there is no instruction in it.
    unsafe {
        asm!("/* {0} */", inout(zmm_reg) vector, options(nomem, nostack, preserves_flags));
    }
    vector
}

/// One step of every variable that is named: variables and not arrays, because those stay in
/// registers from round to round.
macro_rules! every {
    ($step:ident($key:expr) $($vector:ident)*) => {
        $($vector = in_turn($step($vector, $key));)*
    };
}

/// Every block with the key that comes before the rounds.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn whitened(Keys([first, ..]): &Keys, eight: Eight) -> Eight {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight;
    every!(_mm512_xor_si512(*first) a b c d e f g h);
    [a, b, c, d, e, f, g, h]
}

/// The first round of AES-256 of every block that is whitened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn first_round(Keys([_, second, ..]): &Keys, eight: Eight) -> Eight {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight;
    every!(_mm512_aesenc_epi128(*second) a b c d e f g h);
    [a, b, c, d, e, f, g, h]
}

/// The other rounds of every block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn other_rounds(Keys([_, _, middle @ .., last]): &Keys, eight: Eight) -> Eight {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight;
    for key in middle {
        every!(_mm512_aesenc_epi128(*key) a b c d e f g h);
    }
    every!(_mm512_aesenclast_epi128(*last) a b c d e f g h);
    [a, b, c, d, e, f, g, h]
}

/// All rounds of every block that is whitened.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn rounds(keys: &Keys, eight: Eight) -> Eight {
    other_rounds(keys, first_round(keys, eight))
}

/// The other rounds of every block of two sets side by side, each under its own key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn other_rounds_of_both(
    (Keys([_, _, middle_a @ .., last_a]), eight_a): (&Keys, Eight),
    (Keys([_, _, middle_b @ .., last_b]), eight_b): (&Keys, Eight),
) -> (Eight, Eight) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight_a;
    let [mut i, mut j, mut k, mut l, mut m, mut n, mut o, mut p] = eight_b;
    for (key_a, key_b) in middle_a.iter().zip(middle_b) {
        every!(_mm512_aesenc_epi128(*key_b) i j k l m n o p);
        every!(_mm512_aesenc_epi128(*key_a) a b c d e f g h);
    }
    every!(_mm512_aesenclast_epi128(*last_b) i j k l m n o p);
    every!(_mm512_aesenclast_epi128(*last_a) a b c d e f g h);
    ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p])
}

/// AES-256 of every block of two sets side by side, each under its own key (FIPS 197, section
/// 5.1): all that there is to do, for what is measured by it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn encrypt_both(
    (keys_a, eight_a): (&Keys, Eight),
    (keys_b, eight_b): (&Keys, Eight),
) -> (Eight, Eight) {
    let (eight_a, eight_b) = (whitened(keys_a, eight_a), whitened(keys_b, eight_b));
    let (eight_a, eight_b) = (first_round(keys_a, eight_a), first_round(keys_b, eight_b));
    other_rounds_of_both((keys_a, eight_a), (keys_b, eight_b))
}
