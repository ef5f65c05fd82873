//! Reading an image: header, then trailer and records, then state and pages in any order.

use core::fmt;

use subtle::ConstantTimeEq;

use super::error::ImageError;
use super::geometry::{Geometry, fits};
use super::header::{Block, Header};
use super::record::{GenuineRecord, Record};
use super::root::{ImageRoot, TRAILER_SIZE, Trailer};
use super::tree::Tree;
use super::writer::state_ad;
use crate::addr::Gfn;
use crate::key::{EpochKey, RootKey, SivKey};
use crate::suite::siv::Siv512;
use crate::suite::{Stream, Tag};

/// An image whose header is genuine.
pub struct ImageReader {
    key: EpochKey,
    header: Header,
    geometry: Geometry,
    header_tag: Tag,
}

impl ImageReader {
    /// Checks a header under the owner's key. `bytes` is the beginning of the image, `length` how
    /// long the file is; `None` for a pipe, whose reader sees for itself that it ends in time.
    ///
    /// Genuine is not yet wanted: compare [`Header::vm`] and [`Header::sequence`] with what you
    /// expect, or pin a root.
    ///
    /// # Errors
    /// Whatever spec/sealed-image.md, "Reading", lists under 1 to 5.
    pub fn open(root: &RootKey, bytes: &[u8], length: Option<u64>) -> Result<Self, ImageError> {
        let block = Block::of(bytes)?;
        let header = block.claims();
        let key = root.vm(&header.vm).epoch(header.epoch, &header.salt, header.suite);
        let header_tag = block.verify(&key, &Siv512::new(key.state().expose()))?;
        let geometry = header.geometry()?;
        if let Some(found) = length {
            geometry.check(found)?;
        }
        Ok(Self { key, header, geometry, header_tag })
    }

    /// What the header says.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Where everything is.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The key of the pages' cipher.
    pub fn page_key(&self) -> SivKey {
        self.key.siv(Stream::Image.id())
    }

    /// Checks the trailer, that the image is the pinned one if one is, and the records.
    ///
    /// The records stay borrowed as long as they are believed: what was checked is what is used.
    ///
    /// # Errors
    /// Whatever spec/sealed-image.md, "Reading", lists under 6 and 7, and
    /// [`ImageError::WrongBuffer`] if there are more or fewer records than pages.
    pub fn verify<'a>(
        &'a self,
        records: &'a [Record],
        trailer: &[u8; TRAILER_SIZE],
        pinned: Option<ImageRoot>,
    ) -> Result<GenuineManifest<'a>, ImageError> {
        fits(&self.geometry.records(), Record::bytes(records))?;
        let trailer: &Trailer = zerocopy::transmute_ref!(trailer);
        let key = self.key.manifest();
        let root = trailer.verify(&key, self.header.pages, &self.header_tag)?;
        if pinned.is_some_and(|pinned| pinned != root) {
            return Err(ImageError::NotPinned);
        }
        let mut tree = Tree::new(&key);
        for record in records {
            tree.push(record);
        }
        if !bool::from(tree.finish().ct_eq(&trailer.manifest)) {
            return Err(ImageError::RecordsForged);
        }
        for (gfn, record) in numbered(records) {
            record.read(gfn, self.header.epoch)?;
        }
        Ok(GenuineManifest { reader: self, records, state_tag: trailer.state_tag, root })
    }
}

impl fmt::Debug for ImageReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageReader").field("header", &self.header).finish_non_exhaustive()
    }
}

/// What an image holds, verified. Only [`ImageReader::verify`] makes one.
#[derive(Clone, Copy, Debug)]
pub struct GenuineManifest<'a> {
    reader: &'a ImageReader,
    records: &'a [Record],
    state_tag: Tag,
    root: ImageRoot,
}

impl<'a> GenuineManifest<'a> {
    /// The name of the whole image.
    pub const fn root(&self) -> ImageRoot {
        self.root
    }

    /// What it says about a page; `None` if the image has no such page.
    pub fn record(&self, gfn: Gfn) -> Option<GenuineRecord> {
        let record = self.records.get(usize::try_from(gfn.number()).ok()?)?;
        record.read(gfn, self.reader.header.epoch).ok()
    }

    /// What it says about every page, in order.
    pub fn records(&self) -> impl Iterator<Item = GenuineRecord> + use<'a> {
        let epoch = self.reader.header.epoch;
        numbered(self.records).filter_map(move |(gfn, record)| record.read(gfn, epoch).ok())
    }

    /// Opens the sealed state in place and returns it without its padding.
    ///
    /// # Errors
    /// [`ImageError::StateForged`], and the buffer is wiped; [`ImageError::WrongBuffer`], and it
    /// is as it was.
    pub fn open_state<'b>(&self, sealed: &'b mut [u8]) -> Result<&'b mut [u8], ImageError> {
        let reader = self.reader;
        fits(&reader.geometry.state(), sealed)?;
        let siv = Siv512::new(reader.key.state().expose());
        siv.open(&state_ad(&reader.header_tag), sealed, &self.state_tag)
            .map_err(|_| ImageError::StateForged)?;
        sealed.get_mut(..reader.geometry.state_len()).ok_or(ImageError::StateForged)
    }
}

/// Records with the page that each one's place says it is about.
fn numbered(records: &[Record]) -> impl Iterator<Item = (Gfn, &Record)> {
    (0..).map_while(|number| Gfn::new(number).ok()).zip(records)
}
