//! Writing an image: header first, trailer last, nothing twice.

use core::fmt;

use zeroize::Zeroize;

use super::error::ImageError;
use super::geometry::{Geometry, fits};
use super::header::{Block, HEADER_SIZE, Header};
use super::record::Record;
use super::root::{ImageRoot, TRAILER_SIZE, Trailer};
use super::tree::Tree;
use crate::addr::Epoch;
use crate::batch::Receipt;
use crate::key::EpochKey;
use crate::state::PageState;
use crate::suite::Tag;
use crate::suite::siv::Siv512;

/// Keeps states apart from headers, under one key.
const DOMAIN_STATE: u8 = 0x53;

/// An image on its way out. The caller writes what it hands over, in this order: header, bodies,
/// state, records, trailer.
///
/// The platform seals the pages; the writer takes their receipts in the order of gfn, turns them
/// into records and folds these into the manifest at once. It keeps none: the caller does, 32
/// bytes a page, until the bodies are out.
#[must_use = "an image without its trailer is refused by every reader"]
pub struct ImageWriter {
    key: EpochKey,
    epoch: Epoch,
    geometry: Geometry,
    header_tag: Tag,
    tree: Tree,
}

impl ImageWriter {
    /// Begins an image and fills in its header. The key is that of the header's VM, epoch, salt
    /// and suite, the one from which the cipher of the pages comes.
    ///
    /// # Errors
    /// [`ImageError::TooManyPages`], [`ImageError::StateTooLong`], [`ImageError::UnknownSuite`].
    pub fn new(
        key: &EpochKey,
        header: &Header,
        block: &mut [u8; HEADER_SIZE],
    ) -> Result<Self, ImageError> {
        let geometry = header.geometry()?;
        let block: &mut Block = zerocopy::transmute_mut!(block);
        let header_tag = block.fill(header, key, &Siv512::new(key.state().expose()))?;
        let tree = Tree::new(&key.manifest());
        Ok(Self { key: key.clone(), epoch: header.epoch, geometry, header_tag, tree })
    }

    /// Where everything goes.
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Takes the receipt of the next page, exported to [`Stream::Image`](crate::suite::Stream),
    /// and returns its record.
    ///
    /// # Errors
    /// [`ImageError::OutOfOrder`], and [`ImageError::NotForThisImage`] if it was not sealed, or
    /// under another epoch, for another stream or on other terms. The image goes on as it was.
    pub fn record(&mut self, receipt: &Receipt) -> Result<Record, ImageError> {
        let gfn = receipt.gfn;
        if gfn.number() != self.tree.records() || self.geometry.body(gfn).is_none() {
            return Err(ImageError::OutOfOrder(gfn));
        }
        let stranger = ImageError::NotForThisImage(gfn);
        let (id, tag) = receipt.sealed.ok_or(stranger)?;
        let record = Record::new(&id, receipt.sealed_as, tag);
        // Right is what a reader will make of it.
        let read = record.read(gfn, self.epoch).map_err(|_| stranger)?;
        if read.page_id() != id || read.state() != at_rest(receipt.sealed_as) {
            return Err(stranger);
        }
        self.tree.push(&record);
        Ok(record)
    }

    /// Seals the state in place and ends the image: the trailer, and the root to pin.
    ///
    /// `state` has the length of its part of the image; what lies behind the header's
    /// `state_len` is overwritten with zeroes first.
    ///
    /// # Errors
    /// [`ImageError::Unfinished`], [`ImageError::WrongBuffer`]; the state is as it was, in plain.
    pub fn finish(self, state: &mut [u8]) -> Result<([u8; TRAILER_SIZE], ImageRoot), ImageError> {
        let (recorded, pages) = (self.tree.records(), self.geometry.pages());
        if recorded != pages {
            return Err(ImageError::Unfinished { recorded, pages });
        }
        fits(&self.geometry.state(), state)?;
        if let Some(padding) = state.get_mut(self.geometry.state_len()..) {
            padding.zeroize();
        }
        let siv = Siv512::new(self.key.state().expose());
        let state_tag = siv.seal(&state_ad(&self.header_tag), state);
        let manifest = self.tree.finish();
        let trailer =
            Trailer::new(&self.key.manifest(), pages, &self.header_tag, state_tag, manifest);
        Ok((zerocopy::transmute!(trailer), trailer.root()))
    }
}

impl fmt::Debug for ImageWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageWriter")
            .field("geometry", &self.geometry)
            .field("tree", &self.tree)
            .finish_non_exhaustive()
    }
}

/// What is authenticated with a state. The header's tag stands for the VM, the epoch, the
/// sequence and both lengths.
pub(super) const fn state_ad(header_tag: &Tag) -> [&[u8]; 2] {
    [&[DOMAIN_STATE], header_tag]
}

/// What a page is in an image: the management side's replica does not survive.
const fn at_rest(state: PageState) -> PageState {
    if matches!(state, PageState::Replica) { PageState::Private } else { state }
}
