//! SIV-CMAC-512 with VAES at 512 bits: thirty-two pages are worked on at once.
//!
//! Sealing is two passes, and the second needs the tag that the first ends with. So the tags of one
//! group and the bytes of the group before it go side by side, and each fills the waits of the
//! other. Opening is one pass: the chains follow a part behind what is decrypted.

use core::arch::x86_64::{__m512i, _mm_sfence};

use heapless::Vec;
use zeroize::optimization_barrier;

use super::Vaes512;
use super::behind::{self, ask_for};
use super::chains::{ChainKeys, absorb, encrypt_one, lanes};
use super::eight::{Eight, PARTS, Parts, parts, parts_mut};
use super::stream::{Counter, StreamKeys};
use super::turned::{GROUP, Turned};
use super::zmm::{self, Keys, LINES, Lines, blocks, lines, put, repeat, sum, zero};
use crate::key::SivKey;
use crate::page::Page;
use crate::suite::siv::counter;
use crate::suite::siv_cmac_512::{SivCmac512, Subkeys};
use crate::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Tag};

/// The key, expanded for this kernel. It exists only where the machine can run it.
pub(in crate::suite) struct Kernel {
    chain: ChainKeys,
    ctr: StreamKeys,
    subkeys: Subkeys,
}

impl Kernel {
    pub(in crate::suite) fn new(proof: Vaes512, key: &SivKey) -> Self {
        let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key.expose());
        let (mac, ctr) = (Keys::new(proof, mac), StreamKeys::new(proof, ctr));
        // SAFETY: the proof says that the machine has what this is compiled for.
        let subkeys = Subkeys::new(|block| unsafe { encrypt_one(&mac, block) });
        Self { chain: ChainKeys::new(proof, mac), ctr, subkeys }
    }

    pub(in crate::suite) fn seal(&self, jobs: &mut [SealJob<'_>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { seal::<false>(self, jobs) },
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Cold => unsafe { seal::<true>(self, jobs) },
        }
    }

    pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { open::<false>(self, jobs) },
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Cold => unsafe { open::<true>(self, jobs) },
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal<const COLD: bool>(kernel: &Kernel, jobs: &mut [SealJob<'_>]) {
    if jobs.len() <= FEW {
        return seal_few::<COLD>(kernel, jobs);
    }
    let mut groups = jobs.chunks_mut(GROUP);
    let Some(mut tagged) = groups.next() else {
        return;
    };
    let (mut turned, mut turn) = (Turned::new(), groups.next());
    authenticate(kernel, tagged, turn.as_deref().unwrap_or_default(), &mut turned);
    while let Some(group) = turn {
        turn = groups.next();
        let next = turn.as_deref().unwrap_or_default();
        authenticate_and_stream::<COLD>(kernel, group, tagged, next, &mut turned);
        tagged = group;
    }
    stream_sealed::<COLD>(kernel, tagged);
}

/// The bytes of pages that have their tags.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn stream_sealed<const COLD: bool>(kernel: &Kernel, tagged: &mut [SealJob<'_>]) {
    for job in tagged {
        let tag = job.tag();
        let (plain, sealed) = job.pages();
        stream::<COLD>(&kernel.ctr, &tag, plain, sealed);
    }
    if COLD {
        _mm_sfence();
    }
}

/// Pages on their way to their tags.
struct Tagging<'a, 't> {
    pages: Vec<&'a Parts, GROUP>,
    /// The pages that come a group later.
    next: Vec<&'a Parts, GROUP>,
    turned: &'t mut Turned,
    ends: Eight,
}

impl<'a, 't> Tagging<'a, 't> {
    /// Up to thirty-two pages. Lanes that are left over chain zeroes, or what was there before.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn begin(
        kernel: &Kernel,
        group: &[SealJob<'a>],
        next: &[SealJob<'a>],
        turned: &'t mut Turned,
    ) -> Self {
        let ends = ends(kernel, group.iter().map(SealJob::id));
        let plain = |jobs: &[SealJob<'a>]| jobs.iter().map(|job| parts(job.plain())).collect();
        let (pages, next): (Vec<&Parts, GROUP>, _) = (plain(group), plain(next));
        for (page, [first, ..]) in pages.iter().enumerate() {
            turned.take(0, page, first);
        }
        Self { pages, next, turned, ends }
    }

    /// One block for every chain, short of AES; and the next part of one page is made ready.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    fn step(&mut self, chains: Eight, part: usize, step: usize) -> Eight {
        if let Some(page) = self.pages.get(step) {
            if let Some(lines) = page.get(part.wrapping_add(1)) {
                self.turned.take(part.wrapping_add(1), step, lines);
            }
            ask_for(page, self.next.get(step).copied(), part);
        }
        if part == PARTS - 1 && step == GROUP - 1 {
            self.turned.end(&self.ends);
        }
        self.turned.add(chains, part, step)
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn settle(kernel: &Kernel, group: &mut [SealJob<'_>], chains: Eight) {
    let tags = kernel.chain.plain(chains).map(blocks);
    for (job, tag) in group.iter_mut().zip(tags.as_flattened()) {
        job.settle(*tag);
    }
}

/// The tags of a group, alone.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn authenticate<'a>(
    kernel: &Kernel,
    group: &mut [SealJob<'a>],
    next: &[SealJob<'a>],
    turned: &mut Turned,
) {
    let mut tagging = Tagging::begin(kernel, group, next, turned);
    let mut chains = [kernel.chain.start(); 8];
    for part in 0..PARTS {
        for step in 0..GROUP {
            chains = kernel.chain.step(tagging.step(chains, part, step));
        }
    }
    settle(kernel, group, chains);
}

/// The tags of a group, and the bytes of the whole group before it, side by side.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn authenticate_and_stream<'a, const COLD: bool>(
    kernel: &Kernel,
    group: &mut [SealJob<'a>],
    tagged: &mut [SealJob<'_>],
    next: &[SealJob<'a>],
    turned: &mut Turned,
) {
    let mut tagging = Tagging::begin(kernel, group, next, turned);
    let mut chains = [kernel.chain.start(); 8];
    for (page, job) in tagged.iter_mut().enumerate() {
        let count = Counter::new(&kernel.ctr, counter(&job.tag()).to_be_bytes());
        let (plain, sealed) = job.pages();
        let (from, to) = (parts(plain), parts_mut(sealed));
        for (at, (from, to)) in from.iter().zip(to).enumerate() {
            // Four pages of the one group for one part of the other.
            let step = page.wrapping_mul(8).wrapping_add(at) % GROUP;
            let sums = tagging.step(chains, page / 4, step);
            let stream;
            (chains, stream) = kernel.ctr.stream_beside(&count, at, (&kernel.chain, sums));
            write::<COLD>(from, to, &stream);
        }
    }
    settle(kernel, group, chains);
}

/// CTR over a page (RFC 5297, section 2.5).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn stream<const COLD: bool>(keys: &StreamKeys, tag: &Tag, from: &Page, to: &mut Page) {
    let count = Counter::new(keys, counter(tag).to_be_bytes());
    let (from, to) = (parts(from).as_chunks::<2>().0, parts_mut(to).as_chunks_mut::<2>().0);
    for (at, ([from_a, from_b], [to_a, to_b])) in from.iter().zip(to).enumerate() {
        let (a, b) = keys.stream_two(&count, at.wrapping_mul(2));
        write::<COLD>(from_a, to_a, &a);
        write::<COLD>(from_b, to_b, &b);
    }
}

/// Writes a part of a page, encrypted.
///
/// If `COLD`, the caller fences before anyone reads or writes the page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn write<const COLD: bool>(from: &Eight, to: &mut Eight, stream: &Eight) {
    for ((from, to), stream) in from.iter().zip(to).zip(stream) {
        let bytes = sum(*from, *stream);
        // SAFETY: the caller fences if this is cold.
        unsafe { put::<COLD>(to, bytes) };
    }
}

/// What each lane adds to the last block of its page: the CMAC of its associated data, and what
/// S2V and CMAC add to everyone's (RFC 5297, section 2.4).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn ends<'a>(kernel: &Kernel, ids: impl Iterator<Item = &'a PageId>) -> Eight {
    let (mut first, mut second) = ([[0_u8; 16]; GROUP], [[0_u8; 16]; GROUP]);
    for ((first, second), id) in first.iter_mut().zip(&mut second).zip(ids) {
        [*first, *second] = zerocopy::transmute!(id.associated_data(SivCmac512::SUITE));
    }
    let (first, second): (Eight, Eight) =
        (zerocopy::transmute!(first), zerocopy::transmute!(second));
    let (keys, Subkeys { k1, start }) = (&kernel.chain, &kernel.subkeys);
    let mut chains = first;
    for chain in &mut chains {
        *chain = sum(*chain, keys.start());
    }
    chains = keys.step(chains);
    for (chain, second) in chains.iter_mut().zip(second) {
        *chain = sum(sum(*chain, second), repeat(*k1));
    }
    chains = keys.plain(keys.step(chains));
    for chain in &mut chains {
        *chain = sum(sum(*chain, repeat(*start)), repeat(*k1));
    }
    chains
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open<const COLD: bool>(kernel: &Kernel, jobs: &mut [OpenJob<'_>]) {
    if jobs.len() <= FEW {
        return open_few(kernel, jobs);
    }
    let mut groups = jobs.chunks_mut(GROUP);
    let (mut turned, mut turn) = (Turned::new(), groups.next());
    while let Some(group) = turn {
        turn = groups.next();
        let tags = decrypt::<COLD>(kernel, group, turn.as_deref().unwrap_or_default(), &mut turned);
        if COLD {
            _mm_sfence(); // before a page that is not genuine is wiped
        }
        for (job, tag) in group.iter_mut().zip(tags.map(blocks).as_flattened()) {
            job.settle(tag);
        }
    }
}

/// CTR over every page of a group and, a part behind, the CBC-MAC of what comes out.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn decrypt<'a, const COLD: bool>(
    kernel: &Kernel,
    group: &mut [OpenJob<'a>],
    next: &[OpenJob<'a>],
    turned: &mut Turned,
) -> Eight {
    let ends = ends(kernel, group.iter().map(OpenJob::id));
    let first = |job: &OpenJob<'a>| counter(job.tag()).to_be_bytes();
    let (keys, chains) = ((&kernel.chain, &kernel.ctr), ([kernel.chain.start(); 8], &ends));
    behind::pass::<_, true, COLD>(keys, (group, next), first, turned, chains)
}

/// Pages that are too few for the great machinery.
const FEW: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal_few<const COLD: bool>(kernel: &Kernel, jobs: &mut [SealJob<'_>]) {
    let ends = ends(kernel, jobs.iter().map(SealJob::id));
    let tags = tags_of_few(kernel, &ends, jobs.iter().map(SealJob::plain));
    for (job, tag) in jobs.iter_mut().zip(tags.as_flattened()) {
        job.settle(*tag);
    }
    stream_sealed::<COLD>(kernel, jobs);
}

/// In the cache in any case: what is decrypted is read once more.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open_few(kernel: &Kernel, jobs: &mut [OpenJob<'_>]) {
    for job in &mut *jobs {
        let tag = *job.tag();
        let (sealed, plain) = job.pages();
        stream::<false>(&kernel.ctr, &tag, sealed, plain);
    }
    let ends = ends(kernel, jobs.iter().map(OpenJob::id));
    let tags = tags_of_few(kernel, &ends, jobs.iter().map(OpenJob::plain));
    for (job, tag) in jobs.iter_mut().zip(tags.as_flattened()) {
        job.settle(tag);
    }
}

/// The tags of up to eight pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn tags_of_few<'a>(
    kernel: &Kernel,
    [a, b, ..]: &Eight,
    pages: impl ExactSizeIterator<Item = &'a Page>,
) -> [[[u8; 16]; 4]; 2] {
    if pages.len() <= 4 {
        let [a] = chain_few(kernel, [*a], pages);
        [blocks(a), [[0; 16]; 4]]
    } else {
        chain_few(kernel, [*a, *b], pages).map(blocks)
    }
}

/// The CBC-MAC of up to four times `G` pages. Lanes that are left over chain zeroes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
#[expect(clippy::indexing_slicing, reason = "a line of LINES")]
fn chain_few<'a, const G: usize>(
    kernel: &Kernel,
    ends: [__m512i; G],
    mut pages: impl Iterator<Item = &'a Page>,
) -> [__m512i; G] {
    const NOTHING: &Lines = &[zero(); LINES];
    let pages: [[&Lines; 4]; G] = lanes(|_| pages.next().map_or(NOTHING, lines));
    let (mut chains, mut tile) = ([kernel.chain.start(); G], [[zero(); G]; 4]);
    for line in 0..LINES {
        for (vector, [a, b, c, d]) in pages.iter().enumerate() {
            let blocks = zmm::turned([a[line], b[line], c[line], d[line]]);
            for (row, block) in tile.iter_mut().zip(blocks) {
                row[vector] = block;
            }
        }
        absorb(&kernel.chain, &mut chains, &mut tile, &ends, line);
    }
    tile = [[zero(); G]; 4];
    optimization_barrier(&tile);
    kernel.chain.plain(chains)
}
