//! CTR with its first round looked up: the keys for it, and a page's counters.
//!
//! From block to block only the last byte of a counter changes, and once in a page, where that has
//! wrapped, the bytes before it. A round of AES mixes bytes by sums alone once each has been
//! through its S-box, so the round of a counter is that of the counter whose last byte is zero,
//! plus a difference that depends on the last byte and the key and on nothing else. A table has
//! the 256 differences, a page has two rounds to do, and a line of four blocks costs one sum in
//! place of counting, whitening and a round. Sources: FIPS 197, section 5.1; Bernstein and
//! Schwabe, "New AES software speed records" (INDOCRYPT 2008), where it is counter-mode caching.
//!
//! Where the table is read depends on a counter alone, which comes from a tag or a version and is
//! no secret. What is read is as secret as the key, and so is one round of a counter.

use core::arch::x86_64::{__m512i, _mm512_aesenc_epi128};

use zerocopy::IntoBytes;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Vaes512;
use super::chains::ChainKeys;
use super::eight::{Eight, first_round, other_rounds, other_rounds_of_both};
use super::zmm::{Keys, four, repeat, sum, zero};

/// Lines of a table: one for every four values of a byte, and the first of them again, so that
/// four that follow each other are in one place wherever they begin.
const TABLE: usize = 256 / 4 + 1;

/// The round keys of AES-256 for CTR, with what the last byte of a counter adds to its first round.
pub(super) struct StreamKeys {
    keys: Keys,
    table: [__m512i; TABLE],
}

impl StreamKeys {
    /// Expands a key for the machine that the proof is about.
    pub(super) fn new(proof: Vaes512, key: &[u8; 32]) -> Self {
        let keys = Keys::new(proof, key);
        // SAFETY: the machine has what this is compiled for: the caller holds the proof.
        let table = unsafe { differences(&keys) };
        Self { keys, table }
    }

    /// Those of AES itself.
    #[inline]
    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The key stream for a part of a page.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn stream(&self, counter: &Counter, part: usize) -> Eight {
        other_rounds(&self.keys, counter.part(self, part))
    }

    /// The key stream for a part of a page and for the next one, side by side.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn stream_two(&self, counter: &Counter, part: usize) -> (Eight, Eight) {
        let (one, next) = (counter.part(self, part), counter.part(self, part.wrapping_add(1)));
        other_rounds_of_both((&self.keys, one), (&self.keys, next))
    }

    /// The key stream for a part of a page beside a [step](ChainKeys::step) of chains.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn stream_beside(
        &self,
        counter: &Counter,
        part: usize,
        (chain_keys, chains): (&ChainKeys, Eight),
    ) -> (Eight, Eight) {
        let (keys, counted) = (chain_keys.rounds(), counter.part(self, part));
        other_rounds_of_both((keys, first_round(keys, chains)), (&self.keys, counted))
    }
}

impl Drop for StreamKeys {
    fn drop(&mut self) {
        self.table.zeroize(); // the keys wipe themselves
    }
}

/// What each value of the last byte adds to the first round of a counter that has zero there.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn differences(Keys([first, ..]): &Keys) -> [__m512i; TABLE] {
    let without = _mm512_aesenc_epi128(*first, zero());
    let mut table = [zero(); TABLE];
    let lines = (0..=u8::MAX).step_by(4).cycle();
    for (line, byte) in table.iter_mut().zip(lines) {
        let last = |on: u8| u128::from(byte | on).to_be_bytes();
        let bytes = four([last(0), last(1), last(2), last(3)]);
        *line = sum(_mm512_aesenc_epi128(sum(bytes, *first), zero()), without);
    }
    table
}

/// The counters of a page's 256 blocks, which count big-endian from the first one's on.
#[derive(ZeroizeOnDrop)]
pub(super) struct Counter {
    /// The first round of the counter whose last byte is zero, for the four blocks of a line, and
    /// of the one that comes 256 later. A line in which the byte wraps has some of each.
    bases: [__m512i; 2],
    /// The last byte of the first block's counter.
    last: u8,
}

impl Counter {
    /// From the counter of a page's first block.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn new(keys: &StreamKeys, block: [u8; 16]) -> Self {
        let Keys([first, second, ..]) = &keys.keys;
        let [.., last] = block;
        let base = u128::from_be_bytes(block) & !0xff;
        let round =
            |number: u128| _mm512_aesenc_epi128(sum(repeat(number.to_be_bytes()), *first), *second);
        Self { bases: [round(base), round(base.wrapping_add(0x100))], last }
    }

    /// The counters of eight lines, after their first round.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn part(&self, keys: &StreamKeys, part: usize) -> Eight {
        let start = usize::from(self.last).wrapping_add((part & 7).wrapping_mul(32));
        let line = |line: usize| {
            let count = start.wrapping_add(line.wrapping_mul(4));
            // How many blocks of the line have wrapped.
            let wrapped = count.saturating_sub(252).min(4);
            sum(four_from(&self.bases, wrapped), four_from(&keys.table, count & 255))
        };
        [line(0), line(1), line(2), line(3), line(4), line(5), line(6), line(7)]
    }
}

/// Four blocks that follow each other, from any place on that has as many.
#[inline]
fn four_from<const N: usize>(lines: &[__m512i; N], at: usize) -> __m512i {
    let (blocks, _) = lines.as_bytes().as_chunks::<16>();
    let found = blocks.get(at..).and_then(|blocks| blocks.first_chunk());
    found.map_or(zero(), |blocks| four(*blocks))
}

#[cfg(test)]
mod tests {
    use aes::Aes256Enc;
    use cipher::{BlockCipherEncrypt, KeyInit};

    use super::super::eight::PARTS;
    use super::*;

    const KEY: [u8; 32] = *b"thirty-two bytes that no one has";

    fn plain(aes: &Aes256Enc, counter: u128) -> [u8; 16] {
        let mut block = counter.to_be_bytes().into();
        aes.encrypt_block(&mut block);
        block.into()
    }

    /// The key stream of a whole page, in either way in which it is made.
    fn streams(keys: &StreamKeys, first: u128) -> [[Eight; PARTS]; 2] {
        // SAFETY: there are keys only where the machine has what this is compiled for.
        let counter = unsafe { Counter::new(keys, first.to_be_bytes()) };
        let alone = core::array::from_fn(|part| {
            // SAFETY: as above.
            unsafe { keys.stream(&counter, part) }
        });
        let mut two = alone;
        for (part, pair) in (0..).step_by(2).zip(two.as_chunks_mut().0) {
            // SAFETY: as above.
            *pair = unsafe { keys.stream_two(&counter, part) }.into();
        }
        [alone, two]
    }

    /// Every last byte, so that the wrap is before, after and at every block of a line and of a
    /// part, and carries through as many of the bytes before it as there are.
    #[test]
    fn a_page_counts_as_numbers_do_wherever_it_begins() {
        let Some(proof) = Vaes512::here() else { return };
        let (keys, aes) = (StreamKeys::new(proof, &KEY), Aes256Enc::new(&KEY.into()));
        let carries: [u128; 6] = [0, 0x5eff, 0x12_ffff, 0x7f_ffff, 0xff_ffff, u128::MAX >> 32];
        for start in carries.map(|before| before << 8) {
            for first in (0..=0xff).map(|last| start | last) {
                let found = streams(&keys, first);
                let wanted = (0..256).map(|on| plain(&aes, first.wrapping_add(on)));
                for (number, wanted) in wanted.enumerate() {
                    for stream in &found {
                        let blocks = stream.as_bytes().as_chunks::<16>().0;
                        assert_eq!(
                            blocks.get(number),
                            Some(&wanted),
                            "block {number} from {first:#x}"
                        );
                    }
                }
            }
        }
    }
}
