//! SIV-CMAC-512 with VAES at 512 bits: thirty-two pages are the lanes, four to a vector.
//!
//! A CBC-MAC waits for its own last step, so what keeps the machine busy is eight chains side by
//! side. Each line of a page is read once and turned, so that one vector holds the same block of
//! four pages. Sealing reads a group twice, the second time from the second-level cache; opening
//! decrypts and recomputes the tag in one pass.

use core::arch::x86_64::{__m512i, _mm_sfence};

use zeroize::optimization_barrier;

use super::Vaes512;
use super::zmm::{
    Counter, Keys, LINES, Lines, blocks, encrypt, four, lines, lines_mut, prefetch, put, repeat,
    sum, turned, zero,
};
use crate::key::SivKey;
use crate::suite::siv::counter;
use crate::suite::siv_cmac_512::{SivCmac512, Subkeys};
use crate::suite::{Landing, OpenJob, PageCipher, PageId, SealJob};

/// Pages that are worked on at once, at most: eight vectors of four.
const GROUP: usize = 32;

/// The key, expanded for this kernel. It exists only where the machine can run it.
pub(in crate::suite) struct Kernel {
    mac: Keys,
    ctr: Keys,
    subkeys: Subkeys,
}

impl Kernel {
    pub(in crate::suite) fn new(proof: Vaes512, key: &SivKey) -> Self {
        let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key.expose());
        let (mac, ctr) = (Keys::new(proof, mac), Keys::new(proof, ctr));
        // SAFETY: the proof says that the machine has what this is compiled for.
        let subkeys = Subkeys::new(|block| unsafe { encrypt_one(&mac, block) });
        Self { mac, ctr, subkeys }
    }

    pub(in crate::suite) fn seal(&self, jobs: &mut [SealJob<'_>], landing: Landing) {
        // SAFETY (both): there is a kernel only where the machine has what this is compiled for.
        match landing {
            Landing::Hot => unsafe { seal::<false>(self, jobs) },
            Landing::Cold => unsafe { seal::<true>(self, jobs) },
        }
    }

    pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        // SAFETY (both): there is a kernel only where the machine has what this is compiled for.
        match landing {
            Landing::Hot => unsafe { open::<false>(self, jobs) },
            Landing::Cold => unsafe { open::<true>(self, jobs) },
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn encrypt_one(keys: &Keys, block: [u8; 16]) -> [u8; 16] {
    let mut vector = [repeat(block)];
    encrypt(keys, &mut vector);
    let [vector] = vector;
    let [block, ..] = blocks(vector);
    block
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal<const COLD: bool>(kernel: &Kernel, jobs: &mut [SealJob<'_>]) {
    let mut groups = jobs.chunks_mut(GROUP);
    let mut turn = groups.next();
    while let Some(group) = turn {
        turn = groups.next();
        let next = turn.as_deref().unwrap_or_default();
        match group.len() {
            0..=4 => seal_group::<1, COLD>(kernel, group, next),
            5..=8 => seal_group::<2, COLD>(kernel, group, next),
            9..=16 => seal_group::<4, COLD>(kernel, group, next),
            _ => seal_group::<8, COLD>(kernel, group, next),
        }
    }
    if COLD {
        _mm_sfence();
    }
}

/// Up to four times `G` pages: their tags, then their bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal_group<const G: usize, const COLD: bool>(
    kernel: &Kernel,
    group: &mut [SealJob<'_>],
    next: &[SealJob<'_>],
) {
    let tags = {
        let Some(first) = group.first() else { return };
        let pages = lanes(|lane| lines(group.get(lane).unwrap_or(first).plain()));
        let ends = ends::<G>(kernel, |lane| *group.get(lane).unwrap_or(first).id());
        authenticate(&kernel.mac, &pages, &ends)
    };
    let tags = tags.map(blocks);
    for (lane, (job, tag)) in group.iter_mut().zip(tags.as_flattened()).enumerate() {
        job.settle(*tag);
        let (plain, sealed) = job.pages();
        let ahead = next.get(lane).map_or(plain, SealJob::plain);
        let iv = counter(tag).to_be_bytes();
        stream::<COLD>(&kernel.ctr, iv, lines(plain), lines_mut(sealed), lines(ahead));
    }
}

/// What every lane has, padded with the first one's: a lane costs nothing, a branch would.
fn lanes<T, const G: usize>(mut of: impl FnMut(usize) -> T) -> [[T; 4]; G] {
    core::array::from_fn(|vector| {
        core::array::from_fn(|lane| of(vector.wrapping_mul(4).wrapping_add(lane)))
    })
}

/// What each lane adds to the last block of its page: the CMAC of its associated data, and what
/// S2V and CMAC add to everyone's (RFC 5297, section 2.4).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn ends<const G: usize>(kernel: &Kernel, id: impl Fn(usize) -> PageId) -> [__m512i; G] {
    let data: [[[[u8; 16]; 2]; 4]; G] =
        lanes(|lane| zerocopy::transmute!(id(lane).associated_data(SivCmac512::SUITE)));
    let Subkeys { k1, start } = &kernel.subkeys;
    let mut state = data.map(|four_pages| four(four_pages.map(|[first, _]| first)));
    encrypt(&kernel.mac, &mut state);
    for (state, four_pages) in state.iter_mut().zip(data) {
        *state = sum(sum(*state, four(four_pages.map(|[_, second]| second))), repeat(*k1));
    }
    encrypt(&kernel.mac, &mut state);
    for state in &mut state {
        *state = sum(sum(*state, repeat(*start)), repeat(*k1));
    }
    state
}

/// The CBC-MAC of every lane's page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn authenticate<const G: usize>(
    keys: &Keys,
    pages: &[[&Lines; 4]; G],
    ends: &[__m512i; G],
) -> [__m512i; G] {
    let (mut state, mut tile) = ([zero(); G], [[zero(); G]; 4]);
    for line in 0..LINES {
        for (vector, [a, b, c, d]) in pages.iter().enumerate() {
            let blocks = turned([a[line], b[line], c[line], d[line]]);
            for (row, block) in tile.iter_mut().zip(blocks) {
                row[vector] = block;
            }
        }
        absorb(keys, &mut state, &mut tile, ends, line);
    }
    tile = [[zero(); G]; 4];
    optimization_barrier(&tile);
    state
}

/// Four steps of every chain; the last block of a page meets its end.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn absorb<const G: usize>(
    keys: &Keys,
    state: &mut [__m512i; G],
    tile: &mut [[__m512i; G]; 4],
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

/// CTR over a page (RFC 5297, section 2.5), and a look ahead to the page that comes a group later.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn stream<const COLD: bool>(
    keys: &Keys,
    iv: [u8; 16],
    from: &Lines,
    to: &mut Lines,
    ahead: &Lines,
) {
    const WIDE: usize = 8;
    let mut count = Counter::first(iv);
    let (from, _) = from.as_chunks::<WIDE>();
    let (to, _) = to.as_chunks_mut::<WIDE>();
    let (ahead, _) = ahead.as_chunks::<WIDE>();
    for ((from, to), ahead) in from.iter().zip(to).zip(ahead) {
        let mut stream = [zero(); WIDE];
        for block in &mut stream {
            *block = count.blocks();
            count = count.plus(4);
        }
        encrypt(keys, &mut stream);
        for (((from, to), stream), ahead) in from.iter().zip(to).zip(stream).zip(ahead) {
            // SAFETY: who calls with `COLD` ends with a fence.
            unsafe { put::<COLD>(to, sum(*from, stream)) };
            prefetch(ahead);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open<const COLD: bool>(kernel: &Kernel, jobs: &mut [OpenJob<'_>]) {
    let mut groups = jobs.chunks_mut(GROUP);
    let mut turn = groups.next();
    while let Some(group) = turn {
        turn = groups.next();
        let next = turn.as_deref().unwrap_or_default();
        match group.len() {
            0..=4 => open_group::<1, COLD>(kernel, group, next),
            5..=8 => open_group::<2, COLD>(kernel, group, next),
            9..=16 => open_group::<4, COLD>(kernel, group, next),
            _ => open_group::<8, COLD>(kernel, group, next),
        }
    }
}

/// Up to four times `G` pages: bytes and tags in one pass.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open_group<const G: usize, const COLD: bool>(
    kernel: &Kernel,
    group: &mut [OpenJob<'_>],
    next: &[OpenJob<'_>],
) {
    let tags = {
        let Some(first) = group.first() else { return };
        let (id, iv) = (*first.id(), counter(first.tag()));
        let ends = ends::<G>(kernel, |lane| group.get(lane).map_or(id, |job| *job.id()));
        let counts = lanes(|lane| {
            let iv = group.get(lane).map_or(iv, |job| counter(job.tag()));
            Counter::first(iv.to_be_bytes())
        });
        let mut jobs = group.iter_mut();
        let pages = lanes(|lane| {
            let (sealed, plain) = jobs.next()?.pages();
            let ahead = next.get(lane).map_or(sealed, OpenJob::sealed);
            Some((lines(sealed), lines_mut(plain), lines(ahead)))
        });
        decrypt::<G, COLD>(kernel, pages, &counts, &ends)
    };
    if COLD {
        _mm_sfence();
    }
    for (job, tag) in group.iter_mut().zip(tags.map(blocks).as_flattened()) {
        job.settle(tag);
    }
}

/// A lane's page: from where, to where, and the page that comes a group later.
type Lane<'a> = Option<(&'a Lines, &'a mut Lines, &'a Lines)>;

/// CTR over every lane's page, and the CBC-MAC of what comes out.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn decrypt<const G: usize, const COLD: bool>(
    kernel: &Kernel,
    mut pages: [[Lane<'_>; 4]; G],
    counts: &[[Counter; 4]; G],
    ends: &[__m512i; G],
) -> [__m512i; G] {
    let (mut state, mut tile) = ([zero(); G], [[zero(); G]; 4]);
    let mut blocks_before = 0;
    for line in 0..LINES {
        for (vector, (pages, counts)) in pages.iter_mut().zip(counts).enumerate() {
            let mut four = counts.map(|count| count.plus(blocks_before).blocks());
            encrypt(&kernel.ctr, &mut four);
            for (stream, page) in four.iter_mut().zip(pages) {
                if let Some((sealed, plain, ahead)) = page {
                    *stream = sum(*stream, sealed[line]);
                    // SAFETY: the caller fences if this is cold.
                    unsafe { put::<COLD>(&mut plain[line], *stream) };
                    prefetch(&ahead[line]);
                }
            }
            for (row, block) in tile.iter_mut().zip(turned(four)) {
                row[vector] = block;
            }
        }
        blocks_before = blocks_before.wrapping_add(4);
        absorb(&kernel.mac, &mut state, &mut tile, ends, line);
    }
    tile = [[zero(); G]; 4];
    optimization_barrier(&tile);
    state
}
