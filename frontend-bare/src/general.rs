//! The general registers that VMRUN leaves to software, as the image's assembly has them.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zeroize::Zeroize;

/// All general registers but RAX and RSP, which are in the state save area (the manual, 15.5.1).
/// They are a guest's secrets: they neither print nor compare. Who keeps them wipes them.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Zeroize)]
#[repr(C)]
#[expect(missing_docs, reason = "registers, by their names in the manual")]
pub struct General {
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

impl General {
    /// Nothing but zeroes.
    pub const ZERO: Self = Self {
        rbx: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        rbp: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
    };
}

const _: () = assert!(size_of::<General>() == 14 * size_of::<u64>());

impl fmt::Debug for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("General(..)")
    }
}
