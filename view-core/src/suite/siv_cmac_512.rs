//! The default page suite: SIV of RFC 5297 with AES-256 over whole pages, many at once.
//!
//! Bit for bit [`Siv512`](super::siv::Siv512) with one string of associated data, the page's own 32 bytes.
//! A CBC-MAC waits for itself from block to block, so the pages of a list are the lanes: one block
//! of every page per step. No page waits for another's tag, and none learns of another.

use core::fmt;

use aes::Aes256Enc;
use cipher::array::Array;
use cipher::consts::U16;
use cipher::typenum::Unsigned;
use cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
    ParBlocks,
};
use subtle::ConstantTimeEq;
use zerocopy::big_endian::U32;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::siv::{counter, dbl};
use super::{OpenJob, PageCipher, SealJob, SuiteId, Tag};
use crate::key::SivKey;
use crate::page::{PAGE_SIZE, Page};

/// AES blocks in a page.
const BLOCKS: usize = PAGE_SIZE / 16;

/// The block that "xorend" and the last subkey of CMAC meet.
const LAST: usize = BLOCKS - 1;

/// A page as its blocks. They are only ever added to one another, so the machine's own byte order
/// will do.
type Blocks = [u128; BLOCKS];

/// SIV-CMAC-512 with its key. Suite 1.
pub struct SivCmac512 {
    mac: Aes256Enc,
    ctr: Aes256Enc,
    subkeys: Subkeys,
}

/// What CMAC and S2V derive from the key once: as secret as the key.
#[derive(Clone, Copy, Zeroize)]
struct Subkeys {
    /// K1 of SP 800-38B, section 6.1: masks a last block that is whole. Every one of ours is.
    k1: u128,
    /// What S2V adds to the CMAC of the one string: `dbl(CMAC(0))` (RFC 5297, section 2.4).
    start: u128,
}

impl SivCmac512 {
    /// The suite under this key: its first 32 bytes authenticate, its last encrypt.
    pub fn new(key: &SivKey) -> Self {
        let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key.expose());
        let (mac, ctr) = (Aes256Enc::new(&Array(*mac)), Aes256Enc::new(&Array(*ctr)));
        let encrypt = |block: u128| {
            let mut block = Array(block.to_be_bytes());
            mac.encrypt_block(&mut block);
            u128::from_be_bytes(block.0)
        };
        let k1 = dbl(encrypt(0));
        let start = dbl(encrypt(k1));
        // In the machine's own byte order, as the blocks of a page.
        let subkeys = Subkeys { k1: k1.to_be(), start: start.to_be() };
        Self { mac, ctr, subkeys }
    }
}

impl PageCipher for SivCmac512 {
    const SUITE: SuiteId = SuiteId(1);
    const LANES: usize = 64;

    fn seal(&self, jobs: &mut [SealJob<'_>]) {
        for jobs in jobs.chunks_mut(Self::LANES) {
            self.mac.encrypt_with_backend(S2v { subkeys: self.subkeys, jobs });
            self.ctr.encrypt_with_backend(Ctr { jobs });
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for jobs in jobs.chunks_mut(Self::LANES) {
            self.ctr.encrypt_with_backend(Ctr { jobs });
            self.mac.encrypt_with_backend(S2v { subkeys: self.subkeys, jobs });
        }
    }
}

impl fmt::Debug for SivCmac512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SivCmac512(..)")
    }
}

impl Drop for SivCmac512 {
    fn drop(&mut self) {
        self.subkeys.zeroize(); // the ciphers wipe themselves
    }
}

impl ZeroizeOnDrop for SivCmac512 {}

/// A page on its way through the suite.
trait Lane {
    /// What is authenticated beside the bytes.
    fn associated_data(&self) -> [u8; 32];
    /// The plain bytes, from which the tag is computed.
    fn plain(&self) -> &Page;
    /// Takes the computed tag.
    fn settle(&mut self, tag: Tag);
    /// The tag that numbers the blocks, what CTR reads, and where it writes.
    fn stream(&mut self) -> (&Tag, &Page, &mut Page);
}

impl Lane for SealJob<'_> {
    fn associated_data(&self) -> [u8; 32] {
        self.id.associated_data(SivCmac512::SUITE)
    }

    fn plain(&self) -> &Page {
        self.plain
    }

    fn settle(&mut self, tag: Tag) {
        self.tag = tag;
    }

    fn stream(&mut self) -> (&Tag, &Page, &mut Page) {
        (&self.tag, self.plain, self.sealed)
    }
}

impl Lane for OpenJob<'_> {
    fn associated_data(&self) -> [u8; 32] {
        self.id.associated_data(SivCmac512::SUITE)
    }

    fn plain(&self) -> &Page {
        self.plain
    }

    fn settle(&mut self, tag: Tag) {
        self.genuine = tag.ct_eq(&self.tag).into();
        if !self.genuine {
            self.plain.zeroize();
        }
    }

    fn stream(&mut self) -> (&Tag, &Page, &mut Page) {
        (&self.tag, self.sealed, self.plain)
    }
}

/// S2V of every job, one block of each per step.
struct S2v<'a, J> {
    subkeys: Subkeys,
    jobs: &'a mut [J],
}

impl<J> BlockSizeUser for S2v<'_, J> {
    type BlockSize = U16;
}

impl<J: Lane> BlockCipherEncClosure for S2v<'_, J> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        for jobs in self.jobs.chunks_mut(B::ParBlocksSize::USIZE) {
            // A full-width step takes about as long as a quarter of its blocks do one by one.
            if jobs.len() > B::ParBlocksSize::USIZE / 4 {
                s2v::<J, B, true>(backend, self.subkeys, jobs);
            } else {
                s2v::<J, B, false>(backend, self.subkeys, jobs);
            }
        }
    }
}

/// S2V of as many jobs as a step has lanes, or fewer (RFC 5297, section 2.4).
#[inline(always)]
fn s2v<J: Lane, B: BlockCipherEncBackend<BlockSize = U16>, const WIDE: bool>(
    backend: &B,
    subkeys: Subkeys,
    jobs: &mut [J],
) {
    let Subkeys { k1, start } = subkeys;
    let mut state = ParBlocks::<B>::default();
    for (block, job) in state.iter_mut().zip(jobs.iter()) {
        let [first, _]: [u128; 2] = zerocopy::transmute!(job.associated_data());
        add(block, first);
    }
    step::<B, WIDE>(backend, &mut state, jobs.len());
    for (block, job) in state.iter_mut().zip(jobs.iter()) {
        let [_, last]: [u128; 2] = zerocopy::transmute!(job.associated_data());
        add(block, last ^ k1);
    }
    step::<B, WIDE>(backend, &mut state, jobs.len());
    // What "xorend" and CMAC add to the last block of the page.
    let mut ends = core::mem::take(&mut state);
    for end in &mut ends {
        add(end, start ^ k1);
    }
    for at in 0..BLOCKS {
        for (block, job) in state.iter_mut().zip(jobs.iter()) {
            let page: &Blocks = zerocopy::transmute_ref!(job.plain());
            if let Some(plain) = page.get(at) {
                add(block, *plain);
            }
        }
        if at == LAST {
            for (block, end) in state.iter_mut().zip(&ends) {
                add(block, u128::from_ne_bytes(end.0));
            }
        }
        step::<B, WIDE>(backend, &mut state, jobs.len());
    }
    for (block, job) in state.iter().zip(jobs) {
        job.settle(block.0);
    }
}

/// One AES call for every lane, or for the first `few` of them.
#[inline(always)]
fn step<B: BlockCipherEncBackend<BlockSize = U16>, const WIDE: bool>(
    backend: &B,
    state: &mut ParBlocks<B>,
    few: usize,
) {
    if WIDE {
        backend.encrypt_par_blocks_inplace(state);
    } else {
        for block in state.iter_mut().take(few) {
            backend.encrypt_block_inplace(block);
        }
    }
}

/// Addition in GF(2^128), in the machine's own byte order.
#[inline(always)]
fn add(block: &mut Array<u8, U16>, other: u128) {
    block.0 = (u128::from_ne_bytes(block.0) ^ other).to_ne_bytes();
}

/// CTR of every job, page by page: its blocks are independent (RFC 5297, section 2.5).
struct Ctr<'a, J> {
    jobs: &'a mut [J],
}

impl<J> BlockSizeUser for Ctr<'_, J> {
    type BlockSize = U16;
}

impl<J: Lane> BlockCipherEncClosure for Ctr<'_, J> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut blocks = ParBlocks::<B>::default();
        for job in self.jobs {
            let (tag, from, to) = job.stream();
            let (from, to): (&Blocks, &mut Blocks) =
                (zerocopy::transmute_ref!(from), zerocopy::transmute_mut!(to));
            let iv = counter(tag).to_be_bytes();
            let ([a, b, c, _], [.., low]): ([u32; 4], [U32; 4]) =
                (zerocopy::transmute!(iv), zerocopy::transmute!(iv));
            let mut low = low.get(); // 31 bits, so the page's 256 blocks never carry out of it
            let (from, to) =
                (from.chunks(B::ParBlocksSize::USIZE), to.chunks_mut(B::ParBlocksSize::USIZE));
            for (from, to) in from.zip(to) {
                for block in &mut blocks {
                    block.0 = zerocopy::transmute!([a, b, c, low.to_be()]);
                    low = low.wrapping_add(1);
                }
                backend.encrypt_par_blocks_inplace(&mut blocks);
                for ((to, from), key) in to.iter_mut().zip(from).zip(&blocks) {
                    *to = from ^ u128::from_ne_bytes(key.0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::marker::PhantomData;
    use std::vec::Vec;

    use cipher::array::ArraySize;
    use cipher::consts::{U1, U8, U30, U64};
    use cipher::{InOut, ParBlocksSizeUser};

    use super::*;
    use crate::suite::{PageId, Stream};
    use crate::{Epoch, Gfn, MaskId, PageKind, Perm, Version};

    /// A machine that does `W` blocks at a time. The one that runs this has one width only.
    struct Machine<'a, W>(&'a Aes256Enc, PhantomData<W>);

    impl<W> BlockSizeUser for Machine<'_, W> {
        type BlockSize = U16;
    }

    impl<W: ArraySize> ParBlocksSizeUser for Machine<'_, W> {
        type ParBlocksSize = W;
    }

    impl<W: ArraySize> BlockCipherEncBackend for Machine<'_, W> {
        fn encrypt_block(&self, block: InOut<'_, '_, Array<u8, U16>>) {
            self.0.encrypt_block_inout(block);
        }
    }

    const ID: PageId = PageId {
        gfn: Gfn::MAX,
        version: Version::ZERO,
        epoch: Epoch(3),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream: Stream::View,
        excluded: false,
    };

    /// Seals and opens pages at width `W`; whether it comes to what this machine does.
    fn agrees<W: ArraySize>(pages: u8) -> bool {
        let suite = SivCmac512::new(&SivKey::new([0x3c; 64]));
        let (mac, ctr) = (Machine::<W>(&suite.mac, PhantomData), Machine(&suite.ctr, PhantomData));
        let plain: Vec<_> = (0..pages).map(page).collect();
        let mut sealed = plain.clone();
        let mut jobs: Vec<_> = plain
            .iter()
            .zip(&mut sealed)
            .map(|(plain, sealed)| SealJob { id: ID, plain, sealed, tag: [0; 16] })
            .collect();
        S2v { subkeys: suite.subkeys, jobs: &mut jobs }.call(&mac);
        Ctr { jobs: &mut jobs }.call::<Machine<'_, W>>(&ctr);
        let tags: Vec<_> = jobs.iter().map(|job| job.tag).collect();
        let mut opened = sealed.clone();
        let mut jobs: Vec<_> = sealed
            .iter()
            .zip(&mut opened)
            .zip(tags)
            .map(|((sealed, plain), tag)| OpenJob { id: ID, sealed, tag, plain, genuine: false })
            .collect();
        suite.open(&mut jobs);
        let genuine = jobs.iter().all(|job| job.genuine);
        genuine && plain.iter().zip(&opened).all(|(a, b)| a.bytes() == b.bytes())
    }

    fn page(fill: u8) -> Page {
        let mut page = Page::zeroed();
        page.bytes_mut().fill(fill);
        page
    }

    #[test]
    fn every_width_of_machine_seals_alike() {
        for pages in [0, 1, 2, 7, 8, 9, 16, 17, 30, 31, 64, 70] {
            assert!(agrees::<U1>(pages), "one block at a time, {pages} pages");
            assert!(agrees::<U8>(pages), "8 blocks, {pages} pages");
            assert!(agrees::<U30>(pages), "30 blocks, {pages} pages");
            assert!(agrees::<U64>(pages), "64 blocks, {pages} pages");
        }
    }
}
