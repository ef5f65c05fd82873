//! Why an image was refused, or could not be written.

use core::fmt;

use crate::addr::Gfn;

/// Why an image was refused, or could not be written. It names the part that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// It does not begin like an image.
    NotAnImage,
    /// An image of a format that this code does not know.
    UnknownFormat(u32),
    /// An image sealed by a suite that this code does not know.
    UnknownSuite(u8),
    /// The key is another, or the header's VM id, epoch, salt or commitment was changed.
    WrongKey,
    /// The key is right, and the header was changed.
    HeaderForged,
    /// The genuine header's byte at this offset should be zero.
    Reserved(usize),
    /// More pages than there are guest frame numbers.
    TooManyPages(u64),
    /// A longer state than the format allows.
    StateTooLong(u64),
    /// Fewer bytes than there should be.
    Truncated {
        /// How many bytes the image has.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// More bytes than there should be.
    TooLong {
        /// How many bytes the image has.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// The caller's buffer has another length than its part of the image.
    WrongBuffer {
        /// How many bytes the part has.
        expected: u64,
        /// How many the buffer has.
        found: u64,
    },
    /// The trailer is not that of this header, or was changed.
    TrailerForged,
    /// Header and trailer are genuine, but of another image than the pinned one.
    NotPinned,
    /// Header and trailer are genuine, and some record is not.
    RecordsForged,
    /// The genuine record of this page says what no page can be.
    BadRecord(Gfn),
    /// The manifest is genuine, and the sealed state is not the one that it lists.
    StateForged,
    /// The manifest is genuine, and this page's body is not the one that it lists.
    PageForged(Gfn),
    /// While writing: this page is not the next one.
    OutOfOrder(Gfn),
    /// While writing: this page was not sealed for this image.
    NotForThisImage(Gfn),
    /// While writing: the image was to end before all pages were recorded.
    Unfinished {
        /// How many pages were recorded.
        recorded: u64,
        /// How many the image has.
        pages: u64,
    },
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NotAnImage => f.write_str("not a sealed image"),
            Self::UnknownFormat(format) => write!(f, "image format {format} is not known here"),
            Self::UnknownSuite(suite) => write!(f, "cipher suite {suite} is not known here"),
            Self::WrongKey => f.write_str(WRONG_KEY),
            Self::HeaderForged => f.write_str(HEADER_FORGED),
            Self::Reserved(at) => write!(f, "genuine, but byte {at} of the header is not zero"),
            Self::TooManyPages(pages) => write!(f, "{pages} pages are more than an image holds"),
            Self::StateTooLong(n) => write!(f, "{n} bytes of state are more than an image holds"),
            Self::Truncated { expected, found } => {
                write!(f, "cut short: {found} bytes of {expected}")
            }
            Self::TooLong { expected, found } => {
                write!(f, "{found} bytes, but the image ends after {expected}")
            }
            Self::WrongBuffer { expected, found } => {
                write!(f, "a buffer of {found} bytes for a part of {expected}")
            }
            Self::TrailerForged => f.write_str(TRAILER_FORGED),
            Self::NotPinned => f.write_str(NOT_PINNED),
            Self::RecordsForged => f.write_str(RECORDS_FORGED),
            Self::BadRecord(gfn) => {
                write!(f, "genuine, but page {:#x} has an impossible record", gfn.number())
            }
            Self::StateForged => f.write_str(STATE_FORGED),
            Self::PageForged(gfn) => write!(
                f,
                "page {:#x} was changed: nothing of it was kept; the records are genuine",
                gfn.number()
            ),
            Self::OutOfOrder(gfn) => write!(f, "page {:#x} is not the next one", gfn.number()),
            Self::NotForThisImage(gfn) => {
                write!(f, "page {:#x} was not sealed for this image", gfn.number())
            }
            Self::Unfinished { recorded, pages } => {
                write!(f, "only {recorded} of {pages} pages were recorded")
            }
        }
    }
}

const WRONG_KEY: &str = "another key's image, or its VM, epoch, salt or key commitment was \
                         changed; nothing was opened";
const HEADER_FORGED: &str = "the header was changed, though the key fits; nothing was opened";
const TRAILER_FORGED: &str = "the trailer was changed or is another image's; the header is \
                              genuine; nothing was opened";
const NOT_PINNED: &str = "genuine, but not the pinned image, perhaps an older one; nothing was \
                          opened";
const RECORDS_FORGED: &str = "the records were changed or are another image's; header and \
                              trailer are genuine; nothing was opened";
const STATE_FORGED: &str = "the state of CPUs and devices was changed: nothing of it was kept; \
                            the records are genuine";

impl core::error::Error for ImageError {}
