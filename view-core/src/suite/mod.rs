//! Page sealing: what is authenticated with a page, and the trait that every suite implements.
//!
//! A suite seals lists of pages, because several pages in flight are what makes two passes of AES
//! cost little more than a copy. It never sees bytes that a CPU can still change: the platform
//! copies once into staging pages of its own (spec/invariants.md, I6).

pub mod siv;
pub mod siv_cmac_512;

use crate::addr::{Epoch, Gfn, Version};
use crate::page::Page;
use crate::perm::{MaskId, PageKind, Perm};

/// Which suite sealed a page. Authenticated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuiteId(pub u8);

/// What proves that a sealed page is the one that was meant: the synthetic IV of SIV.
pub type Tag = [u8; 16];

/// Where sealed bytes are headed. Authenticated, so that no stream's page is accepted in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stream {
    /// A sealed replica that the management side maps or is sent.
    View = 1,
    /// Sealed in place or paged out; comes back to the same VM in the same epoch.
    Resident = 2,
    /// A sealed image (snapshot, checkpoint).
    Image = 3,
}

/// Everything that is authenticated with a page beside its bytes.
///
/// The verifier fills it in from its own table, never from the record that came with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId {
    /// Which page.
    pub gfn: Gfn,
    /// Which sealing of it.
    pub version: Version,
    /// Which incarnation of the VM.
    pub epoch: Epoch,
    /// What the page is for.
    pub kind: PageKind,
    /// What the management side may do with it while it is open.
    pub perm: Perm,
    /// Which fields show while it is open.
    pub mask: MaskId,
    /// Where the sealed bytes are headed.
    pub stream: Stream,
    /// Whether the page is excluded from checkpoints.
    pub excluded: bool,
}

impl PageId {
    /// The 32 bytes of associated data, two AES blocks, all numbers little-endian
    /// (layout: spec/sealed-image.md, "Associated data").
    pub fn associated_data(&self, suite: SuiteId) -> [u8; 32] {
        const DOMAIN_PAGE: u8 = 0x50;
        const LOG2_PAGE_SIZE: u8 = 12;
        let flags = u8::from(self.excluded) << 2;
        let stream = match self.stream {
            Stream::View => 1,
            Stream::Resident => 2,
            Stream::Image => 3,
        };
        let head = [
            DOMAIN_PAGE,
            suite.0,
            LOG2_PAGE_SIZE,
            flags,
            stream,
            self.kind.0,
            self.perm.code(),
            self.mask.number(),
        ];
        let mut data = [0; 32];
        let words = [
            head,
            self.gfn.number().to_le_bytes(),
            self.version.number().to_le_bytes(),
            self.epoch.0.to_le_bytes(),
        ];
        for (to, word) in data.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word);
        }
        data
    }
}

/// One page to seal: plain bytes in, sealed bytes and tag out.
#[derive(Debug)]
pub struct SealJob<'a> {
    /// What is authenticated beside the bytes.
    pub id: PageId,
    /// Plain bytes that nobody else can change.
    pub plain: &'a Page,
    /// Where the sealed bytes go.
    pub sealed: &'a mut Page,
    /// Written by the suite.
    pub tag: Tag,
}

/// One page to open: sealed bytes and tag in, plain bytes and a verdict out.
#[derive(Debug)]
pub struct OpenJob<'a> {
    /// What the verifier's own table says about the page.
    pub id: PageId,
    /// Sealed bytes that nobody else can change.
    pub sealed: &'a Page,
    /// The tag that the verifier expects.
    pub tag: Tag,
    /// Where the plain bytes go; zeroed if the page is not genuine.
    pub plain: &'a mut Page,
    /// Whether the page is genuine. Written by the suite.
    pub genuine: bool,
}

/// A suite with its key: seals and opens lists of pages, several in flight at once.
///
/// Sealing takes `&self`, so that one cipher serves any number of threads.
pub trait PageCipher {
    /// The suite's name in records and associated data.
    const SUITE: SuiteId;
    /// How many pages the suite likes to have in flight; shorter lists work and cost more a page.
    const LANES: usize;

    /// Seals every job: on return `sealed` and `tag` are those of `id` and `plain`.
    fn seal(&self, jobs: &mut [SealJob<'_>]);

    /// Opens every job: on return `genuine` says whether `tag` matches, in time that does not
    /// depend on how wrong it was, and `plain` holds the bytes or zeroes.
    fn open(&self, jobs: &mut [OpenJob<'_>]);
}
