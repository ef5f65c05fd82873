//! Lists of pages through a suite: the jobs of one call, on the stack.

use view_core::Page;
use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Tag};

use crate::candidate::{LIST_MAX, Work};

/// Lists up to this long have a buffer of their own, so that short ones stay cheap.
const LIST_SHORT: usize = 64;

/// Seals one list and returns the id of its first page.
pub fn seal<C: PageCipher>(
    cipher: &C,
    sealed_as: impl FnMut(u64) -> C::Id,
    work: Work<'_>,
) -> Option<PageId> {
    match work.from.len() {
        ..=LIST_SHORT => seal_within::<C, LIST_SHORT>(cipher, sealed_as, work),
        _ => seal_within::<C, LIST_MAX>(cipher, sealed_as, work),
    }
}

#[inline(never)]
fn seal_within<C: PageCipher, const MAX: usize>(
    cipher: &C,
    mut sealed_as: impl FnMut(u64) -> C::Id,
    work: Work<'_>,
) -> Option<PageId> {
    let mut jobs = heapless::Vec::<SealJob<'_, C::Id>, MAX>::new();
    for ((number, plain), sealed) in (work.first..).zip(work.from).zip(work.to) {
        let job = SealJob::new(sealed_as(number), plain, sealed);
        assert!(jobs.push(job).is_ok(), "no list is longer than {MAX}");
    }
    cipher.seal(&mut jobs, work.landing);
    for (tag, job) in work.tags.iter_mut().zip(&jobs) {
        *tag = job.tag();
    }
    jobs.first().map(|job| *job.id())
}

/// Opens one list that was sealed under the ids of [`id`](crate::id); whether all were genuine.
pub fn open<C: PageCipher>(cipher: &C, work: Work<'_>) -> bool {
    match work.from.len() {
        ..=LIST_SHORT => open_within::<C, LIST_SHORT>(cipher, work),
        _ => open_within::<C, LIST_MAX>(cipher, work),
    }
}

#[inline(never)]
fn open_within<C: PageCipher, const MAX: usize>(cipher: &C, work: Work<'_>) -> bool {
    let mut jobs = heapless::Vec::<OpenJob<'_>, MAX>::new();
    let pages = work.from.iter().zip(work.to).zip(work.tags);
    for (number, ((sealed, plain), tag)) in (work.first..).zip(pages) {
        let job = OpenJob::new(crate::id(number), sealed, *tag, plain);
        assert!(jobs.push(job).is_ok(), "no list is longer than {MAX}");
    }
    cipher.open(&mut jobs, work.landing);
    jobs.iter().all(OpenJob::genuine)
}

/// Opens one page under one id; whether it was genuine.
pub(crate) fn open_one<C: PageCipher>(
    cipher: &C,
    id: PageId,
    sealed: &Page,
    tag: &Tag,
    plain: &mut Page,
) -> bool {
    let mut job = [OpenJob::new(id, sealed, *tag, plain)];
    cipher.open(&mut job, Landing::Hot);
    job[0].genuine()
}
