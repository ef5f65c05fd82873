//! What the kernels at 512 bits do with lists: lanes from jobs, and CBC-MACs side by side.

use core::arch::x86_64::__m512i;

use super::zmm::{Keys, LINES, blocks, encrypt, repeat, sum};

/// AES of one block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn encrypt_one(keys: &Keys, block: [u8; 16]) -> [u8; 16] {
    let mut vector = [repeat(block)];
    encrypt(keys, &mut vector);
    let [vector] = vector;
    let [block, ..] = blocks(vector);
    block
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
    keys: &Keys,
    state: &mut [__m512i; G],
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
        for (state, block) in state.iter_mut().zip(row) {
            *state = sum(*state, *block);
        }
        encrypt(keys, state);
    }
}
