//! CBC-MACs at 512 bits: the key that they go under, lanes from jobs, and chains of few pages.

use core::arch::x86_64::__m512i;

use super::Vaes512;
use super::eight::{self, Eight};
use super::zmm::{Keys, LINES, blocks, encrypt, repeat, rounds, sum};

/// AES of one block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn encrypt_one(keys: &Keys, block: [u8; 16]) -> [u8; 16] {
    let mut vector = [repeat(block)];
    encrypt(keys, &mut vector);
    let [vector] = vector;
    let [block, ..] = blocks(vector);
    block
}

/// The round keys of chains that are kept whitened. AES begins by adding its first key, and a chain
/// adds a block before that. So the first key is in the chain from its start, the last round adds
/// it once more, and a step is one sum less.
pub(super) struct ChainKeys(Keys);

impl ChainKeys {
    /// For the machine that the proof is about.
    pub(super) fn new(_: Vaes512, mut keys: Keys) -> Self {
        let Keys([first, .., last]) = &mut keys;
        // SAFETY: the machine has what this is compiled for: the caller holds the proof.
        *last = unsafe { sum(*last, *first) };
        Self(keys)
    }

    /// For the rounds of every chain: the last key is not AES's own.
    #[inline]
    pub(super) const fn rounds(&self) -> &Keys {
        &self.0
    }

    /// What a chain starts as.
    #[inline]
    pub(super) const fn start(&self) -> __m512i {
        let Keys([first, ..]) = self.0;
        first
    }

    /// What CBC-MAC has after the same steps.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn plain<const G: usize>(&self, mut chains: [__m512i; G]) -> [__m512i; G] {
        for chain in &mut chains {
            *chain = sum(*chain, self.start());
        }
        chains
    }

    /// The chains after a block was added to each: what is left of a step.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn step(&self, chains: Eight) -> Eight {
        eight::rounds(&self.0, chains)
    }

    /// The same for any number of chains.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    pub(super) fn step_few<const G: usize>(&self, chains: &mut [__m512i; G]) {
        rounds(&self.0, chains);
    }
}

/// What every lane has, four to a vector.
pub(super) fn lanes<T, const G: usize>(mut of: impl FnMut(usize) -> T) -> [[T; 4]; G] {
    core::array::from_fn(|vector| {
        core::array::from_fn(|lane| of(vector.wrapping_mul(4).wrapping_add(lane)))
    })
}

/// Four blocks of every lane, in the order in which the chains take them.
pub(super) type Tile<const G: usize> = [[__m512i; G]; 4];

/// Four steps of every chain; the last block of a page meets its end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn absorb<const G: usize>(
    keys: &ChainKeys,
    chains: &mut [__m512i; G],
    tile: &mut Tile<G>,
    ends: &[__m512i; G],
    line: usize,
) {
    if line == LINES - 1 {
        let [.., last] = tile;
        for (block, end) in last.iter_mut().zip(ends) {
            *block = sum(*block, *end);
        }
    }
    for row in tile {
        for (chain, block) in chains.iter_mut().zip(row) {
            *chain = sum(*chain, *block);
        }
        keys.step_few(chains);
    }
}
