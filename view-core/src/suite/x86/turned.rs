//! CBC-MACs side by side: thirty-two pages are the lanes, four to a vector.
//!
//! A CBC-MAC waits for its own last step, so what keeps the machine busy is many chains at once. A
//! vector holds the same block of four pages, so pages have to be turned. They are turned by
//! writing blocks and, a whole part later, reading vectors: the instructions that turn vectors take
//! the units that AES needs, and a vector that is read while its blocks are still on their way to
//! the cache has to wait for them. A part is eight lines of every page, because memory likes to be
//! read in one place for a while; it has as many steps as there are pages, so that every step of
//! the chains turns the part of one page.

use core::arch::x86_64::__m128i;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zeroize::optimization_barrier;

use super::eight::Eight;
use super::zmm::sum;

/// Pages that are worked on at once, and steps to a part.
pub(super) const GROUP: usize = 32;

/// One block of four pages, side by side.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
struct Four([__m128i; 4]);

/// A part of every page: for each step, the block that each chain adds.
type Tile = [[Four; GROUP / 4]; GROUP];

const EMPTY: Tile = [[Four([zerocopy::transmute!([0_u8; 16]); 4]); GROUP / 4]; GROUP];

/// Two parts of every page: one that is being added to the chains, and the one after it.
pub(super) struct Turned([Tile; 2]);

impl Turned {
    /// Nothing yet.
    #[inline]
    pub(super) const fn new() -> Self {
        Self([EMPTY; 2])
    }

    /// Takes a part of one page.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    #[expect(clippy::indexing_slicing, reason = "masked to what there is")]
    pub(super) fn take(&mut self, part: usize, page: usize, lines: &Eight) {
        let (vector, lane) = ((page / 4) & 7, page & 3);
        let (steps, _) = self.0[part & 1].as_chunks_mut::<4>();
        for (steps, line) in steps.iter_mut().zip(lines) {
            let blocks: &[__m128i; 4] = zerocopy::transmute_ref!(line);
            for (step, block) in steps.iter_mut().zip(blocks) {
                step[vector].0[lane] = *block;
            }
        }
    }

    /// Adds one block to every chain; what is left of the step is to encrypt them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    #[expect(clippy::indexing_slicing, reason = "masked to what there is")]
    pub(super) fn add(&self, chains: Eight, part: usize, step: usize) -> Eight {
        let [a, b, c, d, e, f, g, h] = chains;
        let [i, j, k, l, m, n, o, p] = &self.0[part & 1][step & 31];
        let add = |chain, four: &Four| sum(chain, zerocopy::transmute!(*four));
        [add(a, i), add(b, j), add(c, k), add(d, l), add(e, m), add(f, n), add(g, o), add(h, p)]
    }

    /// Adds to the last block of each page what ends its chain.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn end(&mut self, ends: &Eight) {
        let [_, [.., last]] = &mut self.0;
        for (four, end) in last.iter_mut().zip(ends) {
            *four = zerocopy::transmute!(sum(zerocopy::transmute!(*four), *end));
        }
    }
}

impl Drop for Turned {
    fn drop(&mut self) {
        self.0 = [EMPTY; 2];
        optimization_barrier(&self.0);
    }
}
