//! One page's line in an image: as stored, which proves nothing, and as believed.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::ImageError;
use crate::addr::{Epoch, Gfn, Version};
use crate::page::Page;
use crate::perm::{MaskId, PageKind, Perm};
use crate::state::PageState;
use crate::suite::{Landing, OpenJob, PageCipher, PageId, Stream, Tag};

const OPEN: u8 = 1 << 0;
const EXCLUDED: u8 = 1 << 1;

/// What is authenticated with a page that is not open.
const CLOSED: (PageKind, Perm, MaskId) = (PageKind::MEMORY, Perm::Read, MaskId::ALL);

/// One page's line as it is stored: 32 bytes that anybody could have written
/// (spec/sealed-image.md, "Records").
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Record {
    tag: Tag,
    version: U64,
    epoch_low: U32,
    kind: u8,
    perm: u8,
    mask: u8,
    flags: u8,
}

impl Record {
    /// The stored form of some records, to write.
    pub fn bytes(records: &[Self]) -> &[u8] {
        records.as_bytes()
    }

    /// The stored form of some records, to read into.
    pub fn bytes_mut(records: &mut [Self]) -> &mut [u8] {
        records.as_mut_bytes()
    }

    pub(super) fn new(id: &PageId, state: PageState, tag: Tag) -> Self {
        let open = if state.terms().is_some() { OPEN } else { 0 };
        let excluded = if id.excluded { EXCLUDED } else { 0 };
        Self {
            tag,
            version: U64::new(id.version.number()),
            epoch_low: low_half(id.epoch),
            kind: id.kind.0,
            perm: id.perm.code(),
            mask: id.mask.number(),
            flags: open | excluded,
        }
    }

    /// What the line says of this page of an image of this epoch. Its place says which page it
    /// is about, and the header which epoch; the line only has to agree.
    pub(super) fn read(&self, gfn: Gfn, epoch: Epoch) -> Result<GenuineRecord, ImageError> {
        self.understood(gfn, epoch).ok_or(ImageError::BadRecord(gfn))
    }

    fn understood(&self, gfn: Gfn, epoch: Epoch) -> Option<GenuineRecord> {
        let version = Version::new(self.version.get()).ok()?;
        let perm = [Perm::Read, Perm::ReadWrite].into_iter().find(|p| p.code() == self.perm)?;
        let (kind, mask) = (PageKind(self.kind), MaskId::new(self.mask)?);
        let terms = (kind, perm, mask);
        let open = self.flags & OPEN != 0;
        let written_by_us = version != Version::ZERO
            && self.epoch_low == low_half(epoch)
            && self.flags & !(OPEN | EXCLUDED) == 0
            && (open || terms == CLOSED)
            && (mask == MaskId::ALL || perm == Perm::Read);
        let state = if open { PageState::Open { kind, perm, mask } } else { PageState::Private };
        let excluded = self.flags & EXCLUDED != 0;
        written_by_us.then_some(GenuineRecord {
            gfn,
            epoch,
            version,
            state,
            excluded,
            tag: self.tag,
        })
    }
}

fn low_half(epoch: Epoch) -> U32 {
    let [a, b, c, d, ..] = epoch.0.to_le_bytes();
    U32::from_bytes([a, b, c, d])
}

/// What a verified manifest says about one page. Only a
/// [`GenuineManifest`](super::GenuineManifest) hands one out.
///
/// ```compile_fail,E0451
/// fn forge(gfn: view_core::Gfn) -> view_core::image::GenuineRecord {
///     view_core::image::GenuineRecord { gfn, ..todo!() }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenuineRecord {
    gfn: Gfn,
    epoch: Epoch,
    version: Version,
    state: PageState,
    excluded: bool,
    tag: Tag,
}

impl GenuineRecord {
    /// Which page.
    pub const fn gfn(&self) -> Gfn {
        self.gfn
    }

    /// What the page was: [`PageState::Open`] on these terms, or [`PageState::Private`].
    pub const fn state(&self) -> PageState {
        self.state
    }

    /// The version under which the image has it.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whether checkpoints leave the page out: its body is then a page of zeroes.
    pub const fn excluded(&self) -> bool {
        self.excluded
    }

    /// The tag that its body must have.
    pub const fn tag(&self) -> Tag {
        self.tag
    }

    /// What is authenticated with its body.
    pub fn page_id(&self) -> PageId {
        let (kind, perm, mask) = self.state.terms().unwrap_or(CLOSED);
        PageId {
            gfn: self.gfn,
            version: self.version,
            epoch: self.epoch,
            kind,
            perm,
            mask,
            stream: Stream::Image,
            excluded: self.excluded,
        }
    }

    /// Opens the page's body, alone. For many at once, give a cipher a list of jobs with
    /// [`page_id`](Self::page_id) and [`tag`](Self::tag).
    ///
    /// # Errors
    /// [`ImageError::PageForged`]; `plain` holds zeroes.
    pub fn open<C: PageCipher>(
        &self,
        cipher: &C,
        sealed: &Page,
        plain: &mut Page,
    ) -> Result<(), ImageError> {
        let (id, tag) = (self.page_id(), self.tag);
        let mut jobs = [OpenJob::new(id, sealed, tag, plain)];
        cipher.open(&mut jobs, Landing::Hot);
        let [job] = jobs;
        if job.genuine() { Ok(()) } else { Err(ImageError::PageForged(self.gfn)) }
    }
}
