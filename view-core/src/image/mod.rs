//! A sealed image: a whole VM at rest, for keepers who must neither read nor change it.
//!
//! The format is spec/sealed-image.md. Nothing here reads or writes a file: a writer takes receipts
//! and hands out bytes, a reader takes bytes and hands out facts, both over the caller's buffers.
//! Nothing is a fact before it is authenticated: [`UnverifiedHeader`] says so in its name, and only
//! [`ImageReader::verify`] makes a [`GenuineManifest`].

mod error;
mod geometry;
mod header;
mod reader;
mod record;
mod root;
mod tree;
mod writer;

pub use error::ImageError;
pub use geometry::Geometry;
pub use header::{HEADER_SIZE, Header, UnverifiedHeader};
pub use reader::{GenuineManifest, ImageReader};
pub use record::{GenuineRecord, Record};
pub use root::{ImageRoot, NotARoot, TRAILER_SIZE};
pub use writer::ImageWriter;
