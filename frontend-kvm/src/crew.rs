//! Long lists of pages through one cipher, by several threads where that pays.
//!
//! A suite is one thread's work, and a cipher serves any number of them. Here nothing is known of
//! what the pages are or what becomes of them. Where no further thread can be had the caller's own
//! does it all; what comes out is the same, bit for bit.

use std::sync::{Mutex, PoisonError};
use std::thread;

use view_core::suite::{Landing, OpenJob, PageCipher, SealJob};

use crate::harden;

/// Pages that pay for a thread: it starts in the time that a few dozen of them take.
const SHARE_MIN: usize = 128;
/// However many CPUs there are: the rest is the guest's.
const THREADS_MAX: usize = 4;

/// Seals every job, as [`PageCipher::seal`] does.
pub fn seal<C>(cipher: &C, jobs: &mut [SealJob<'_, C::Id>], landing: Landing)
where
    C: PageCipher<Id: Send> + Sync,
{
    let threads = threads(jobs.len());
    spread(jobs, threads, |jobs| cipher.seal(jobs, landing));
}

/// Opens every job, as [`PageCipher::open`] does.
pub fn open<C>(cipher: &C, jobs: &mut [OpenJob<'_>], landing: Landing)
where
    C: PageCipher + Sync,
{
    let threads = threads(jobs.len());
    spread(jobs, threads, |jobs| cipher.open(jobs, landing));
}

/// By how many threads so many pages are done best. The kernel is asked, and no file is opened:
/// once confined, the process could not.
fn threads(pages: usize) -> usize {
    match (pages / SHARE_MIN).min(THREADS_MAX) {
        wanted @ ..2 => wanted,
        wanted => wanted.min(harden::cpus()),
    }
}

fn spread<J: Send>(jobs: &mut [J], threads: usize, work: impl Fn(&mut [J]) + Sync) {
    if threads < 2 {
        return work(jobs);
    }
    let shares = Mutex::new(jobs.chunks_mut(jobs.len().div_ceil(threads).max(1)));
    let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
    let help = || {
        while let Some(share) = next() {
            work(share);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Who doesn't start leaves its share to the others, the caller among them.
            let _ = thread::Builder::new().spawn_scoped(scope, help);
        }
        help();
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use view_core::key::SivKey;
    use view_core::suite::siv_cmac_512::SivCmac512;
    use view_core::suite::{PageId, Stream, Tag};
    use view_core::{Epoch, Gfn, MaskId, Page, PageKind, Perm, Version};

    use super::*;

    const PAGES: usize = 600;

    fn id(number: usize) -> PageId {
        PageId {
            gfn: Gfn::new(number as u64).unwrap(),
            version: Version::new(3).unwrap(),
            epoch: Epoch(7),
            kind: PageKind::MEMORY,
            perm: Perm::Read,
            mask: MaskId::ALL,
            stream: Stream::Image,
            excluded: false,
        }
    }

    fn plain() -> Vec<Page> {
        let mut pages = vec![Page::zeroed(); PAGES];
        for (number, page) in pages.iter_mut().enumerate() {
            let words = page.bytes_mut().as_chunks_mut::<8>().0.iter_mut().enumerate();
            words.for_each(|(at, word)| *word = (number * 512 + at).to_le_bytes());
        }
        pages
    }

    fn seal_by(threads: usize, plain: &[Page], sealed: &mut [Page]) -> Vec<Tag> {
        let cipher = SivCmac512::new(&SivKey::new([5; 64]));
        let pages = plain.iter().zip(sealed).enumerate();
        let mut jobs: Vec<_> = pages
            .map(|(number, (plain, sealed))| SealJob::new(id(number), plain, sealed))
            .collect();
        spread(&mut jobs, threads, |jobs| cipher.seal(jobs, Landing::Hot));
        jobs.iter().map(SealJob::tag).collect()
    }

    #[test]
    fn several_threads_seal_what_one_seals_whatever_the_length() {
        let plain = plain();
        let mut one = vec![Page::zeroed(); PAGES];
        let tags = seal_by(1, &plain, &mut one);
        let mut several = vec![Page::zeroed(); PAGES];
        for pages in (0..=PAGES).step_by(7).chain([1, 2, 3, 128, 255, 256, 257, 599]) {
            for threads in 2..=THREADS_MAX {
                let sealed = &mut several[..pages];
                assert_eq!(seal_by(threads, &plain[..pages], sealed), tags[..pages]);
                let same = sealed.iter().zip(&one).all(|(a, b)| a.bytes() == b.bytes());
                assert!(same, "{pages} pages by {threads} threads");
                sealed.fill(Page::zeroed());
            }
        }
    }

    #[test]
    fn whoever_opens_a_forged_page_it_alone_is_refused() {
        let plain = plain();
        let mut sealed = vec![Page::zeroed(); PAGES];
        let tags = seal_by(1, &plain, &mut sealed);
        let cipher = SivCmac512::new(&SivKey::new([5; 64]));
        let mut opened = vec![Page::zeroed(); PAGES];
        for forged in [0, 149, 150, 151, 300, 599] {
            sealed[forged].bytes_mut()[77] ^= 1;
            for threads in 1..=THREADS_MAX {
                let pages = sealed.iter().zip(&mut opened).zip(&tags).enumerate();
                let job = |(number, ((sealed, plain), tag)): (_, ((_, _), &Tag))| {
                    OpenJob::new(id(number), sealed, *tag, plain)
                };
                let mut jobs: Vec<_> = pages.map(job).collect();
                spread(&mut jobs, threads, |jobs| cipher.open(jobs, Landing::Hot));
                for (number, (job, plain)) in jobs.iter().zip(&plain).enumerate() {
                    assert_eq!(job.genuine(), number != forged);
                    let zeroes = Page::zeroed();
                    let due = if number == forged { &zeroes } else { plain };
                    assert!(job.plain().bytes() == due.bytes(), "page {number}");
                }
            }
            sealed[forged].bytes_mut()[77] ^= 1;
        }
    }

    #[test]
    fn short_lists_start_no_thread_and_long_ones_have_no_more_than_they_pay_for() {
        for pages in [0, 1, 64, 255] {
            assert!(threads(pages) < 2, "{pages} pages");
        }
        for pages in [256, 512, 10_000] {
            assert_eq!(threads(pages), (pages / SHARE_MIN).min(THREADS_MAX).min(harden::cpus()));
        }
        let seen = Mutex::new(BTreeSet::new());
        let seen_by = |jobs: &mut [u32]| {
            let me = format!("{:?}", thread::current().id());
            seen.lock().unwrap().insert(me);
            thread::sleep(std::time::Duration::from_millis(50 * jobs.len() as u64));
        };
        spread(&mut [0; 4], 4, seen_by);
        assert!(seen.lock().unwrap().len() > 1, "nobody helped");
    }
}
