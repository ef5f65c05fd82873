//! Where the parts of an image are. Everything follows from two numbers of the header.

use core::ops::Range;

use super::error::ImageError;
use super::header::HEADER_SIZE;
use super::record::Record;
use super::root::TRAILER_SIZE;
use crate::addr::Gfn;
use crate::page::PAGE_SIZE;

const PAGE: u64 = 4096;
const RECORD: u64 = 32;
const TRAILER: u64 = 48;

// Written twice, since a conversion is not a constant here.
const _: () = assert!(PAGE_SIZE == 4096);
const _: () = assert!(HEADER_SIZE == 4096);
const _: () = assert!(size_of::<Record>() == 32);
const _: () = assert!(TRAILER_SIZE == 48);

/// Byte ranges of an image (spec/sealed-image.md, "The stream"). Only as true as the header that
/// it was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pages: u64,
    state_len: u64,
}

impl Geometry {
    /// The most pages that an image can have: one for each guest frame number.
    pub const PAGES_MAX: u64 = 1 << Gfn::BITS;
    /// The longest state, in bytes.
    pub const STATE_MAX: u64 = 1 << 32;

    /// The places in an image with so many pages and so many bytes of state.
    ///
    /// # Errors
    /// [`ImageError::TooManyPages`] and [`ImageError::StateTooLong`].
    pub const fn new(pages: u64, state_len: u64) -> Result<Self, ImageError> {
        if pages > Self::PAGES_MAX {
            return Err(ImageError::TooManyPages(pages));
        }
        if state_len > Self::STATE_MAX {
            return Err(ImageError::StateTooLong(state_len));
        }
        Ok(Self { pages, state_len })
    }

    /// How many pages the image has.
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// How many bytes of the state are not padding. A state that does not fit the address space
    /// does not fit a buffer either.
    pub(super) fn state_len(&self) -> usize {
        usize::try_from(self.state_len).unwrap_or(usize::MAX)
    }

    /// Where a page's sealed body is; `None` if the image has no such page.
    pub const fn body(&self, gfn: Gfn) -> Option<Range<u64>> {
        if gfn.number() < self.pages {
            let start = PAGE.saturating_mul(gfn.number().saturating_add(1));
            Some(span(start, PAGE))
        } else {
            None
        }
    }

    /// Where all bodies are.
    pub const fn bodies(&self) -> Range<u64> {
        span(PAGE, PAGE.saturating_mul(self.pages))
    }

    /// Where the sealed state is, with its padding.
    pub const fn state(&self) -> Range<u64> {
        span(self.bodies().end, self.state_len.div_ceil(PAGE).saturating_mul(PAGE))
    }

    /// Where the records are.
    pub const fn records(&self) -> Range<u64> {
        span(self.state().end, RECORD.saturating_mul(self.pages))
    }

    /// Where the trailer is.
    pub const fn trailer(&self) -> Range<u64> {
        span(self.records().end, TRAILER)
    }

    /// How many bytes the whole image has.
    pub const fn bytes(&self) -> u64 {
        self.trailer().end
    }

    /// Whether a file of this length can be the image.
    ///
    /// # Errors
    /// [`ImageError::Truncated`] and [`ImageError::TooLong`].
    pub const fn check(&self, found: u64) -> Result<(), ImageError> {
        let expected = self.bytes();
        if found < expected {
            Err(ImageError::Truncated { expected, found })
        } else if found > expected {
            Err(ImageError::TooLong { expected, found })
        } else {
            Ok(())
        }
    }
}

/// The limits keep every end below 2^53, so nothing saturates.
const fn span(start: u64, bytes: u64) -> Range<u64> {
    start..start.saturating_add(bytes)
}

/// Whether a buffer is as long as the part that it is for.
pub(super) fn fits(part: &Range<u64>, buffer: &[u8]) -> Result<(), ImageError> {
    let expected = part.end.saturating_sub(part.start);
    let found = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
    if found == expected { Ok(()) } else { Err(ImageError::WrongBuffer { expected, found }) }
}
