//! What a machine must have before anything is protected on it.

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::fmt;

use frontend_bare::acpi::{self, AcpiError};
use frontend_bare::ports::{NotAPort, Ports};
use frontend_bare::start_info::{NoStartInfo, Range, StartInfo};

use crate::self_test;
use crate::sys::{copied, copy_out, own_frames, read_msr, try_read_msr};

/// What was found.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// How many guests' translations a CPU can keep apart.
    pub(crate) asids: u32,
    /// How many bits an address has.
    pub(crate) address_bits: u32,
    /// Whether the CPU has a source of randomness.
    pub(crate) random: bool,
    /// Its ports of power.
    pub(crate) ports: Ports,
    /// What the loader says.
    pub(crate) info: StartInfo,
    /// Whether AES has instructions of its own.
    aes: bool,
    /// The frame behind the memory that this image lies in.
    pub(crate) end: u64,
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
    /// A bit of addresses stands for encryption: every frame would be there twice.
    MemoryEncryption,
    /// Nobody says where memory is.
    NoStartInfo(NoStartInfo),
    /// The firmware's tables do not say how many CPUs there are.
    NoAcpi(AcpiError),
    /// There are so many CPUs: the monitor holds one, and another would run beside it.
    Cpus(u32),
    /// The machine is switched off, or reset, where the monitor does not look.
    Power(NotAPort),
    /// Behind this image there is not enough memory, in frames.
    NoMemory(u64),
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let aes = if self.aes { "instructions" } else { "no instructions" };
        write!(f, "SVM with nested paging, {} ASIDs, {aes} for AES", self.asids)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSvm => f.write_str("this CPU has no SVM (AMD-V)"),
            Self::SvmDisabled => f.write_str("SVM is disabled by the firmware (VM_CR.SVMDIS)"),
            Self::MemoryEncryption => {
                f.write_str("memory encryption is on (SYSCFG.MemEncryptionModEn)")
            }
            Self::NoNestedPaging => f.write_str("this CPU has no nested paging"),
            Self::NoStartInfo(why) => write!(f, "no memory map from the loader: {why:?}"),
            Self::NoAcpi(why) => write!(f, "no list of CPUs from the firmware: {why}"),
            Self::Cpus(cpus) => write!(f, "{cpus} CPUs; the monitor holds one (QEMU: -smp 1)"),
            Self::Power(NotAPort(register)) => write!(f, "power is switched at {register:x?}"),
            Self::NoMemory(frames) => {
                write!(
                    f,
                    "{frames} frames of memory behind the image, {} needed",
                    self_test::FRAMES
                )
            }
        }
    }
}

const VM_CR: u32 = 0xc001_0114;
const SVMDIS: u64 = 1 << 4;
const SYSCFG: u32 = 0xc001_0010;
const ENCRYPTION: u64 = 1 << 23;

/// Looks at the CPU that this runs on (APM volume 3, appendix E: functions 8000_0001h and
/// 8000_000Ah; volume 2, section 15.4).
pub(crate) fn look(start_info: u64) -> Result<Machine, Refused> {
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
    if try_read_msr(SYSCFG).is_some_and(|syscfg| syscfg & ENCRYPTION != 0) {
        return Err(Refused::MemoryEncryption);
    }
    let features = __cpuid_count(1, 0).ecx;
    let (aes, random) = (features & 1 << 25 != 0, features & 1 << 30 != 0);
    let none = Refused::NoStartInfo(NoStartInfo::Magic(0));
    let info: StartInfo = copied(start_info).ok_or(none)?;
    let info = info.checked().map_err(Refused::NoStartInfo)?;
    let address_bits = __cpuid(0x8000_0008).eax & 0xff;
    let survey = acpi::survey(info.rsdp, copy_out).map_err(Refused::NoAcpi)?;
    // The CPU's own count, beside the firmware's: a thread that nobody lists can be started, too.
    let cpus = survey.cpus.max((__cpuid(0x8000_0008).ecx & 0xff) + 1);
    if cpus != 1 {
        return Err(Refused::Cpus(cpus));
    }
    let ports = Ports::of(&survey).map_err(Refused::Power)?;
    let end = memory_end(&info)?;
    Ok(Machine { asids: svm.ebx, address_bits, aes, random, end, ports, info })
}

/// The end of the range of memory that this image lies in.
fn memory_end(info: &StartInfo) -> Result<u64, Refused> {
    let own = own_frames();
    let range = |index: u32| {
        let offset = u64::from(index) * size_of::<Range>() as u64;
        copied::<Range>(info.memory_map.checked_add(offset)?)?.frames()
    };
    let mut ranges = (0..info.memory_ranges).filter_map(range);
    let ours = ranges.find(|range| range.contains(&own.start) && own.end <= range.end);
    let end = ours.map_or(own.end, |range| range.end.min(1 << 20));
    let left = end - own.end;
    if left < self_test::FRAMES { Err(Refused::NoMemory(left)) } else { Ok(end) }
}
