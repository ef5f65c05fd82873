//! The header: which image this is. Readable by anybody, believed only under the owner's key.

use core::fmt;

use subtle::ConstantTimeEq;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::ImageError;
use super::geometry::Geometry;
use crate::addr::{Epoch, VmId};
use crate::key::{EpochKey, Salt};
use crate::suite::siv::Siv512;
use crate::suite::siv_cmac_512::SivCmac512;
use crate::suite::{PageCipher, SuiteId, Tag};

/// Bytes in a header.
pub const HEADER_SIZE: usize = 4096;

const MAGIC: [u8; 8] = *b"PAGEVEIL";
const FORMAT: u32 = 1;
/// Keeps headers apart from everything else under the state key.
const DOMAIN_HEADER: u8 = 0x48;

const SUITES: [SuiteId; 1] = [SivCmac512::SUITE];

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whose image.
    pub vm: VmId,
    /// The incarnation that was sealed. A restore begins the next one.
    pub epoch: Epoch,
    /// What made that epoch's keys new.
    pub salt: Salt,
    /// What sealed the pages.
    pub suite: SuiteId,
    /// The caller's counter, which never goes back: which image of this VM is newer.
    pub sequence: u64,
    /// How many pages the guest has, each with a body.
    pub pages: u64,
    /// How many bytes the state of CPUs and devices has, before padding.
    pub state_len: u64,
}

impl Header {
    /// Where everything is.
    ///
    /// # Errors
    /// [`ImageError::TooManyPages`] and [`ImageError::StateTooLong`].
    pub const fn geometry(&self) -> Result<Geometry, ImageError> {
        Geometry::new(self.pages, self.state_len)
    }
}

/// What a header claims, read without a key: good for looking, never for deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnverifiedHeader {
    /// What it says. Anybody could have written it.
    pub claims: Header,
    /// The key to which it claims to belong, by its commitment.
    pub commitment: [u8; 32],
}

impl UnverifiedHeader {
    /// Reads the claims from the first [`HEADER_SIZE`] bytes of an image.
    ///
    /// # Errors
    /// [`ImageError::NotAnImage`], [`ImageError::UnknownFormat`], [`ImageError::UnknownSuite`],
    /// and [`ImageError::Truncated`] if what is there begins like an image.
    pub fn parse(bytes: &[u8]) -> Result<Self, ImageError> {
        let block = Block::of(bytes)?;
        Ok(Self { claims: block.claims(), commitment: block.commitment })
    }
}

/// A header as it is stored (spec/sealed-image.md, "Header").
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Block {
    magic: [u8; 8],
    format: U32,
    suite: u8,
    zero: [u8; 3],
    vm: [u8; 16],
    epoch: U64,
    sequence: U64,
    salt: [u8; 16],
    commitment: [u8; 32],
    pages: U64,
    state_len: U64,
    zeroes: [u8; 3968],
    tag: Tag,
}

const _: () = assert!(size_of::<Block>() == HEADER_SIZE);

/// Where the bytes that must be zero are.
const ZERO: [usize; 2] = [core::mem::offset_of!(Block, zero), core::mem::offset_of!(Block, zeroes)];

impl Block {
    /// The block at the start of some bytes, if it looks like one.
    pub(super) fn of(bytes: &[u8]) -> Result<&Self, ImageError> {
        let Ok((block, _)) = Self::ref_from_prefix(bytes) else {
            let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            return if bytes.iter().zip(&MAGIC).all(|(byte, magic)| byte == magic) {
                Err(ImageError::Truncated { expected: 4096, found })
            } else {
                Err(ImageError::NotAnImage)
            };
        };
        if block.magic != MAGIC {
            return Err(ImageError::NotAnImage);
        }
        if block.format.get() != FORMAT {
            return Err(ImageError::UnknownFormat(block.format.get()));
        }
        known(SuiteId(block.suite))?;
        Ok(block)
    }

    /// Fills the block in and returns its tag.
    pub(super) fn fill(
        &mut self,
        header: &Header,
        key: &EpochKey,
        siv: &Siv512,
    ) -> Result<Tag, ImageError> {
        known(header.suite)?;
        *self = Self {
            magic: MAGIC,
            format: U32::new(FORMAT),
            suite: header.suite.0,
            zero: [0; 3],
            vm: header.vm.0,
            epoch: U64::new(header.epoch.0),
            sequence: U64::new(header.sequence),
            salt: header.salt.0,
            commitment: key.commitment(),
            pages: U64::new(header.pages),
            state_len: U64::new(header.state_len),
            zeroes: [0; 3968],
            tag: [0; 16],
        };
        self.tag = self.computed_tag(siv);
        Ok(self.tag)
    }

    pub(super) const fn claims(&self) -> Header {
        Header {
            vm: VmId(self.vm),
            epoch: Epoch(self.epoch.get()),
            salt: Salt(self.salt),
            suite: SuiteId(self.suite),
            sequence: self.sequence.get(),
            pages: self.pages.get(),
            state_len: self.state_len.get(),
        }
    }

    /// The tag, once the key is known to be the right one and every byte to be genuine.
    pub(super) fn verify(&self, key: &EpochKey, siv: &Siv512) -> Result<Tag, ImageError> {
        if !key.commitment_matches(&self.commitment) {
            return Err(ImageError::WrongKey);
        }
        if !bool::from(self.computed_tag(siv).ct_eq(&self.tag)) {
            return Err(ImageError::HeaderForged);
        }
        for (start, zeroes) in ZERO.into_iter().zip([&self.zero[..], &self.zeroes]) {
            if let Some(at) = zeroes.iter().position(|&byte| byte != 0) {
                return Err(ImageError::Reserved(start.saturating_add(at)));
            }
        }
        Ok(self.tag)
    }

    fn computed_tag(&self, siv: &Siv512) -> Tag {
        let bytes: &[u8; HEADER_SIZE] = zerocopy::transmute_ref!(self);
        let (head, _) = bytes.split_last_chunk::<16>().unwrap_or((bytes, &[0; 16]));
        siv.seal(&[&[DOMAIN_HEADER], head], &mut [])
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Block").field(&self.claims()).finish()
    }
}

fn known(suite: SuiteId) -> Result<(), ImageError> {
    if SUITES.contains(&suite) { Ok(()) } else { Err(ImageError::UnknownSuite(suite.0)) }
}
