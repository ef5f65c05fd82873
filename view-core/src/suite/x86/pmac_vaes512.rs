//! PMAC-SIV with VAES at 512 bits: the blocks of one page are the lanes, four to a vector.
//!
//! A page is worked on eight lines at a time, which is what keeps the machine busy, so a page
//! without neighbours costs little more than one of many. Up to four pages share what waits for
//! itself: associated data and the last step of PMAC. Sealing reads a page twice, the second time
//! from the first-level cache; opening reads it once.

use core::arch::x86_64::{__m512i, _mm_sfence, _mm512_mask_mov_epi64, _mm512_mask_xor_epi64};

use zeroize::Zeroize;

use super::Vaes512;
use super::chains::encrypt_one;
use super::eight;
use super::stream::{Counter, StreamKeys};
use super::zmm::{
    Keys, LINES, Lines, blocks, encrypt, four, lines, lines_mut, prefetch, put, repeat, sum,
    turned, zero,
};
use crate::key::SivKey;
use crate::suite::pmac_siv_512::{PmacSiv512, Subkeys};
use crate::suite::siv::counter;
use crate::suite::{Landing, OpenJob, PageCipher, PageId, SealJob};

/// Pages whose ends are taken together, at most: the lanes of a vector.
const GROUP: usize = 4;

/// Lines that are enciphered side by side.
const WIDE: usize = 8;

/// How often a page has so many lines.
const TURNS: usize = LINES / WIDE;

/// The key, expanded for this kernel. It exists only where the machine can run it.
pub(in crate::suite) struct Kernel {
    mac: Keys,
    ctr: StreamKeys,
    subkeys: Subkeys,
    offsets: Offsets,
}

impl Kernel {
    pub(in crate::suite) fn new(proof: Vaes512, key: &SivKey) -> Self {
        let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key.expose());
        let (mac, ctr) = (Keys::new(proof, mac), StreamKeys::new(proof, ctr));
        // SAFETY: the proof says that the machine has what this is compiled for.
        let subkeys = Subkeys::new(|block| unsafe { encrypt_one(&mac, block) });
        let offsets = Offsets::new(&mac, &subkeys);
        Self { mac, ctr, subkeys, offsets }
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

impl Drop for Kernel {
    fn drop(&mut self) {
        self.subkeys.zeroize(); // the keys and the offsets wipe themselves
    }
}

/// What PMAC adds to the blocks of a page, in parts: Gray code is linear as long as nothing
/// carries, so an offset is that of the turn before plus that of the place in the turn. 640 bytes
/// instead of a page's worth, which a lone page would have to wait for. AES begins by adding its
/// first key, so that is in them too.
#[repr(C, align(64))]
struct Offsets {
    /// Of the blocks of the first turn; the last of them carries, and is left out.
    within: [__m512i; WIDE],
    /// Of the last block before each turn, and the first round key.
    before: [[u8; 16]; TURNS],
}

impl Offsets {
    fn new(Keys([first, ..]): &Keys, subkeys: &Subkeys) -> Self {
        const BLOCKS: u8 = 32;
        let [first, ..] = blocks(*first).map(u128::from_ne_bytes);
        let mut blocks = [[[0; 16]; 4]; WIDE];
        for (block, number) in blocks.as_flattened_mut().iter_mut().zip(1..BLOCKS) {
            *block = subkeys.offset(number);
        }
        let mut before = [[0; 16]; TURNS];
        for (block, turn) in before.iter_mut().zip(0_u8..) {
            let offset = subkeys.offset(turn.wrapping_mul(BLOCKS));
            *block = (u128::from_ne_bytes(offset) ^ first).to_ne_bytes();
        }
        let offsets = Self { within: blocks.map(four), before };
        blocks.zeroize();
        offsets
    }

    /// The lines of a turn, whitened, with their offsets. What follows the last turn does not
    /// matter.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
    #[expect(clippy::indexing_slicing, reason = "a turn of TURNS, or the first again")]
    fn masked(&self, turn: usize, lines: &[__m512i; WIDE]) -> [__m512i; WIDE] {
        const FIRST_THREE: u8 = 0b0011_1111;
        let (before, after) = (self.before[turn], self.before[turn.wrapping_add(1) % TURNS]);
        let (before, after) = (repeat(before), repeat(after));
        let mut masked = *lines;
        for (line, within) in masked.iter_mut().zip(&self.within) {
            *line = sum(*line, sum(before, *within));
        }
        // The last block of the turn has the offset that the next begins with.
        let last = _mm512_mask_xor_epi64(after, FIRST_THREE, before, self.within[WIDE - 1]);
        masked[WIDE - 1] = sum(lines[WIDE - 1], last);
        masked
    }
}

impl Drop for Offsets {
    fn drop(&mut self) {
        self.within.zeroize();
        self.before.zeroize();
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal<const COLD: bool>(kernel: &Kernel, jobs: &mut [SealJob<'_>]) {
    let mut groups = jobs.chunks_mut(GROUP);
    let mut turn = groups.next();
    for job in turn.iter().flat_map(|group| group.iter()) {
        ask_for(lines(job.plain()));
    }
    while let Some(group) = turn {
        turn = groups.next();
        seal_group::<COLD>(kernel, group, turn.as_deref().unwrap_or_default());
    }
    if COLD {
        _mm_sfence();
    }
}

/// Asks for a whole page at once: the machine needs longer to notice that it is read in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn ask_for(page: &Lines) {
    for line in page {
        prefetch(line);
    }
}

/// Up to four pages: their tags, then their bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal_group<const COLD: bool>(kernel: &Kernel, group: &mut [SealJob<'_>], next: &[SealJob<'_>]) {
    let Some(first) = group.first() else { return };
    let first = *first.id();
    let ends = ends(kernel, |lane| group.get(lane).map_or(first, |job| *job.id()));
    let mut sums = [zero(); GROUP];
    for (sum, job) in sums.iter_mut().zip(&*group) {
        *sum = sigma::<COLD>(kernel, lines(job.plain()), lines(job.sealed()));
    }
    for (lane, (job, tag)) in group.iter_mut().zip(tags(kernel, sums, ends)).enumerate() {
        job.settle(tag);
        let (plain, sealed) = job.pages();
        let ahead = next.get(lane).map_or(plain, SealJob::plain);
        let iv = counter(&tag).to_be_bytes();
        stream::<COLD>(kernel, iv, lines(plain), lines_mut(sealed), lines(ahead));
    }
}

/// What each lane adds to the sum of its page: the PMAC of its associated data, what S2V adds to
/// that, and what PMAC adds to a last block that is whole (RFC 5297, section 2.4).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn ends(kernel: &Kernel, id: impl Fn(usize) -> PageId) -> __m512i {
    let data: [[[u8; 16]; 2]; GROUP] = core::array::from_fn(|lane| {
        zerocopy::transmute!(id(lane).associated_data(PmacSiv512::SUITE))
    });
    let Subkeys { powers: [offset, ..], inverse, start } = &kernel.subkeys;
    let mut state = [sum(four(data.map(|[first, _]| first)), repeat(*offset))];
    encrypt(&kernel.mac, &mut state);
    let [state] = state;
    let mut state = [sum(sum(state, four(data.map(|[_, second]| second))), repeat(*inverse))];
    encrypt(&kernel.mac, &mut state);
    let [state] = state;
    sum(sum(state, repeat(*start)), repeat(*inverse))
}

/// The tags of up to four pages from the sums of their lines and from their ends.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn tags(kernel: &Kernel, sums: [__m512i; GROUP], ends: __m512i) -> [[u8; 16]; GROUP] {
    let mut state = [turned(sums).into_iter().fold(ends, |a, b| sum(a, b))];
    encrypt(&kernel.mac, &mut state);
    let [state] = state;
    blocks(state)
}

/// The sum of a page's lines, each block but the last with its offset and enciphered. Where the
/// page goes is asked for meanwhile, if that is written in the cache.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn sigma<const COLD: bool>(kernel: &Kernel, page: &Lines, to: &Lines) -> __m512i {
    let mut sum = zero();
    let ((turns, _), (to, _)) = (page.as_chunks::<WIDE>(), to.as_chunks::<WIDE>());
    for (turn, (lines, to)) in turns.iter().zip(to).enumerate() {
        if !COLD {
            for line in to {
                prefetch(line);
            }
        }
        sum = added(kernel, sum, turn, lines);
    }
    sum
}

/// The sum with the lines of one turn.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn added(kernel: &Kernel, so_far: __m512i, turn: usize, lines: &[__m512i; WIDE]) -> __m512i {
    let mut masked = eight::rounds(&kernel.mac, kernel.offsets.masked(turn, lines));
    if turn == TURNS - 1 {
        let ([.., last], [.., plain]) = (&mut masked, lines);
        *last = _mm512_mask_mov_epi64(*last, 0b1100_0000, *plain);
    }
    masked.into_iter().fold(so_far, |a, b| sum(a, b))
}

/// CTR over a page (RFC 5297, section 2.5), and a look ahead to the page that comes a group later.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn stream<const COLD: bool>(
    kernel: &Kernel,
    iv: [u8; 16],
    from: &Lines,
    to: &mut Lines,
    ahead: &Lines,
) {
    let count = Counter::new(&kernel.ctr, iv);
    let (from, _) = from.as_chunks::<WIDE>();
    let (to, _) = to.as_chunks_mut::<WIDE>();
    let (ahead, _) = ahead.as_chunks::<WIDE>();
    for (turn, ((from, to), ahead)) in from.iter().zip(to).zip(ahead).enumerate() {
        let stream = kernel.ctr.stream(&count, turn);
        for (((from, to), stream), ahead) in from.iter().zip(to).zip(stream).zip(ahead) {
            let sealed = sum(*from, stream);
            // SAFETY: who calls with `COLD` ends with a fence.
            unsafe { put::<COLD>(to, sealed) };
            prefetch(ahead);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open<const COLD: bool>(kernel: &Kernel, jobs: &mut [OpenJob<'_>]) {
    let mut groups = jobs.chunks_mut(GROUP);
    let mut turn = groups.next();
    for job in turn.iter_mut().flat_map(|group| group.iter_mut()) {
        let (sealed, plain) = job.pages();
        ask_for(lines(sealed));
        if !COLD {
            ask_for(lines(plain));
        }
    }
    while let Some(group) = turn {
        turn = groups.next();
        open_group::<COLD>(kernel, group, turn.as_deref().unwrap_or_default());
    }
}

/// Up to four pages: bytes and tags in one pass.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open_group<const COLD: bool>(kernel: &Kernel, group: &mut [OpenJob<'_>], next: &[OpenJob<'_>]) {
    let Some(first) = group.first() else { return };
    let first = *first.id();
    let ends = ends(kernel, |lane| group.get(lane).map_or(first, |job| *job.id()));
    let mut sums = [zero(); GROUP];
    for (lane, (sum, job)) in sums.iter_mut().zip(&mut *group).enumerate() {
        let iv = counter(job.tag()).to_be_bytes();
        let (sealed, plain) = job.pages();
        let ahead = next.get(lane).map_or(sealed, OpenJob::sealed);
        *sum = decrypt::<COLD>(kernel, iv, lines(sealed), lines_mut(plain), lines(ahead));
    }
    let tags = tags(kernel, sums, ends);
    if COLD {
        _mm_sfence(); // before a page that is not genuine is wiped
    }
    for (job, tag) in group.iter_mut().zip(&tags) {
        job.settle(tag);
    }
}

/// CTR over a page, and the sum of what comes out.
///
/// If `COLD`, the caller fences before it reads or writes the page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn decrypt<const COLD: bool>(
    kernel: &Kernel,
    iv: [u8; 16],
    from: &Lines,
    to: &mut Lines,
    ahead: &Lines,
) -> __m512i {
    let (count, mut so_far) = (Counter::new(&kernel.ctr, iv), zero());
    let (from, _) = from.as_chunks::<WIDE>();
    let (to, _) = to.as_chunks_mut::<WIDE>();
    let (ahead, _) = ahead.as_chunks::<WIDE>();
    for (turn, ((from, to), ahead)) in from.iter().zip(to).zip(ahead).enumerate() {
        let mut plain = kernel.ctr.stream(&count, turn);
        for (((from, to), plain), ahead) in from.iter().zip(to).zip(&mut plain).zip(ahead) {
            *plain = sum(*from, *plain);
            // SAFETY: who calls with `COLD` fences.
            unsafe { put::<COLD>(to, *plain) };
            prefetch(ahead);
        }
        so_far = added(kernel, so_far, turn, &plain);
    }
    so_far
}
