//! What a machine must have before anything is protected on it.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;

use crate::sys::read_msr;

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// How many guests' translations a CPU can keep apart.
    asids: u32,
    /// Whether AES has instructions of its own.
    aes: bool,
}

/// Why the monitor does not begin.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    /// The CPU cannot run guests in AMD's way.
    NoSvm,
    /// The firmware has locked that away.
    SvmDisabled,
    /// Guests cannot have tables of their own.
    NoNestedPaging,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aes = if self.aes { "instructions" } else { "no instructions" };
        write!(f, "SVM with nested paging, {} ASIDs, {aes} for AES", self.asids)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSvm => "this CPU has no SVM (AMD-V)",
            Self::SvmDisabled => "SVM is disabled by the firmware (VM_CR.SVMDIS)",
            Self::NoNestedPaging => "this CPU has no nested paging",
        })
    }
}

const VM_CR: u32 = 0xc001_0114;
const SVMDIS: u64 = 1 << 4;

/// Looks at the CPU that this runs on (APM volume 3, appendix E: functions 8000_0001h and
/// 8000_000Ah; volume 2, section 15.4).
pub(crate) fn look() -> Result<Machine, Refused> {
    let highest = __cpuid(0x8000_0000).eax;
    if highest < 0x8000_000a || __cpuid(0x8000_0001).ecx & 1 << 2 == 0 {
        return Err(Refused::NoSvm);
    }
    if read_msr(VM_CR) & SVMDIS != 0 {
        return Err(Refused::SvmDisabled);
    }
    let svm = __cpuid(0x8000_000a);
    if svm.edx & 1 == 0 {
        return Err(Refused::NoNestedPaging);
    }
    let aes = __cpuid_count(1, 0).ecx & 1 << 25 != 0;
    Ok(Machine { asids: svm.ebx, aes })
}
