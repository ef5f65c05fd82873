//! CTR and CMAC with VAES at 512 bits, fused: each line of a page is read and written once.
//!
//! Thirty-two pages are the lanes, four to a vector, because a CBC-MAC waits for its own last step.
//! CTR does not wait for anything, so it goes beside the chains and fills what they leave idle. Few
//! pages leave most idle in any case: theirs go one after the other.

use core::arch::x86_64::{__m512i, _mm_sfence};

use zeroize::Zeroize;

use super::Vaes512;
use super::behind::{self, Lane};
use super::chains::{ChainKeys, absorb, encrypt_one, lanes};
use super::eight::{Eight, PARTS, Parts, parts, parts_mut};
use super::stream::{Counter, StreamKeys};
use super::turned::{GROUP, Turned};
use super::zmm::{Keys, blocks, four, prefetch, put, repeat, sum, turned, zero};
use crate::key::SivKey;
use crate::page::Page;
use crate::suite::ctr_cmac::{CtrCmac, counter};
use crate::suite::sequence::Once;
use crate::suite::siv_cmac_512::Subkeys;
use crate::suite::{Landing, OpenJob, PageCipher, PageId, SealJob};

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
            Landing::Hot => unsafe { run::<SealJob<'_, Once>, true, false>(self, jobs) },
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Cold => unsafe { run::<SealJob<'_, Once>, true, true>(self, jobs) },
        }
    }

    pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { run::<OpenJob<'_>, false, false>(self, jobs) },
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Cold => unsafe { run::<OpenJob<'_>, false, true>(self, jobs) },
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.subkeys.zeroize(); // the keys wipe themselves
    }
}

/// A page to seal or to open.
trait Job: Lane {
    fn id(&self) -> &PageId;
    fn settle(&mut self, tag: [u8; 16]);
}

impl Job for SealJob<'_, Once> {
    fn id(&self) -> &PageId {
        self.id()
    }

    fn settle(&mut self, tag: [u8; 16]) {
        self.settle(tag);
    }
}

impl Job for OpenJob<'_> {
    fn id(&self) -> &PageId {
        self.id()
    }

    fn settle(&mut self, tag: [u8; 16]) {
        self.settle(&tag);
    }
}

/// Pages that are too few for chains beside a key stream.
const FEW: usize = 16;

/// The sealed side is authenticated: what is `WRITTEN`, or what is read.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn run<J: Job, const WRITTEN: bool, const COLD: bool>(kernel: &Kernel, jobs: &mut [J]) {
    match jobs.len() {
        0..=4 => return run_few::<J, 1, WRITTEN, COLD>(kernel, jobs),
        5..=8 => return run_few::<J, 2, WRITTEN, COLD>(kernel, jobs),
        9..=FEW => return run_few::<J, 4, WRITTEN, COLD>(kernel, jobs),
        _ => {}
    }
    let mut groups = jobs.chunks_mut(GROUP);
    let (mut turned, mut turn) = (Turned::new(), groups.next());
    while let Some(group) = turn {
        turn = groups.next();
        let Some(ids) = ids(group) else { return };
        let first = |job: &J| counter(job.id());
        let (keys, ends) = ((&kernel.chain, &kernel.ctr), [repeat(kernel.subkeys.k1); 8]);
        let pages = (&mut *group, turn.as_deref().unwrap_or_default());
        let chains = (begun(kernel, &ids), &ends);
        let tags = behind::pass::<J, WRITTEN, COLD>(keys, pages, first, &mut turned, chains);
        settle::<J, _, COLD>(group, tags);
    }
}

/// Up to four times `G` pages: bytes and tags in one pass.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn run_few<J: Job, const G: usize, const WRITTEN: bool, const COLD: bool>(
    kernel: &Kernel,
    group: &mut [J],
) {
    let Some(ids) = ids(group) else { return };
    let mut jobs = group.iter_mut();
    let pages = lanes(|_| jobs.next().map(Lane::pages));
    let tags = pass::<G, WRITTEN, COLD>(kernel, &ids, pages);
    settle::<J, G, COLD>(group, tags);
}

/// The ids of every lane; those without a page have the first one's.
#[inline]
fn ids<J: Job, const G: usize>(group: &[J]) -> Option<[[PageId; 4]; G]> {
    let first = *group.first()?.id();
    Some(lanes(|lane| group.get(lane).map_or(first, |job| *job.id())))
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn settle<J: Job, const G: usize, const COLD: bool>(group: &mut [J], tags: [__m512i; G]) {
    if COLD {
        _mm_sfence(); // before anyone else reads, and before a page that is not genuine is wiped
    }
    for (job, tag) in group.iter_mut().zip(tags.map(blocks).as_flattened()) {
        job.settle(*tag);
    }
}

/// Lines that are taken from a page at once.
const PART: usize = 8;

/// CTR over every lane's page, and the CMAC of its associated data and of its sealed side.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
#[expect(clippy::indexing_slicing, reason = "a part of PARTS, a line of it, a vector of G")]
fn pass<const G: usize, const WRITTEN: bool, const COLD: bool>(
    kernel: &Kernel,
    ids: &[[PageId; 4]; G],
    mut pages: [[Option<(&Page, &mut Page)>; 4]; G],
) -> [__m512i; G] {
    let (mut chains, ends) = (begun(kernel, ids), [repeat(kernel.subkeys.k1); G]);
    let counts = ids.map(|ids| ids.map(|id| Counter::new(&kernel.ctr, counter(&id))));
    let (mut sealed, mut tile) = ([[[zero(); PART]; 4]; G], [[zero(); G]; 4]);
    for part in 0..PARTS {
        let lanes = pages.as_flattened_mut().iter_mut().zip(counts.as_flattened());
        for ((page, count), sealed) in lanes.zip(sealed.as_flattened_mut()) {
            if let Some((from, to)) = page {
                ask_for::<COLD>(parts(from), parts(to), part);
                let (from, to) = (&parts(from)[part], &mut parts_mut(to)[part]);
                stream::<WRITTEN, COLD>(kernel.ctr.stream(count, part), from, to, sealed);
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
fn ask_for<const COLD: bool>(from: &Parts, to: &Parts, part: usize) {
    let after = part.wrapping_add(1);
    for line in from.get(after).into_iter().flatten() {
        prefetch(line);
    }
    if !COLD {
        for line in to.get(after).into_iter().flatten() {
            prefetch(line);
        }
    }
}

/// A part of a page through its key stream, and a copy of its sealed side.
///
/// If `COLD`, the caller fences before it reads or writes the page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn stream<const WRITTEN: bool, const COLD: bool>(
    stream: Eight,
    from: &Eight,
    to: &mut Eight,
    sealed: &mut Eight,
) {
    for (((from, to), sealed), stream) in from.iter().zip(to).zip(sealed).zip(stream) {
        let after = sum(*from, stream);
        // SAFETY: the caller fences if this is cold.
        unsafe { put::<COLD>(to, after) };
        *sealed = if WRITTEN { after } else { *from };
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
