//! CTR and CMAC with VAES at 512 bits, fused: each line of a page is read and written once.
//!
//! Thirty-two pages are the lanes, four to a vector, because a CBC-MAC waits for its own last step.
//! CTR does not wait for anything, so its blocks fill what the chains leave idle.

use core::arch::x86_64::{__m512i, _mm_sfence};

use zeroize::Zeroize;

use super::Vaes512;
use super::chains::{ChainKeys, absorb, encrypt_one, lanes};
use super::eight::Eight;
use super::stream::{Counter, StreamKeys};
use super::zmm::{
    Keys, LINES, Lines, blocks, four, lines, lines_mut, prefetch, put, repeat, sum, turned, zero,
};
use crate::key::SivKey;
use crate::suite::ctr_cmac::{CtrCmac, counter};
use crate::suite::sequence::Once;
use crate::suite::siv_cmac_512::Subkeys;
use crate::suite::{Landing, OpenJob, PageCipher, PageId, SealJob};

/// Pages that are worked on at once, at most: eight vectors of four.
const GROUP: usize = 32;

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

    pub(in crate::suite) fn seal(&self, jobs: &mut [SealJob<'_, Once>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { run::<SealJob<'_, Once>, false>(self, jobs) },
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Cold => unsafe { run::<SealJob<'_, Once>, true>(self, jobs) },
        }
    }

    pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { run::<OpenJob<'_>, false>(self, jobs) },
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Cold => unsafe { run::<OpenJob<'_>, true>(self, jobs) },
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.subkeys.zeroize(); // the keys wipe themselves
    }
}

/// A page to seal or to open: the two differ in which side of CTR is authenticated.
trait Job {
    /// Whether what is read is authenticated, and not what is written.
    const OPENS: bool;
    fn id(&self) -> &PageId;
    fn from(&self) -> &Lines;
    fn to(&self) -> &Lines;
    fn pages(&mut self) -> (&Lines, &mut Lines);
    fn settle(&mut self, tag: [u8; 16]);
}

impl Job for SealJob<'_, Once> {
    const OPENS: bool = false;

    fn id(&self) -> &PageId {
        self.id()
    }

    fn from(&self) -> &Lines {
        lines(self.plain())
    }

    fn to(&self) -> &Lines {
        lines(self.sealed())
    }

    fn pages(&mut self) -> (&Lines, &mut Lines) {
        let (plain, sealed) = self.pages();
        (lines(plain), lines_mut(sealed))
    }

    fn settle(&mut self, tag: [u8; 16]) {
        self.settle(tag);
    }
}

impl Job for OpenJob<'_> {
    const OPENS: bool = true;

    fn id(&self) -> &PageId {
        self.id()
    }

    fn from(&self) -> &Lines {
        lines(self.sealed())
    }

    fn to(&self) -> &Lines {
        lines(self.plain())
    }

    fn pages(&mut self) -> (&Lines, &mut Lines) {
        let (sealed, plain) = self.pages();
        (lines(sealed), lines_mut(plain))
    }

    fn settle(&mut self, tag: [u8; 16]) {
        self.settle(&tag);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn run<J: Job, const COLD: bool>(kernel: &Kernel, jobs: &mut [J]) {
    let mut groups = jobs.chunks_mut(GROUP);
    let mut turn = groups.next();
    while let Some(group) = turn {
        turn = groups.next();
        let next = turn.as_deref().unwrap_or_default();
        match group.len() {
            0..=4 => run_group::<J, 1, COLD>(kernel, group, next),
            5..=8 => run_group::<J, 2, COLD>(kernel, group, next),
            9..=16 => run_group::<J, 4, COLD>(kernel, group, next),
            _ => run_group::<J, 8, COLD>(kernel, group, next),
        }
    }
}

/// Up to four times `G` pages: bytes and tags in one pass.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn run_group<J: Job, const G: usize, const COLD: bool>(
    kernel: &Kernel,
    group: &mut [J],
    next: &[J],
) {
    let tags = {
        let Some(first) = group.first() else { return };
        let first = *first.id();
        let ids = lanes(|lane| group.get(lane).map_or(first, |job| *job.id()));
        let mut jobs = group.iter_mut();
        let pages = lanes(|lane| {
            let (from, to) = jobs.next()?.pages();
            Some((from, to, next.get(lane)))
        });
        pass::<J, G, COLD>(kernel, &ids, pages)
    };
    if COLD {
        _mm_sfence(); // before anyone else reads, and before a page that is not genuine is wiped
    }
    for (job, tag) in group.iter_mut().zip(tags.map(blocks).as_flattened()) {
        job.settle(*tag);
    }
}

/// A lane's page: from where, to where, and what comes a group later.
type Lane<'a, J> = Option<(&'a Lines, &'a mut Lines, Option<&'a J>)>;

/// Lines that are taken from a page at once: memory likes to be read and written in one place for
/// a while, and the sealed lines of thirty-two pages still fit the first-level cache.
const PART: usize = 8;

/// CTR over every lane's page, and the CMAC of its associated data and of its sealed side.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
#[expect(clippy::indexing_slicing, reason = "a line of PART, a vector of G")]
fn pass<J: Job, const G: usize, const COLD: bool>(
    kernel: &Kernel,
    ids: &[[PageId; 4]; G],
    mut pages: [[Lane<'_, J>; 4]; G],
) -> [__m512i; G] {
    let (mut chains, ends) = (begun(kernel, ids), [repeat(kernel.subkeys.k1); G]);
    let counts = ids.map(|ids| ids.map(|id| Counter::new(&kernel.ctr, counter(&id))));
    let (mut sealed, mut tile) = ([[[zero(); PART]; 4]; G], [[zero(); G]; 4]);
    for part in 0..LINES / PART {
        let lanes = pages.as_flattened_mut().iter_mut().zip(counts.as_flattened());
        for ((page, count), sealed) in lanes.zip(sealed.as_flattened_mut()) {
            if let Some((from, to, next)) = page {
                ask_for::<J, COLD>(from, to, *next, part);
                let (from, to) = (&from.as_chunks().0[part], &mut to.as_chunks_mut().0[part]);
                stream::<J, COLD>(kernel.ctr.stream(count, part), from, to, sealed);
            }
        }
        for line in 0..PART {
            for (vector, [a, b, c, d]) in sealed.iter().enumerate() {
                let blocks = turned([a[line], b[line], c[line], d[line]]);
                for (row, block) in tile.iter_mut().zip(blocks) {
                    row[vector] = block;
                }
            }
            let line = part.wrapping_mul(PART).wrapping_add(line);
            absorb(&kernel.chain, &mut chains, &mut tile, &ends, line);
        }
    }
    kernel.chain.plain(chains)
}

/// Asks for the part of a lane that comes after this one, and for where it goes, if that is written
/// in the cache.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn ask_for<J: Job, const COLD: bool>(from: &Lines, to: &Lines, next: Option<&J>, part: usize) {
    let ((from, _), (to, _)) = (from.as_chunks::<PART>(), to.as_chunks::<PART>());
    let after = part.wrapping_add(1);
    let first = |lines: fn(&J) -> &Lines| next.and_then(|job| lines(job).first_chunk());
    for line in from.get(after).or_else(|| first(J::from)).into_iter().flatten() {
        prefetch(line);
    }
    if !COLD {
        for line in to.get(after).or_else(|| first(J::to)).into_iter().flatten() {
            prefetch(line);
        }
    }
}

/// A part of a page through its key stream, and a copy of its sealed side.
///
/// If `COLD`, the caller fences before it reads or writes the page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn stream<J: Job, const COLD: bool>(
    stream: Eight,
    from: &[__m512i; PART],
    to: &mut [__m512i; PART],
    sealed: &mut [__m512i; PART],
) {
    for (((from, to), sealed), stream) in from.iter().zip(to).zip(sealed).zip(stream) {
        let after = sum(*from, stream);
        // SAFETY: the caller fences if this is cold.
        unsafe { put::<COLD>(to, after) };
        *sealed = if J::OPENS { *from } else { after };
    }
}

/// Every lane's chain after its associated data, two blocks of it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn begun<const G: usize>(kernel: &Kernel, ids: &[[PageId; 4]; G]) -> [__m512i; G] {
    let data: [[[[u8; 16]; 2]; 4]; G] =
        ids.map(|ids| ids.map(|id| zerocopy::transmute!(id.associated_data(CtrCmac::SUITE))));
    let mut chains = data.map(|four_pages| four(four_pages.map(|[first, _]| first)));
    for chain in &mut chains {
        *chain = sum(*chain, kernel.chain.start());
    }
    kernel.chain.step_few(&mut chains);
    for (chain, four_pages) in chains.iter_mut().zip(data) {
        *chain = sum(*chain, four(four_pages.map(|[_, second]| second)));
    }
    kernel.chain.step_few(&mut chains);
    chains
}
