//! CTR over up to thirty-two pages and, a part behind it, the CBC-MACs of one side of them: each
//! page is read once and written once, and neither waits for the other.

use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use heapless::Vec;

use super::chains::ChainKeys;
use super::eight::{Eight, PARTS, Parts, parts, parts_mut};
use super::stream::{Counter, StreamKeys};
use super::turned::{GROUP, Turned};
use super::zmm::{put, sum};
use crate::page::Page;
use crate::suite::sequence::Once;
use crate::suite::{OpenJob, SealJob};

/// A page to go over once.
pub(super) trait Lane {
    /// What is read.
    fn source(&self) -> &Page;
    /// What is read, and what is written.
    fn pages(&mut self) -> (&Page, &mut Page);
}

impl Lane for SealJob<'_, Once> {
    fn source(&self) -> &Page {
        self.plain()
    }

    fn pages(&mut self) -> (&Page, &mut Page) {
        self.pages()
    }
}

impl Lane for OpenJob<'_> {
    fn source(&self) -> &Page {
        self.sealed()
    }

    fn pages(&mut self) -> (&Page, &mut Page) {
        self.pages()
    }
}

/// Every page of a group through the key stream that begins with its `first` counter, and the
/// chains after what was written, or after what was read if not `WRITTEN`. They start and end as
/// they are told to; lanes without a page chain zeroes, or what was there before.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn pass<J: Lane, const WRITTEN: bool, const COLD: bool>(
    (chain_keys, stream_keys): (&ChainKeys, &StreamKeys),
    (group, next): (&mut [J], &[J]),
    first: impl Fn(&J) -> [u8; 16],
    turned: &mut Turned,
    (mut chains, ends): (Eight, &Eight),
) -> Eight {
    let mut counts = Vec::<Counter, GROUP>::new();
    for job in &*group {
        if counts.push(Counter::new(stream_keys, first(job))).is_err() {
            break; // a group is no longer; collecting would panic if it were
        }
    }
    for (step, (job, count)) in group.iter_mut().zip(&counts).enumerate() {
        let stream = stream_keys.stream(count, 0);
        land::<J, WRITTEN, COLD>(job, next, turned, (0, step), stream);
    }
    for (before, part) in (1..PARTS).enumerate() {
        for (step, (job, count)) in group.iter_mut().zip(&counts).enumerate() {
            let sums = turned.add(chains, before, step);
            let stream;
            (chains, stream) = stream_keys.stream_beside(count, part, (chain_keys, sums));
            land::<J, WRITTEN, COLD>(job, next, turned, (part, step), stream);
        }
        for step in counts.len()..GROUP {
            chains = chain_keys.step(turned.add(chains, before, step));
        }
    }
    turned.end(ends);
    for step in 0..GROUP {
        chains = chain_keys.step(turned.add(chains, PARTS - 1, step));
    }
    chain_keys.plain(chains)
}

/// A part of the page whose turn it is: written, and made ready for its chain.
///
/// If `COLD`, the caller fences before anyone reads or writes the page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
#[expect(clippy::indexing_slicing, reason = "masked to what there is")]
fn land<J: Lane, const WRITTEN: bool, const COLD: bool>(
    job: &mut J,
    next: &[J],
    turned: &mut Turned,
    (part, step): (usize, usize),
    mut bytes: Eight,
) {
    let (from, to) = job.pages();
    let (page, to) = (parts(from), parts_mut(to));
    let from = &page[part & 7];
    for ((bytes, from), to) in bytes.iter_mut().zip(from).zip(&mut to[part & 7]) {
        *bytes = sum(*bytes, *from);
        // SAFETY: the caller fences if this is cold.
        unsafe { put::<COLD>(to, *bytes) };
    }
    turned.take(part, step, if WRITTEN { &bytes } else { from });
    ask_for(page, next.get(step).map(|job| parts(job.source())), part);
}

/// How many parts ahead memory is asked: less comes too late, more no longer fits the cache.
const AHEAD: usize = 2;

/// Asks for the lines of a page that come some parts later, or for those of the page after it, so
/// that they are near when their turn comes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn ask_for(page: &Parts, next: Option<&Parts>, part: usize) {
    let at = part.wrapping_add(AHEAD);
    if let Some(lines) = page.get(at).or_else(|| next?.get(at.wrapping_sub(PARTS))) {
        for line in lines {
            _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(line).cast());
        }
    }
}
