//! Why a guest came back from VMRUN.

use crate::vmcb::Intercept;

/// The reason of a #VMEXIT (the manual, appendix C).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitCode {
    /// The guest did what was intercepted.
    By(Intercept),
    /// Nested tables do not let the guest do what it did (15.25.6).
    NestedPageFault,
    /// AVIC cannot deliver an interrupt to another CPU (15.29).
    AvicIncompleteIpi,
    /// AVIC cannot do what was done to a register of the APIC (15.29).
    AvicUnaccelerated,
    /// An encrypted guest asks for something (15.35).
    Vmgexit,
    /// VMRUN did not accept the control block; the guest did not run (15.5.1).
    Invalid,
    /// A number without a name here.
    Unknown(u64),
}

impl ExitCode {
    /// The reason that a number stands for.
    pub const fn from_raw(code: u64) -> Self {
        // Some monitors write but the lower half of -1.
        if code as u32 == u32::MAX {
            return Self::Invalid;
        }
        match code {
            0x400 => Self::NestedPageFault,
            0x401 => Self::AvicIncompleteIpi,
            0x402 => Self::AvicUnaccelerated,
            0x403 => Self::Vmgexit,
            0..=0xff => match Intercept::from_number(code as u8) {
                Some(intercept) => Self::By(intercept),
                None => Self::Unknown(code),
            },
            _ => Self::Unknown(code),
        }
    }

    /// The number.
    pub const fn raw(self) -> u64 {
        match self {
            Self::By(intercept) => intercept.number() as u64,
            Self::NestedPageFault => 0x400,
            Self::AvicIncompleteIpi => 0x401,
            Self::AvicUnaccelerated => 0x402,
            Self::Vmgexit => 0x403,
            Self::Invalid => u64::MAX,
            Self::Unknown(code) => code,
        }
    }
}
