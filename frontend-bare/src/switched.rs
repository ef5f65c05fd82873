//! What software switches between the monitor and whoever runs above it.

use core::fmt;
use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zeroize::Zeroize;

use crate::general::General;

/// All of it, as the image's assembly has it.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Switched {
    /// The general registers that VMRUN does not switch.
    pub general: General,
    /// Whether physical interrupts are let through while whoever runs has its own interrupt flag
    /// (the manual, 15.21.4): 1 or 0.
    pub interrupts: u64,
    /// XCR0, which VMRUN does not switch either.
    pub xcr0: u64,
    /// What XSAVE saves, or FXSAVE where the CPU has no XSAVE.
    pub extended: Extended,
}

/// x87, XMM, YMM and all else that XSAVE saves, in its form (the manual, volume 1, 11.5). A guest's
/// secrets: they neither print nor compare.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Zeroize)]
#[repr(C, align(64))]
pub struct Extended([u8; Self::BYTES]);

impl Extended {
    /// More than the CPUs save that this was made for; the image checks that.
    pub const BYTES: usize = 3968;

    /// As a CPU has it after FINIT, with all vectors zero.
    pub const fn initial() -> Self {
        let mut bytes = [0; Self::BYTES];
        // The x87 unit's control word, and MXCSR: all exceptions masked.
        (bytes[0], bytes[1]) = (0x7f, 0x03);
        (bytes[24], bytes[25]) = (0x80, 0x1f);
        Self(bytes)
    }

    /// Whether x87 registers and vectors are all zero, as they [began](Self::initial).
    pub fn is_initial(&self) -> bool {
        // Behind the registers of the old form are six more words that nobody defines.
        let (registers, vectors) = (&self.0[32..416], &self.0[576..]);
        let any = |bytes: &[u8]| bytes.iter().fold(0, |all, byte| all | byte);
        any(registers) | any(vectors) == 0
    }
}

impl fmt::Debug for Extended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Extended(..)")
    }
}

impl Switched {
    /// Where a CPU starts: general registers zero, and of the extended state x87 alone enabled.
    pub const fn initial() -> Self {
        Self { general: General::ZERO, interrupts: 0, xcr0: 1, extended: Extended::initial() }
    }
}

impl fmt::Debug for Switched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Switched(..)")
    }
}

const _: () = assert!(offset_of!(Switched, interrupts) == 112);
const _: () = assert!(offset_of!(Switched, xcr0) == 120);
const _: () = assert!(offset_of!(Switched, extended) == 128);
const _: () = assert!(size_of::<Switched>() == 4096);
