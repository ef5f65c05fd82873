//! One newtype for each space of numbers, checked once at the edge.
//!
//! No arithmetic and no `From<u64>`: a guest frame number is never a host frame by accident.
//! The widths are those that the packed slot and the associated data of a page can carry.

use core::fmt;

/// A number that does not fit the space it was meant for; carries the bad value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfRange(pub u64);

impl fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} is out of range", self.0)
    }
}

impl core::error::Error for OutOfRange {}

/// A guest frame number: which 4 KiB page of the guest's physical memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gfn(u64);

/// A host frame: which 4 KiB frame of the host backs a page. What it counts is the platform's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frame(u64);

/// How often a page was sealed. Never decreases, never repeats under one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

/// Which incarnation of a VM: bumped, with fresh salt, by every restore, rollback, fork or clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);

/// A VM's place in this host's tables. Local and reusable; never part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmNumber(pub u16);

/// A VM's name for life (a UUID). Bound into every key of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmId(pub [u8; 16]);

macro_rules! bounded {
    ($name:ident, $bits:literal) => {
        impl $name {
            /// How many bits the number may have.
            pub const BITS: u32 = $bits;
            /// The largest number there is.
            pub const MAX: Self = Self((1 << $bits) - 1);

            /// The number, if it fits.
            ///
            /// # Errors
            /// [`OutOfRange`] with the value, if it has more than [`Self::BITS`] bits.
            pub const fn new(number: u64) -> Result<Self, OutOfRange> {
                if number <= Self::MAX.0 { Ok(Self(number)) } else { Err(OutOfRange(number)) }
            }

            /// The plain number.
            pub const fn number(self) -> u64 {
                self.0
            }

            /// The low bits of a packed word, which fit by construction.
            pub(crate) const fn from_low_bits(word: u64) -> Self {
                Self(word & Self::MAX.0)
            }
        }
    };
}

bounded!(Gfn, 40);
bounded!(Frame, 40);
bounded!(Version, 56);

impl Version {
    /// No seal yet.
    pub const ZERO: Self = Self(0);

    /// The version after this one; `None` when the page's versions are spent.
    pub const fn next(self) -> Option<Self> {
        if self.0 < Self::MAX.0 { Some(Self(self.0.wrapping_add(1))) } else { None }
    }
}
