//! Pages as lanes: suites of CTR and CMAC over lists, without a line that depends on the machine.
//!
//! A CBC-MAC waits for itself from block to block, so the pages of a list are the lanes: one block
//! of every page per step, as many steps side by side as the cipher's own backend has room for.
//! This is what runs where no kernel of ours fits, and what every kernel is held against.

use core::borrow::Borrow;
use core::marker::PhantomData;

use aes::Aes256Enc;
use cipher::array::Array;
use cipher::consts::U16;
use cipher::typenum::Unsigned;
use cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
    ParBlocks,
};
use zerocopy::big_endian::U32;
use zeroize::{Zeroize, optimization_barrier};

use super::siv::counter;
use super::siv_cmac_512::{SivCmac512, Subkeys};
use super::{OpenJob, PageCipher, PageId, SealJob, Tag};
use crate::key::SivKey;
use crate::page::{PAGE_SIZE, Page};

/// AES blocks in a page.
pub(super) const BLOCKS: usize = PAGE_SIZE / 16;

/// A page as its blocks, in the machine's own byte order: they are only ever added to each other.
pub(super) type Blocks = [u128; BLOCKS];

/// A page as cache lines of four blocks.
type Lines = [[u128; 4]; BLOCKS / 4];

/// The line whose last block "xorend" and the subkey of CMAC meet.
const LAST: usize = BLOCKS / 4 - 1;

/// Pages to a step, at most: as wide as the widest backend of the cipher.
pub(super) const LANES: usize = 64;

/// How a suite puts a MAC and CTR together.
pub(super) trait Mode: PageCipher + Sized {
    /// Whether the tag is that of the plain bytes, and CTR counts from it (SIV). Else it is that of
    /// the sealed bytes, and CTR counts from what is used once.
    const SYNTHETIC: bool;

    /// The first counter block; the last word of it counts on through the page without a carry.
    fn counter(id: &PageId, tag: &Tag) -> [u8; 16];
}

impl Mode for SivCmac512 {
    const SYNTHETIC: bool = true;

    fn counter(_: &PageId, tag: &Tag) -> [u8; 16] {
        counter(tag).to_be_bytes()
    }
}

/// The key of a suite with CMAC, expanded.
pub(super) struct Portable<S = SivCmac512> {
    mac: Aes256Enc,
    ctr: Aes256Enc,
    subkeys: Subkeys,
    suite: PhantomData<S>,
}

impl<S: Mode> Portable<S> {
    pub(super) fn new(key: &SivKey) -> Self {
        let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key.expose());
        let (mac, ctr) = (Aes256Enc::new(mac.into()), Aes256Enc::new(ctr.into()));
        let subkeys = Subkeys::new(|block| {
            let mut block = Array(block);
            mac.encrypt_block(&mut block);
            block.0
        });
        Self { mac, ctr, subkeys, suite: PhantomData }
    }

    pub(super) fn seal(&self, jobs: &mut [SealJob<'_, S::Id>]) {
        for jobs in jobs.chunks_mut(LANES) {
            if S::SYNTHETIC {
                self.authenticate(jobs);
                self.ctr.encrypt_with_backend(Ctr::<S, _>::new(jobs));
            } else {
                self.ctr.encrypt_with_backend(Ctr::<S, _>::new(jobs));
                self.authenticate(jobs);
            }
        }
    }

    pub(super) fn open(&self, jobs: &mut [OpenJob<'_>]) {
        for jobs in jobs.chunks_mut(LANES) {
            self.ctr.encrypt_with_backend(Ctr::<S, _>::new(jobs));
            self.authenticate(jobs);
        }
    }

    /// The tag of every job, and with that its verdict: the last thing that is done to a page.
    fn authenticate<J: Lane<S>>(&self, jobs: &mut [J]) {
        self.mac.encrypt_with_backend(Cmac {
            subkeys: self.subkeys,
            jobs,
            suite: PhantomData::<S>,
        });
    }
}

impl<S> Drop for Portable<S> {
    fn drop(&mut self) {
        self.subkeys.zeroize(); // the ciphers wipe themselves
    }
}

/// A page on its way through a suite.
pub(super) trait Lane<S> {
    /// What is authenticated beside the bytes.
    fn associated_data(&self) -> [u8; 32];
    /// The bytes from which the tag is computed.
    fn authenticated(&self) -> &Page;
    /// Takes the computed tag.
    fn settle(&mut self, tag: Tag);
    /// The first counter block, what CTR reads, and where it writes.
    fn stream(&mut self) -> ([u8; 16], &Page, &mut Page);
}

impl<S: Mode, Id: Borrow<PageId>> Lane<S> for SealJob<'_, Id> {
    fn associated_data(&self) -> [u8; 32] {
        self.id().associated_data(S::SUITE)
    }

    fn authenticated(&self) -> &Page {
        if S::SYNTHETIC { self.plain() } else { self.sealed() }
    }

    fn settle(&mut self, tag: Tag) {
        self.settle(tag);
    }

    fn stream(&mut self) -> ([u8; 16], &Page, &mut Page) {
        let counter = S::counter(self.id(), &self.tag());
        let (plain, sealed) = self.pages();
        (counter, plain, sealed)
    }
}

impl<S: Mode> Lane<S> for OpenJob<'_> {
    fn associated_data(&self) -> [u8; 32] {
        self.id().associated_data(S::SUITE)
    }

    fn authenticated(&self) -> &Page {
        if S::SYNTHETIC { self.plain() } else { self.sealed() }
    }

    fn settle(&mut self, tag: Tag) {
        self.settle(&tag);
    }

    fn stream(&mut self) -> ([u8; 16], &Page, &mut Page) {
        let counter = S::counter(self.id(), self.tag());
        let (sealed, plain) = self.pages();
        (counter, sealed, plain)
    }
}

/// The tag of every job, one block of each per step.
struct Cmac<'a, S, J> {
    subkeys: Subkeys,
    jobs: &'a mut [J],
    suite: PhantomData<S>,
}

impl<S, J> BlockSizeUser for Cmac<'_, S, J> {
    type BlockSize = U16;
}

impl<S: Mode, J: Lane<S>> BlockCipherEncClosure for Cmac<'_, S, J> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let width = B::ParBlocksSize::USIZE;
        for jobs in self.jobs.chunks_mut(width) {
            // Measured: a step of all lanes takes as long as three eighths of them one by one.
            if jobs.len().saturating_mul(8) > width.saturating_mul(3) {
                cmac::<S, J, B, true>(backend, self.subkeys, jobs);
            } else {
                cmac::<S, J, B, false>(backend, self.subkeys, jobs);
            }
        }
    }
}

/// The tags of as many jobs as a step has lanes, or fewer: S2V (RFC 5297, section 2.4), or CMAC of
/// the associated data and the page as one string.
#[inline(always)]
fn cmac<S: Mode, J: Lane<S>, B: BlockCipherEncBackend<BlockSize = U16>, const WIDE: bool>(
    backend: &B,
    subkeys: Subkeys,
    jobs: &mut [J],
) {
    let lanes = jobs.len();
    let (mut state, mut ends) = associated::<S, J, B, WIDE>(backend, subkeys, jobs);
    let mut tile = <[ParBlocks<B>; 4]>::default();
    for line in 0..=LAST {
        gather::<S, J, B>(line, jobs, &mut tile);
        if line == LAST {
            let [.., last] = &mut tile;
            add::<B, WIDE>(last, &ends, lanes);
        }
        for blocks in &tile {
            add::<B, WIDE>(&mut state, blocks, lanes);
            step::<B, WIDE>(backend, &mut state, lanes);
        }
    }
    for (tag, job) in state.iter().zip(jobs) {
        job.settle(tag.0);
    }
    wipe::<B>(&mut ends);
    for blocks in &mut tile {
        wipe::<B>(blocks);
    }
}

/// With what each lane begins its page, and what it adds to the last block. SIV begins with zeroes
/// and ends with the CMAC of the associated data and what S2V and CMAC add to everyone's; else the
/// associated data comes first, and only CMAC adds to the end.
#[inline(always)]
fn associated<S: Mode, J: Lane<S>, B: BlockCipherEncBackend<BlockSize = U16>, const WIDE: bool>(
    backend: &B,
    Subkeys { k1, start }: Subkeys,
    jobs: &[J],
) -> (ParBlocks<B>, ParBlocks<B>) {
    let (mut state, mut last) = (ParBlocks::<B>::default(), ParBlocks::<B>::default());
    for ((state, last), job) in state.iter_mut().zip(&mut last).zip(jobs) {
        let halves: [[u8; 16]; 2] = zerocopy::transmute!(job.associated_data());
        [state.0, last.0] = halves;
    }
    step::<B, WIDE>(backend, &mut state, jobs.len());
    add::<B, WIDE>(&mut state, &last, jobs.len());
    last.fill(Array(k1));
    if !S::SYNTHETIC {
        step::<B, WIDE>(backend, &mut state, jobs.len());
        return (state, last);
    }
    add::<B, WIDE>(&mut state, &last, jobs.len());
    step::<B, WIDE>(backend, &mut state, jobs.len());
    add::<B, WIDE>(&mut state, &last, jobs.len());
    last.fill(Array(start));
    add::<B, WIDE>(&mut state, &last, jobs.len());
    wipe::<B>(&mut last);
    (last, state)
}

/// Reads one line of every page, each line once: pages lie a page apart and share few cache sets,
/// so the line would be gone before its next block's turn.
#[inline(always)]
fn gather<S: Mode, J: Lane<S>, B: BlockCipherEncBackend<BlockSize = U16>>(
    line: usize,
    jobs: &[J],
    tile: &mut [ParBlocks<B>; 4],
) {
    let [a, b, c, d] = tile;
    for ((((a, b), c), d), job) in a.iter_mut().zip(b).zip(c).zip(d).zip(jobs) {
        let page: &Lines = zerocopy::transmute_ref!(job.authenticated());
        if let Some(blocks) = page.get(line) {
            [a.0, b.0, c.0, d.0] = blocks.map(u128::to_ne_bytes);
        }
    }
}

/// Adds lane to lane in GF(2^128): all of them, or the first `few`.
#[inline(always)]
pub(super) fn add<B: BlockCipherEncBackend<BlockSize = U16>, const WIDE: bool>(
    to: &mut ParBlocks<B>,
    from: &ParBlocks<B>,
    few: usize,
) {
    for (to, from) in to.iter_mut().zip(from).take(if WIDE { usize::MAX } else { few }) {
        to.0 = (u128::from_ne_bytes(to.0) ^ u128::from_ne_bytes(from.0)).to_ne_bytes();
    }
}

/// Encrypts every lane: all at once, or the first `few` one by one.
#[inline(always)]
pub(super) fn step<B: BlockCipherEncBackend<BlockSize = U16>, const WIDE: bool>(
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

/// Leaves zeroes on the stack, at full width: byte by byte it would cost a lone page a tenth more.
#[inline(always)]
pub(super) fn wipe<B: BlockCipherEncBackend<BlockSize = U16>>(blocks: &mut ParBlocks<B>) {
    *blocks = ParBlocks::<B>::default();
    optimization_barrier(blocks);
}

/// CTR of every job, page by page: its blocks are independent (RFC 5297, section 2.5).
pub(super) struct Ctr<'a, S, J> {
    jobs: &'a mut [J],
    suite: PhantomData<S>,
}

impl<'a, S, J> Ctr<'a, S, J> {
    pub(super) const fn new(jobs: &'a mut [J]) -> Self {
        Self { jobs, suite: PhantomData }
    }
}

impl<S, J> BlockSizeUser for Ctr<'_, S, J> {
    type BlockSize = U16;
}

impl<S: Mode, J: Lane<S>> BlockCipherEncClosure for Ctr<'_, S, J> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let width = B::ParBlocksSize::USIZE;
        let (mut steps, mut blocks) = (ParBlocks::<B>::default(), ParBlocks::<B>::default());
        for (step, number) in steps.iter_mut().zip(0..=255_u32) {
            step.0 = zerocopy::transmute!([0, 0, 0, number]);
        }
        for job in self.jobs {
            let (counter, from, to) = job.stream();
            let from: &Blocks = zerocopy::transmute_ref!(from);
            let to: &mut Blocks = zerocopy::transmute_mut!(to);
            let words: [U32; 4] = zerocopy::transmute!(counter);
            let mut next = words.map(U32::get);
            for (from, to) in from.chunks(width).zip(to.chunks_mut(width)) {
                for (block, step) in blocks.iter_mut().zip(&steps) {
                    block.0 = sum(next, zerocopy::transmute!(step.0));
                }
                backend.encrypt_par_blocks_inplace(&mut blocks);
                for ((to, from), key) in to.iter_mut().zip(from).zip(&blocks) {
                    *to = from ^ u128::from_ne_bytes(key.0);
                }
                let [.., low] = &mut next;
                *low = low.wrapping_add(B::ParBlocksSize::U32);
            }
        }
        wipe::<B>(&mut blocks);
    }
}

/// A counter and how far on, as a block. Only the last word counts: a tag leaves it 31 bits, and
/// what is used once begins at zero, so the 256 blocks of a page never carry. All four words go one
/// way because vectors do.
#[inline(always)]
fn sum([a, b, c, d]: [u32; 4], [e, f, g, h]: [u32; 4]) -> [u8; 16] {
    let words = [(a, e), (b, f), (c, g), (d, h)].map(|(a, b)| a.wrapping_add(b).to_be());
    zerocopy::transmute!(words)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use cipher::array::ArraySize;
    use cipher::consts::{U1, U8, U30, U64};
    use cipher::{InOut, ParBlocksSizeUser};

    use super::*;
    use crate::suite::Stream;
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
        let suite = Portable::<SivCmac512>::new(&SivKey::new([0x3c; 64]));
        let (mac, ctr) = (Machine::<W>(&suite.mac, PhantomData), Machine(&suite.ctr, PhantomData));
        let plain: Vec<_> = (0..pages).map(page).collect();
        let mut sealed = plain.clone();
        let mut jobs: Vec<_> = plain
            .iter()
            .zip(&mut sealed)
            .map(|(plain, sealed)| SealJob::new(ID, plain, sealed))
            .collect();
        let lanes = PhantomData::<SivCmac512>;
        Cmac { subkeys: suite.subkeys, jobs: &mut jobs, suite: lanes }.call(&mac);
        Ctr::<SivCmac512, _>::new(&mut jobs).call::<Machine<'_, W>>(&ctr);
        let tags: Vec<_> = jobs.iter().map(SealJob::tag).collect();
        let mut opened = sealed.clone();
        let mut jobs: Vec<_> = sealed
            .iter()
            .zip(&mut opened)
            .zip(tags)
            .map(|((sealed, plain), tag)| OpenJob::new(ID, sealed, tag, plain))
            .collect();
        suite.open(&mut jobs);
        let genuine = jobs.iter().all(OpenJob::genuine);
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
