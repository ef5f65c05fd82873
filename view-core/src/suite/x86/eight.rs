//! AES by eights: eight vectors under one key, alone or beside eight others, and a page's counters.
//!
//! A round takes a few cycles and a machine may do two vectors a cycle, so eight vectors in flight
//! keep one unit of four cycles and two lanes just busy, and sixteen leave it no gap.

use core::arch::asm;
use core::arch::x86_64::{
    __m512i, _mm512_add_epi8, _mm512_aesenc_epi128, _mm512_aesenclast_epi128,
    _mm512_cmplt_epu32_mask, _mm512_mask_xor_epi32, _mm512_xor_si512,
};

use super::zmm::{Keys, four, repeat};
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

/// AES-256 of every block (FIPS 197, section 5.1).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn encrypt(Keys([first, middle @ .., last]): &Keys, eight: Eight) -> Eight {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight;
    every!(_mm512_xor_si512(*first) a b c d e f g h);
    for key in middle {
        every!(_mm512_aesenc_epi128(*key) a b c d e f g h);
    }
    every!(_mm512_aesenclast_epi128(*last) a b c d e f g h);
    [a, b, c, d, e, f, g, h]
}

/// AES-256 of every block of two sets side by side, each under its own key.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn encrypt_both(
    (Keys([first_a, middle_a @ .., last_a]), eight_a): (&Keys, Eight),
    (Keys([first_b, middle_b @ .., last_b]), eight_b): (&Keys, Eight),
) -> (Eight, Eight) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = eight_a;
    let [mut i, mut j, mut k, mut l, mut m, mut n, mut o, mut p] = eight_b;
    every!(_mm512_xor_si512(*first_a) a b c d e f g h);
    every!(_mm512_xor_si512(*first_b) i j k l m n o p);
    for (key_a, key_b) in middle_a.iter().zip(middle_b) {
        every!(_mm512_aesenc_epi128(*key_a) a b c d e f g h);
        every!(_mm512_aesenc_epi128(*key_b) i j k l m n o p);
    }
    every!(_mm512_aesenclast_epi128(*last_a) a b c d e f g h);
    every!(_mm512_aesenclast_epi128(*last_b) i j k l m n o p);
    ([a, b, c, d, e, f, g, h], [i, j, k, l, m, n, o, p])
}

/// The counters of a page's blocks: 32 bits, big-endian, at the end of each block.
///
/// Turning bytes round would take the units that AES needs. So only the last byte counts, which
/// needs no turning, and the three before it flip where it has wrapped: a page has 256 blocks, so
/// that is once. The last byte is the highest of a word as the machine reads it, so it has wrapped
/// where the word is less than it was.
#[derive(Clone, Copy)]
pub(super) struct Counter {
    first: __m512i,
    /// What flips in the blocks whose last byte has wrapped.
    flip: __m512i,
}

impl Counter {
    /// From the counter of a page's first block. Its 32 bits do not overflow within a page.
    #[inline]
    pub(super) const fn new(block: [u8; 16]) -> Self {
        let number = u128::from_be_bytes(block);
        let flip = (number ^ number.wrapping_add(0x100)).to_be_bytes();
        Self { first: repeat(block), flip: repeat(flip) }
    }

    /// The counters of eight lines.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    #[expect(clippy::indexing_slicing, reason = "masked to what there is")]
    pub(super) fn part(&self, part: usize) -> Eight {
        let on = _mm512_add_epi8(self.first, four(PARTS_ON[part & 7]));
        let line = |line: usize| {
            let count = _mm512_add_epi8(on, four(LINES_ON[line & 7]));
            let wrapped = _mm512_cmplt_epu32_mask(count, self.first);
            _mm512_mask_xor_epi32(count, wrapped, count, self.flip)
        };
        [line(0), line(1), line(2), line(3), line(4), line(5), line(6), line(7)]
    }
}

/// How far on a part of a page is, in blocks.
const PARTS_ON: [[[u8; 16]; 4]; PARTS] = [
    [last_byte(0); 4],
    [last_byte(32); 4],
    [last_byte(64); 4],
    [last_byte(96); 4],
    [last_byte(128); 4],
    [last_byte(160); 4],
    [last_byte(192); 4],
    [last_byte(224); 4],
];

/// How far on the blocks of each line of a part are.
const LINES_ON: [[[u8; 16]; 4]; 8] =
    [line(0), line(4), line(8), line(12), line(16), line(20), line(24), line(28)];

const fn line(block: u8) -> [[u8; 16]; 4] {
    [last_byte(block), last_byte(block | 1), last_byte(block | 2), last_byte(block | 3)]
}

const fn last_byte(byte: u8) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, byte]
}
