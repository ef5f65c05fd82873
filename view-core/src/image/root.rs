//! The name of a whole image: who pins it pins every byte.

use core::fmt;
use core::str::FromStr;

use aes::Aes256Enc;
use cipher::KeyInit;
use cipher::array::Array;
use cmac::{Cmac, Mac};
use subtle::ConstantTimeEq;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::ImageError;
use crate::key::ManifestKey;
use crate::suite::Tag;

/// Bytes in a trailer.
pub const TRAILER_SIZE: usize = 48;

/// Keeps image roots apart from the nodes of the manifest, under one key.
const DOMAIN_ROOT: u8 = 0x52;

/// A MAC over everything in an image, under its owner's key. Printed and read as 32 hex digits.
///
/// Not a secret. Without the key it proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageRoot(pub [u8; 16]);

impl fmt::Display for ImageRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The text is not that of a root: 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotARoot;

impl fmt::Display for NotARoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an image root is 32 hex digits")
    }
}

impl core::error::Error for NotARoot {}

impl FromStr for ImageRoot {
    type Err = NotARoot;

    fn from_str(text: &str) -> Result<Self, NotARoot> {
        // The integer's own parser would take a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NotARoot);
        }
        let root = u128::from_str_radix(text, 16).map_err(|_| NotARoot)?;
        Ok(Self(root.to_be_bytes()))
    }
}

/// A trailer as it is stored (spec/sealed-image.md, "Trailer").
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Trailer {
    pub(super) state_tag: Tag,
    pub(super) manifest: Tag,
    root: [u8; 16],
}

const _: () = assert!(size_of::<Trailer>() == TRAILER_SIZE);

impl Trailer {
    /// The trailer of the image with this header tag, state and manifest.
    pub(super) fn new(
        key: &ManifestKey,
        pages: u64,
        header_tag: &Tag,
        state_tag: Tag,
        manifest: Tag,
    ) -> Self {
        let mut trailer = Self { state_tag, manifest, root: [0; 16] };
        trailer.root = trailer.computed_root(key, pages, header_tag);
        trailer
    }

    /// The image root, once the trailer is known to be that of the image with this header.
    pub(super) fn verify(
        &self,
        key: &ManifestKey,
        pages: u64,
        header_tag: &Tag,
    ) -> Result<ImageRoot, ImageError> {
        if bool::from(self.computed_root(key, pages, header_tag).ct_eq(&self.root)) {
            Ok(self.root())
        } else {
            Err(ImageError::TrailerForged)
        }
    }

    pub(super) const fn root(&self) -> ImageRoot {
        ImageRoot(self.root)
    }

    fn computed_root(&self, key: &ManifestKey, pages: u64, header_tag: &Tag) -> [u8; 16] {
        let mut mac = Cmac::<Aes256Enc>::new(&Array(*key.expose()));
        for part in [header_tag, &self.state_tag, &self.manifest] {
            mac.update(part);
        }
        mac.update(&[DOMAIN_ROOT, 0, 0, 0, 0, 0, 0, 0]);
        mac.update(&pages.to_le_bytes());
        mac.finalize().into_bytes().0
    }
}
