//! The name of a state in 128 bits: what explorations remember of states they have seen.

use zerocopy::IntoBytes;

use crate::machine::KNOWN;
use crate::state::State;
use crate::world::World;

/// Two states with the same name are taken for one. With n states the odds that any two that
/// differ share a name are below n^2 / 2^129: 2^-80 for thirty million.
pub type Fingerprint = u128;

/// Two lanes of multiply and fold, a word of the state in each; not for enemies, only for states.
pub fn fingerprint(state: &State) -> Fingerprint {
    let (mut left, mut right) = (0x243f_6a88_85a3_08d3_u64, 0x1319_8a2e_0370_7344_u64);
    // Behind the seals are zeroes.
    let bytes = state.as_bytes();
    let used = bytes.len() - (KNOWN - usize::from(state.seals)) * size_of::<u32>();
    let (words, rest) = bytes[..used].as_chunks::<16>();
    for word in words {
        let word = u128::from_le_bytes(*word);
        let [low, high] = [word, word >> 64].map(|half| half as u64);
        left = fold(left ^ low, 0x9e37_79b9_7f4a_7c15 ^ high);
        right = fold(right ^ high, 0xd6e8_feb8_6659_fd93 ^ low.rotate_left(32));
    }
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    let last = u128::from_le_bytes(last);
    left = fold(left ^ last as u64, 0xa076_1d64_78bd_642f);
    right = fold(right ^ (last >> 64) as u64 ^ left, 0xe703_7ed1_a0b4_28db);
    u128::from(left) << 64 | u128::from(right)
}

const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    (product >> 64) as u64 ^ product as u64
}

impl World<'_> {
    /// The name of the state that the run is in.
    pub fn digest(&self) -> Fingerprint {
        fingerprint(&self.state_now())
    }
}
