//! GHASH at 512 bits: what four blocks of a page add to a sum in GF(2^128), and the powers of the
//! key that they are multiplied by.
//!
//! Blocks are turned end to end, so that GHASH becomes POLYVAL, whose bits are in the machine's
//! order (RFC 8452, appendix A). Products are summed before they are reduced, and are Karatsuba's:
//! three multiplications a line, which cost more than all the rest, and not four.

use core::arch::x86_64::{
    __m512i, _mm512_clmulepi64_epi128, _mm512_maskz_mov_epi64, _mm512_shuffle_epi8,
    _mm512_shuffle_epi32, _mm512_shuffle_i64x2, _mm512_ternarylogic_epi64,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::zmm::{blocks, four, repeat, sum, zero};

/// Lines that are summed before a reduction.
pub(super) const STEP: usize = 8;

/// The polynomial of POLYVAL without its ends, `x^63 + x^62 + x^57`, in both halves of every block.
const POLYNOMIAL: [[u64; 2]; 4] = [[0xc200_0000_0000_0000; 2]; 4];

/// A factor for each of four blocks, and the sum of its halves in either half.
#[derive(Clone, Copy, Zeroize)]
pub(super) struct Power {
    h: __m512i,
    halves: __m512i,
}

/// The powers of the key that a page takes: as secret as the key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Powers {
    /// For the lines of a step, from the first: the highest power is its first block's.
    pub(super) step: [Power; STEP],
    /// The key itself, for every block.
    pub(super) first: Power,
    /// Its square, for every block.
    pub(super) second: Power,
}

impl Powers {
    /// From the block that SP 800-38D, section 7.1, calls the hash subkey.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn new(subkey: [u8; 16]) -> Self {
        // Turned end to end and multiplied by x (RFC 8452, appendix A).
        const REDUCED: u128 = 0xc200_0000_0000_0000_0000_0000_0000_0001;
        let turned = u128::from_be_bytes(subkey);
        let key = (turned << 1) ^ (REDUCED & 0_u128.wrapping_sub(turned >> 127));
        let first = Power::of(repeat(key.to_le_bytes()));
        let second = Power::of(product(first.h, &first));
        let third = product(second.h, &first);
        let fourth = Power::of(product(second.h, &second));
        let mut line = four([fourth.h, third, second.h, first.h].map(|power| blocks(power)[0]));
        let mut step = [first; STEP];
        for powers in step.iter_mut().rev() {
            *powers = Power::of(line);
            line = product(line, &fourth);
        }
        Self { step, first, second }
    }
}

impl Power {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn of(h: __m512i) -> Self {
        Self { h, halves: sum(h, swapped(h)) }
    }
}

/// Products, summed and not yet reduced.
#[derive(Clone, Copy)]
pub(super) struct Products {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Products {
    #[inline]
    pub(super) fn none() -> Self {
        Self { low: zero(), middle: zero(), high: zero() }
    }

    /// Adds the product of each block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn add(&mut self, blocks: __m512i, Power { h, halves }: &Power) {
        let both = sum(blocks, swapped(blocks));
        self.low = sum(self.low, _mm512_clmulepi64_epi128::<0x00>(blocks, *h));
        self.middle = sum(self.middle, _mm512_clmulepi64_epi128::<0x00>(both, *halves));
        self.high = sum(self.high, _mm512_clmulepi64_epi128::<0x11>(blocks, *h));
    }

    /// The four sums, divided by x^128 as POLYVAL has it: twice the lower half is made zero by
    /// adding a multiple of the polynomial.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn reduced(self) -> __m512i {
        let polynomial = zerocopy::transmute!(POLYNOMIAL);
        let Self { low, middle, high } = self;
        let middle = sum3(middle, low, high);
        let multiple = _mm512_clmulepi64_epi128::<0x00>(low, polynomial);
        let middle = sum3(middle, swapped(low), multiple);
        let multiple = _mm512_clmulepi64_epi128::<0x00>(middle, polynomial);
        sum3(high, swapped(middle), multiple)
    }
}

/// The halves of every block, changed over.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn swapped(vector: __m512i) -> __m512i {
    _mm512_shuffle_epi32::<0x4e>(vector)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn product(blocks: __m512i, power: &Power) -> __m512i {
    let mut products = Products::none();
    products.add(blocks, power);
    products.reduced()
}

/// The sum of three vectors in GF(2^128), block by block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn sum3(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// Every block turned end to end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn reversed(vector: __m512i) -> __m512i {
    const TURN: [u8; 16] = [15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0];
    _mm512_shuffle_epi8(vector, repeat(TURN))
}

/// The sum of the four blocks in the place of the first, and zeroes after it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn folded(vector: __m512i) -> __m512i {
    let two = sum(vector, _mm512_shuffle_i64x2::<0x4e>(vector, vector));
    let one = sum(two, _mm512_shuffle_i64x2::<0xb1>(two, two));
    _mm512_maskz_mov_epi64(0b11, one)
}
