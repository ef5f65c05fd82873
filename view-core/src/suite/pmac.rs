//! PMAC-SIV over pages without a line that depends on the machine.
//!
//! The blocks of one page go side by side, as many as the cipher's own backend has room for; only
//! associated data and the ends of pages are taken from several pages at once. This is what runs
//! where no kernel of ours fits, and what every kernel is held against.

use aes::Aes256Enc;
use cipher::array::Array;
use cipher::consts::U16;
use cipher::typenum::Unsigned;
use cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
    ParBlocks,
};
use zeroize::Zeroize;

use super::lanes::{Blocks, Ctr, LANES, Lane, add, step, wipe};
use super::pmac_siv_512::{PmacSiv512, Subkeys};
use super::{OpenJob, SealJob};
use crate::key::SivKey;
use crate::page::Page;

/// The key, expanded.
pub(super) struct Portable {
    mac: Aes256Enc,
    ctr: Aes256Enc,
    subkeys: Subkeys,
}

impl Portable {
    pub(super) fn new(key: &SivKey) -> Self {
        let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key.expose());
        let (mac, ctr) = (Aes256Enc::new(mac.into()), Aes256Enc::new(ctr.into()));
        let subkeys = Subkeys::new(|block| {
            let mut block = Array(block);
            mac.encrypt_block(&mut block);
            block.0
        });
        Self { mac, ctr, subkeys }
    }

    pub(super) fn seal(&self, jobs: &mut [SealJob<'_>]) {
        for jobs in jobs.chunks_mut(LANES) {
            self.mac.encrypt_with_backend(S2v { subkeys: &self.subkeys, jobs });
            self.ctr.encrypt_with_backend(Ctr::<PmacSiv512, _>::new(jobs));
        }
    }

    pub(super) fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for jobs in jobs.chunks_mut(LANES) {
            self.ctr.encrypt_with_backend(Ctr::<PmacSiv512, _>::new(jobs));
            self.mac.encrypt_with_backend(S2v { subkeys: &self.subkeys, jobs });
        }
    }
}

impl Drop for Portable {
    fn drop(&mut self) {
        self.subkeys.zeroize(); // the ciphers wipe themselves
    }
}

/// The tag of every job: S2V with PMAC.
struct S2v<'a, J> {
    subkeys: &'a Subkeys,
    jobs: &'a mut [J],
}

impl<J> BlockSizeUser for S2v<'_, J> {
    type BlockSize = U16;
}

impl<J: Lane<PmacSiv512>> BlockCipherEncClosure for S2v<'_, J> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        for jobs in self.jobs.chunks_mut(B::ParBlocksSize::USIZE) {
            let few = jobs.len();
            let mut state = associated(backend, self.subkeys, jobs);
            let mut sums = ParBlocks::<B>::default();
            for (sum, job) in sums.iter_mut().zip(&*jobs) {
                sum.0 = sigma(backend, self.subkeys, job.authenticated()).to_ne_bytes();
            }
            add::<B, false>(&mut state, &sums, few);
            step::<B, false>(backend, &mut state, few);
            for (tag, job) in state.iter().zip(jobs) {
                job.settle(tag.0);
            }
            wipe::<B>(&mut sums);
        }
    }
}

/// What each lane adds to the sum of its page: the PMAC of its associated data, what S2V adds to
/// that, and what PMAC adds to a last block that is whole (RFC 5297, section 2.4).
#[inline(always)]
fn associated<J: Lane<PmacSiv512>, B: BlockCipherEncBackend<BlockSize = U16>>(
    backend: &B,
    subkeys: &Subkeys,
    jobs: &[J],
) -> ParBlocks<B> {
    let few = jobs.len();
    let (mut state, mut other) = (ParBlocks::<B>::default(), ParBlocks::<B>::default());
    for ((state, other), job) in state.iter_mut().zip(&mut other).zip(jobs) {
        let halves: [[u8; 16]; 2] = zerocopy::transmute!(job.associated_data());
        [state.0, other.0] = halves;
    }
    let mut same = ParBlocks::<B>::default();
    same.fill(Array(subkeys.offset(1)));
    add::<B, false>(&mut state, &same, few);
    step::<B, false>(backend, &mut state, few);
    add::<B, false>(&mut state, &other, few);
    same.fill(Array(subkeys.inverse));
    add::<B, false>(&mut state, &same, few);
    step::<B, false>(backend, &mut state, few);
    add::<B, false>(&mut state, &same, few);
    same.fill(Array(subkeys.start));
    add::<B, false>(&mut state, &same, few);
    wipe::<B>(&mut same);
    state
}

/// The sum of a page's blocks, each but the last with its offset and enciphered.
#[inline(always)]
fn sigma<B: BlockCipherEncBackend<BlockSize = U16>>(
    backend: &B,
    subkeys: &Subkeys,
    page: &Page,
) -> u128 {
    let [blocks @ .., last]: &Blocks = zerocopy::transmute_ref!(page);
    let (mut sum, mut offset, mut number) = (*last, 0, 1_u32);
    let mut tile = ParBlocks::<B>::default();
    for some in blocks.chunks(B::ParBlocksSize::USIZE) {
        for (to, from) in tile.iter_mut().zip(some) {
            // Two neighbours in Gray code differ in the bit that counting carries into.
            let power = usize::try_from(number.trailing_zeros()).unwrap_or_default();
            offset ^= subkeys.powers.get(power).copied().map_or(0, u128::from_ne_bytes);
            number = number.wrapping_add(1);
            to.0 = (from ^ offset).to_ne_bytes();
        }
        backend.encrypt_par_blocks_inplace(&mut tile);
        sum = tile.iter().take(some.len()).fold(sum, |sum, it| sum ^ u128::from_ne_bytes(it.0));
    }
    wipe::<B>(&mut tile);
    sum
}
