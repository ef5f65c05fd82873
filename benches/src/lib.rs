//! What the benches share: pages to work on, and the naive peer that every claim is held against.

use aes::{Aes256, Aes256Enc};
use cipher::{InnerIvInit, KeyInit, StreamCipher};
use cmac::{Cmac, Mac};
use view_core::key::SivKey;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Stream, SuiteId, Tag};
use view_core::{Epoch, Gfn, MaskId, Page, PageKind, Perm, Version};

/// A key like any other.
pub fn key() -> SivKey {
    SivKey::new(core::array::from_fn(|i| u8::try_from(i).unwrap_or(0).wrapping_mul(37)))
}

/// The id of the page with this number.
pub fn id(number: u64) -> PageId {
    PageId {
        gfn: Gfn::new(number).unwrap_or(Gfn::MAX),
        version: Version::new(1).unwrap_or(Version::MAX),
        epoch: Epoch(7),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream: Stream::Image,
        excluded: false,
    }
}

/// Pages that are all different.
pub fn pages(count: usize) -> Vec<Page> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let page = |_| {
        let mut page = Page::zeroed();
        for word in page.bytes_mut().as_chunks_mut::<8>().0 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *word = (state ^ (state >> 33)).to_le_bytes();
        }
        page
    };
    (0..count).map(page).collect()
}

/// Seals `plain` into `sealed`, `batch` pages to a call.
pub fn seal(
    suite: &SivCmac512,
    batch: usize,
    plain: &[Page],
    sealed: &mut [Page],
    tags: &mut [Tag],
) {
    let lists = plain.chunks(batch).zip(sealed.chunks_mut(batch)).zip(tags.chunks_mut(batch));
    let mut number = 0;
    for ((plain, sealed), tags) in lists {
        let mut jobs: Vec<_> = plain
            .iter()
            .zip(sealed)
            .map(|(plain, sealed)| {
                number += 1;
                SealJob::new(id(number), plain, sealed)
            })
            .collect();
        suite.seal(&mut jobs, Landing::Hot);
        for (tag, job) in tags.iter_mut().zip(&jobs) {
            *tag = job.tag();
        }
    }
}

/// Opens `sealed` into `plain`, `batch` pages to a call; whether all were genuine.
pub fn open(
    suite: &SivCmac512,
    batch: usize,
    sealed: &[Page],
    tags: &[Tag],
    plain: &mut [Page],
) -> bool {
    let lists = sealed.chunks(batch).zip(plain.chunks_mut(batch)).zip(tags.chunks(batch));
    let (mut number, mut genuine) = (0, true);
    for ((sealed, plain), tags) in lists {
        let mut jobs: Vec<_> = sealed
            .iter()
            .zip(plain)
            .zip(tags)
            .map(|((sealed, plain), tag)| {
                number += 1;
                OpenJob::new(id(number), sealed, *tag, plain)
            })
            .collect();
        suite.open(&mut jobs, Landing::Hot);
        genuine &= jobs.iter().all(OpenJob::genuine);
    }
    genuine
}

/// What one writes first: CTR and then CMAC over the sealed bytes, a page at a time, with the
/// `ctr` and `cmac` crates and both key schedules kept.
#[derive(Debug)]
pub struct Naive {
    ctr: Aes256Enc,
    mac: Cmac<Aes256>,
}

impl Naive {
    /// The peer under the same two keys.
    pub fn new(key: &SivKey) -> Self {
        let (mac, ctr) = key.expose().split_at(32);
        Self {
            ctr: Aes256Enc::new_from_slice(ctr).expect("32 bytes"),
            mac: Cmac::new_from_slice(mac).expect("32 bytes"),
        }
    }

    fn stream(&self, id: &PageId, from: &Page, to: &mut Page) {
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&id.gfn.number().to_be_bytes());
        iv[8..12].copy_from_slice(&id.version.number().to_be_bytes()[4..]);
        let core = ctr::CtrCore::inner_iv_init(&self.ctr, &iv.into());
        let mut stream = ctr::Ctr128BE::from_core(core);
        stream.apply_keystream_b2b(from.bytes(), to.bytes_mut());
    }

    fn tag(&self, id: &PageId, sealed: &Page) -> Cmac<Aes256> {
        let mut mac = self.mac.clone();
        mac.update(&id.associated_data(SuiteId(2)));
        mac.update(sealed.bytes());
        mac
    }

    /// Seals one page after the other.
    pub fn seal(&self, plain: &[Page], sealed: &mut [Page], tags: &mut [Tag]) {
        for (((plain, sealed), tag), number) in plain.iter().zip(sealed).zip(tags).zip(1..) {
            let id = id(number);
            self.stream(&id, plain, sealed);
            *tag = self.tag(&id, sealed).finalize().into_bytes().into();
        }
    }

    /// Opens one page after the other; whether all were genuine.
    pub fn open(&self, sealed: &[Page], tags: &[Tag], plain: &mut [Page]) -> bool {
        let mut genuine = true;
        for (((sealed, plain), tag), number) in sealed.iter().zip(plain).zip(tags).zip(1..) {
            let id = id(number);
            genuine &= self.tag(&id, sealed).verify(tag.into()).is_ok();
            self.stream(&id, sealed, plain);
        }
        genuine
    }
}
