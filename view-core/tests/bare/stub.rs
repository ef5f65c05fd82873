//! The core with a cipher that hides nothing: linked with nothing, it has no way to panic.
#![no_std]
#![no_main]

mod spine;
mod sys;

use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, SuiteId, Tag};

/// No secrecy at all: something that depends on every byte of the page and of its id.
struct Stub;

fn tag(id: &PageId, page: &view_core::Page) -> Tag {
    let mut tag = Tag::default();
    for (index, byte) in id.associated_data(Stub::SUITE).iter().chain(page.bytes()).enumerate() {
        if let Some(sum) = tag.get_mut(index & 15) {
            *sum = sum.rotate_left(1) ^ byte;
        }
    }
    #[cfg(feature = "planted")]
    {
        tag[0] = page.bytes()[core::hint::black_box(0)]; // planted
    }
    tag
}

impl PageCipher for Stub {
    const SUITE: SuiteId = SuiteId(0xff);
    const LANES: usize = 1;

    type Id = PageId;

    fn seal(&self, jobs: &mut [SealJob<'_>], _: Landing) {
        for job in jobs {
            job.settle(tag(job.id(), job.plain()));
            let (plain, sealed) = job.pages();
            sealed.clone_from(plain);
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>], _: Landing) {
        for job in jobs {
            let (sealed, plain) = job.pages();
            plain.clone_from(sealed);
            job.settle(&tag(job.id(), job.plain()));
        }
    }
}

fn main() -> Option<()> {
    spine::drive(&Stub).map(|receipts| {
        core::hint::black_box(receipts);
    })
}
