//! AES-256-GCM with VAES and VPCLMULQDQ at 512 bits: a page in one pass, eight lines at a time.
//!
//! The blocks of a page are independent but for one sum, so a page alone keeps the machine busy.
//! Four pages share what comes before and after the text: a vector of their associated data, of
//! their first counters, of their lengths.

use core::arch::x86_64::_mm_sfence;

use super::Vaes512;
use super::ghash_vaes512::{Powers, Products, STEP, folded, reversed};
use super::pass::{Pass, ahead, want};
use super::stream::{Counter, StreamKeys};
use super::zmm::{Keys, Lines, blocks, encrypt, four, lines, lines_mut, put, repeat, sum, zero};
use crate::key::GcmKey;
use crate::suite::aes_256_gcm::{Aes256Gcm, nonce};
use crate::suite::gcm::counter;
use crate::suite::sequence::Once;
use crate::suite::{Landing, OpenJob, PageCipher, SealJob, Tag};

/// How many pages ahead lines are asked for.
const AHEAD: usize = 2;

/// Pages whose tags are compared together: only then the written lines are ordered.
const TOGETHER: usize = 64;

/// The last block of GHASH: the bits of 32 bytes of associated data and of a page, turned.
const LENGTHS: u128 = (256 << 64) | (4096 * 8);

/// The key, expanded for this kernel. It exists only where the machine can run it.
pub(in crate::suite) struct Kernel {
    keys: StreamKeys,
    powers: Powers,
}

impl Kernel {
    pub(in crate::suite) fn new(proof: Vaes512, key: &GcmKey) -> Self {
        let keys = StreamKeys::new(proof, key.expose());
        // SAFETY: the proof says that the machine has what this is compiled for.
        let powers = unsafe { powers(keys.keys()) };
        Self { keys, powers }
    }

    pub(in crate::suite) fn seal(&self, jobs: &mut [SealJob<'_, Once>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { seal::<false>(self, jobs) },
            // SAFETY: as above.
            Landing::Cold => unsafe { seal::<true>(self, jobs) },
        }
    }

    pub(in crate::suite) fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match landing {
            // SAFETY: there is a kernel only where the machine has what this is compiled for.
            Landing::Hot => unsafe { open::<false>(self, jobs) },
            // SAFETY: as above.
            Landing::Cold => unsafe { open::<true>(self, jobs) },
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn powers(keys: &Keys) -> Powers {
    let mut subkey = [zero()];
    encrypt(keys, &mut subkey);
    let [subkey] = subkey.map(blocks);
    let [subkey, ..] = subkey;
    Powers::new(subkey)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn seal<const COLD: bool>(kernel: &Kernel, jobs: &mut [SealJob<'_, Once>]) {
    for at in (0..jobs.len()).step_by(4) {
        let tags = four_pages::<_, COLD>(kernel, jobs, at);
        for (job, tag) in jobs.iter_mut().skip(at).zip(tags) {
            job.settle(tag);
        }
    }
    if COLD {
        _mm_sfence();
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn open<const COLD: bool>(kernel: &Kernel, jobs: &mut [OpenJob<'_>]) {
    for start in (0..jobs.len()).step_by(TOGETHER) {
        let mut found = [[[0; 16]; 4]; TOGETHER / 4];
        for (at, tags) in (start..jobs.len()).step_by(4).zip(&mut found) {
            *tags = four_pages::<_, COLD>(kernel, jobs, at);
        }
        if COLD {
            _mm_sfence();
        }
        for (job, tag) in jobs.iter_mut().skip(start).zip(found.as_flattened()) {
            job.settle(tag);
        }
    }
}

/// Up to four pages of the list from a place on, and what their tags are.
///
/// If `COLD`, the caller fences before it reads or writes the pages.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn four_pages<'a, J: Pass<'a>, const COLD: bool>(
    kernel: &Kernel,
    jobs: &mut [J],
    at: usize,
) -> [Tag; 4] {
    let next: [_; 4] = ahead(jobs, at.wrapping_add(AHEAD));
    let group = jobs.get_mut(at..).unwrap_or_default();
    let Some(id) = group.first().map(|job| *job.id()) else { return [[0; 16]; 4] };
    let ids = core::array::from_fn(|lane| group.get(lane).map_or(id, |job| *job.id()));
    let nonces = ids.map(|id| nonce(&id));

    let mut masks = [four(nonces.map(|nonce| counter(&nonce, 1)))];
    encrypt(kernel.keys.keys(), &mut masks);
    let [masks] = masks;
    let data: [[[u8; 16]; 2]; 4] =
        ids.map(|id| zerocopy::transmute!(id.associated_data(Aes256Gcm::SUITE)));
    let mut before = Products::none();
    before.add(reversed(four(data.map(|[first, _]| first))), &kernel.powers.second);
    before.add(reversed(four(data.map(|[_, second]| second))), &kernel.powers.first);

    let mut sums = blocks(before.reduced());
    for (((job, nonce), sum), next) in group.iter_mut().zip(nonces).zip(&mut sums).zip(next) {
        let (from, to) = job.pages();
        let (from, to) = (lines(from), lines_mut(to));
        *sum = page::<J, COLD>(kernel, counter(&nonce, 2), *sum, from, to, next.unwrap_or(from));
    }

    let mut after = Products::none();
    after.add(sum(four(sums), repeat(LENGTHS.to_le_bytes())), &kernel.powers.first);
    blocks(sum(reversed(after.reduced()), masks))
}

/// GCTR over a page, and GHASH of the sealed side of it from the sum so far, turned.
///
/// If `COLD`, the caller fences before it reads or writes the page.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
fn page<'a, J: Pass<'a>, const COLD: bool>(
    Kernel { keys, powers }: &Kernel,
    first: [u8; 16],
    before: [u8; 16],
    from: &Lines,
    to: &mut Lines,
    next: &Lines,
) -> [u8; 16] {
    let count = Counter::new(keys, first);
    let mut carry = four([before, [0; 16], [0; 16], [0; 16]]);
    let (from, _) = from.as_chunks::<STEP>();
    let (to, _) = to.as_chunks_mut::<STEP>();
    let (next, _) = next.as_chunks::<STEP>();
    for (part, ((from, to), next)) in from.iter().zip(to).zip(next).enumerate() {
        let stream = keys.stream(&count, part);
        let mut products = Products::none();
        let lines = from.iter().zip(to).zip(next).zip(stream).zip(&powers.step);
        for ((((from, to), next), stream), power) in lines {
            let line = sum(*from, stream);
            // SAFETY: the caller fences if this is cold.
            unsafe { put::<COLD>(to, line) };
            want(next);
            let sealed = reversed(if J::SEALS { line } else { *from });
            products.add(sum(sealed, carry), power);
            carry = zero();
        }
        carry = folded(products.reduced());
    }
    let [sum, ..] = blocks(carry);
    sum
}
