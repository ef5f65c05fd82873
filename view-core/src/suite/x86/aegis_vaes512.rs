//! AEGIS-128X4 with VAES at 512 bits: a vector is one block of each of the four lanes, and two
//! pages are under way at once.
//!
//! A state waits for itself once a round, about as long as the rounds of two pages take to issue. A
//! third of the rounds touch no page; lines of pages to come are asked for in all of them, so that
//! the memory is not left idle.

use core::arch::x86_64::{__m512i, _mm_sfence, _mm512_aesenc_epi128, _mm512_ternarylogic_epi64};
use core::slice::Iter;

use super::Vaes512;
use super::ghash_vaes512::{folded, sum3};
use super::pass::{Pass, ahead, want};
use super::zmm::{LINES, Lines, blocks, four, lines, lines_mut, put, repeat, sum, zero};
use crate::key::AegisKey;
use crate::suite::aegis::{CONSTANTS, CONTEXTS, STEPS_AFTER, STEPS_BEFORE};
use crate::suite::aegis_128x4::{Aegis128X4, nonce};
use crate::suite::sequence::Once;
use crate::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Tag};

/// How many pages ahead lines are asked for.
const AHEAD: usize = 2;

/// Pages whose tags are compared together: only then the written lines are ordered.
const TOGETHER: usize = 64;

/// What is added before the last rounds: the bits of 32 bytes of associated data and of a page.
const LENGTHS: u128 = ((4096 * 8) << 64) | 256;

/// The key, on a machine that can run this kernel.
pub(in crate::suite) struct Kernel(AegisKey);

impl Kernel {
    pub(in crate::suite) fn new(_: Vaes512, key: &AegisKey) -> Self {
        Self(AegisKey::new(*key.expose()))
    }

    pub(in crate::suite) fn seal(&self, jobs: &mut [SealJob<'_, Once>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { seal::<false>(&self.0, jobs) },
            // SAFETY: as above.
            Landing::Cold => unsafe { seal::<true>(&self.0, jobs) },
        }
    }

    pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { open::<false>(&self.0, jobs) },
            // SAFETY: as above.
            Landing::Cold => unsafe { open::<true>(&self.0, jobs) },
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal<const COLD: bool>(key: &AegisKey, jobs: &mut [SealJob<'_, Once>]) {
    for at in (0..jobs.len()).step_by(2) {
        let tags = two_pages::<_, COLD>(key, jobs, at);
        for (job, tag) in jobs.iter_mut().skip(at).zip(tags) {
            job.settle(tag);
        }
    }
    if COLD {
        _mm_sfence();
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open<const COLD: bool>(key: &AegisKey, jobs: &mut [OpenJob<'_>]) {
    for start in (0..jobs.len()).step_by(TOGETHER) {
        let mut found = [[[0; 16]; 2]; TOGETHER / 2];
        for (at, tags) in (start..jobs.len()).step_by(2).zip(&mut found) {
            *tags = two_pages::<_, COLD>(key, jobs, at);
        }
        if COLD {
            _mm_sfence();
        }
        for (job, tag) in jobs.iter_mut().skip(start).zip(found.as_flattened()) {
            job.settle(tag);
        }
    }
}

/// Two pages of the list from a place on, or its last one, and what their tags are.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn two_pages<'a, J: Pass<'a>, const COLD: bool>(
    key: &AegisKey,
    jobs: &mut [J],
    at: usize,
) -> [Tag; 2] {
    let [next, after_next] = ahead(jobs, at.wrapping_add(AHEAD));
    let mut group = jobs.iter_mut().skip(at);
    match (group.next(), group.next()) {
        (Some(one), Some(other)) => pages::<J, 2, COLD>(key, [one, other], [next, after_next]),
        (Some(last), None) => {
            let [tag] = pages::<J, 1, COLD>(key, [last], [next]);
            [tag, [0; 16]]
        }
        (None, _) => [[0; 16]; 2],
    }
}

/// `N` pages side by side, and what their tags are.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn pages<'a, J: Pass<'a>, const N: usize, const COLD: bool>(
    key: &AegisKey,
    jobs: [&mut J; N],
    next: [Option<&Lines>; N],
) -> [Tag; N] {
    let ids = jobs.each_ref().map(|job| *job.id());
    let mut next = next.map(|page| page.map(|lines| lines.iter()).unwrap_or_default());
    let mut states = begin(key, &ids, &mut next);
    let mut pages = jobs.map(|job| {
        let (from, to) = job.pages();
        let (from, to) = (lines(from), lines_mut(to));
        (from.as_chunks::<2>().0, to.as_chunks_mut::<2>().0)
    });
    for step in 0..LINES / 2 {
        for ((state, (from, to)), next) in states.iter_mut().zip(&mut pages).zip(&mut next) {
            if let (Some(from), Some(to)) = (from.get(step), to.get_mut(step)) {
                text::<J, COLD>(state, from, to);
            }
            look::<1>(next);
        }
    }
    end(states, &mut next)
}

/// The states of `N` pages before their texts: after the nonces and the associated data.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn begin<const N: usize>(
    key: &AegisKey,
    ids: &[PageId; N],
    next: &mut [Iter<'_, __m512i>; N],
) -> [State; N] {
    let [c0, c1] = CONSTANTS.map(repeat);
    let (contexts, k) = (four(CONTEXTS), repeat(*key.expose()));
    let (k0, k1) = (sum(k, c0), sum(k, c1));
    let nonces = ids.each_ref().map(|id| repeat(nonce(id)));
    let mut states = nonces.map(|n| [sum(k, n), c1, c0, c1, sum(k, n), k0, k1, k0]);
    for _ in 0..STEPS_BEFORE {
        for ((state, nonce), next) in states.iter_mut().zip(nonces).zip(&mut *next) {
            let [_, _, _, d, _, _, _, h] = state;
            (*d, *h) = (sum(*d, contexts), sum(*h, contexts));
            update(state, nonce, k);
            look::<2>(next);
        }
    }
    for (state, id) in states.iter_mut().zip(ids) {
        let data: [[u8; 16]; 2] = zerocopy::transmute!(id.associated_data(Aegis128X4::SUITE));
        let [first, second] = data;
        update(state, four([first, second, [0; 16], [0; 16]]), zero());
    }
    states
}

/// Eight blocks of each of four lanes.
type State = [__m512i; 8];

/// One round of AES for every block, keyed with its neighbour and with what is taken in.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn update(state: &mut State, first: __m512i, second: __m512i) {
    let [a, b, c, d, e, f, g, h] = *state;
    *state = [
        _mm512_aesenc_epi128(h, sum(a, first)),
        _mm512_aesenc_epi128(a, b),
        _mm512_aesenc_epi128(b, c),
        _mm512_aesenc_epi128(c, d),
        _mm512_aesenc_epi128(d, sum(e, second)),
        _mm512_aesenc_epi128(e, f),
        _mm512_aesenc_epi128(f, g),
        _mm512_aesenc_epi128(g, h),
    ];
}

/// Two lines of a page: the stream is added, and the plain ones are taken in.
///
/// If `COLD`, the caller fences before it reads or writes the page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn text<'a, J: Pass<'a>, const COLD: bool>(
    state: &mut State,
    from: &[__m512i; 2],
    to: &mut [__m512i; 2],
) {
    let [_, b, c, d, _, f, g, h] = *state;
    let stream = [masked(sum(g, b), c, d), masked(sum(c, f), g, h)];
    let [first, second] = *from;
    let [stream_first, stream_second] = stream;
    let after = [sum(first, stream_first), sum(second, stream_second)];
    for (to, after) in to.iter_mut().zip(after) {
        // SAFETY: the caller fences if this is cold.
        unsafe { put::<COLD>(to, after) };
    }
    let [first, second] = if J::SEALS { [first, second] } else { after };
    update(state, first, second);
}

/// Asks for some of the lines that come a few pages later. A page has 64 of them, and they are
/// spread over all its rounds, also those that neither read nor write.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn look<const COUNT: usize>(next: &mut Iter<'_, __m512i>) {
    for line in next.take(COUNT) {
        want(line);
    }
}

/// A sum, and where two vectors both have ones.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn masked(sum: __m512i, one: __m512i, other: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x78>(sum, one, other)
}

/// The tags of `N` pages after their texts.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn end<const N: usize>(mut states: [State; N], next: &mut [Iter<'_, __m512i>; N]) -> [Tag; N] {
    let lengths = repeat(LENGTHS.to_le_bytes());
    let last = states.each_ref().map(|[_, _, c, ..]| sum(*c, lengths));
    for _ in 0..STEPS_AFTER {
        for ((state, last), next) in states.iter_mut().zip(last).zip(&mut *next) {
            update(state, last, last);
            look::<2>(next);
        }
    }
    states.map(|[a, b, c, d, e, f, g, _]| {
        let [tag, ..] = blocks(folded(sum3(sum3(a, b, c), sum3(d, e, f), g)));
        tag
    })
}
