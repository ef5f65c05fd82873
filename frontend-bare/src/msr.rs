//! What becomes of the hypervisor's accesses to MSRs that the monitor
//! [insists on](crate::permission_map::insisted) seeing.
//!
//! Three of them are virtual: EFER, whose SVME is always on below, VM_CR and VM_HSAVE_PA. Of the
//! others the monitor lets through what is as harmless as reading; what would change nothing is
//! done already, and for all else there is #GP, as from a CPU that has not got it.

use crate::cpuid::{Asker, cpuid};
use crate::permission_map::MsrAccess;
use crate::permission_map::insisted::{Whom, why_msr};
use crate::vmcb::{StateSaveArea, cr0, efer};

/// What becomes of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrAnswer {
    /// What was read.
    Value(u64),
    /// Written, as far as the hypervisor can tell.
    Done,
    /// The CPU itself is to do it. If it does not want to, its #GP is the hypervisor's: whoever
    /// carries this out has to survive that.
    PassOn,
    /// #GP, with zero for an error code.
    GeneralProtection,
}

use MsrAnswer::{Done, GeneralProtection, PassOn, Value};

/// What answers to writes depend on beside the hypervisor's registers.
pub trait Below {
    /// What an MSR of the CPU has now.
    fn real(&mut self, msr: u32) -> u64;
    /// Whether a page begins at this address that the hypervisor may read itself.
    fn is_readable_page(&mut self, address: u64) -> bool;
}

/// What the hypervisor is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Which bits of EFER it may set, beside SVME.
    pub efer: u64,
    /// Whether the CPU has the x2APIC (Fn0000_0001, ECX bit 21).
    pub x2apic: bool,
}

impl Offered {
    /// What goes with what the hypervisor is told by CPUID. `ask` is the CPU's own answer to a
    /// function and a subfunction.
    pub fn of(mut ask: impl FnMut(u32, u32) -> [u32; 4]) -> Self {
        let nobody = Asker::default();
        let mut shown = |function| cpuid(function, 0, &nobody, &mut ask);
        let [_, _, basic, _] = shown(1);
        let [_, _, c, d] = shown(0x8000_0001);
        let [_, sizes, ..] = shown(0x8000_0008);
        let [more, ..] = shown(0x8000_0021);
        // Bits of EFER (the manual, 3.1.7), and what shows that there are such.
        let bits = [
            (efer::SCE, d >> 11),
            (efer::LME, d >> 29),
            (efer::NXE, d >> 20),
            (FAST_FXSAVE, d >> 25),
            (TRANSLATION_CACHE, c >> 17),
            (INTERRUPTIBLE_WBINVD, sizes >> 13),
            (AUTOMATIC_IBRS, more >> 8),
        ];
        let there = bits.iter().filter(|(_, shown)| shown & 1 != 0);
        let efer = there.fold(0, |efer, (bit, _)| efer | bit);
        Self { efer, x2apic: basic >> 21 & 1 != 0 }
    }
}

/// MSRs as the hypervisor has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msrs {
    offered: Offered,
    svme: bool,
    vm_cr: u64,
    save_area: u64,
}

const APIC_BASE: u32 = 0x1b;
const DEBUG_CTL: u32 = 0x1d9;
const X2APIC_COMMAND: u32 = 0x830;
const EFER: u32 = 0xc000_0080;
const SYSCFG: u32 = 0xc001_0010;
const HWCR: u32 = 0xc001_0015;
const MICROCODE: u32 = 0xc001_0020;
const VM_CR: u32 = 0xc001_0114;
const SMM_CTL: u32 = 0xc001_0116;
const VM_HSAVE_PA: u32 = 0xc001_0117;
const SVM_KEY: u32 = 0xc001_0118;
const SMM_KEY: u32 = 0xc001_0119;
const DOORBELL: u32 = 0xc001_011b;

/// More bits of EFER (the manual, 3.1.7): FFXSR, TCE, INTWB, AIBRSE.
const FAST_FXSAVE: u64 = 1 << 14;
const TRANSLATION_CACHE: u64 = 1 << 15;
const INTERRUPTIBLE_WBINVD: u64 = 1 << 18;
const AUTOMATIC_IBRS: u64 = 1 << 21;

/// Bits of VM_CR (the manual, 15.30.1), and those below them.
const SVMDIS: u64 = 1 << 4;
const LOCK: u64 = 1 << 3;
const VM_CR_LOW: u64 = 0b111;

/// Bits of APIC_BASE (the manual, 16.9), and what they say together.
const MODES: u64 = 0b11 << 10;
const APIC_OFF: u64 = 0;
const XAPIC: u64 = 0b10 << 10;
const X2APIC: u64 = 0b11 << 10;

/// Bit of DebugCtl (BTF; the manual, 13.1.1).
const STOP_AT_BRANCHES: u64 = 1 << 1;

/// Bit of SYSCFG (MtrrFixDramModEn; the manual, 7.9.1).
const EXTENDED_MTRRS: u64 = 1 << 19;

/// Bits of HWCR: whether status of machine checks may be written, and whether the CPU may go
/// faster than it says. Linux changes both.
const HWCR_FREE: u64 = 1 << 18 | 1 << 25;

impl Msrs {
    /// As after a reset, and as the monitor's guards found them: SVM off, and not disabled.
    pub const fn new(offered: Offered) -> Self {
        Self { offered, svme: false, vm_cr: 0, save_area: 0 }
    }

    /// Whether the hypervisor has turned SVM on: without that its instructions are none.
    pub const fn svme(&self) -> bool {
        self.svme
    }

    /// A read. `save` has the registers of the hypervisor's own control block.
    pub const fn read(&self, msr: u32, save: &StateSaveArea) -> MsrAnswer {
        match msr {
            EFER if self.svme => Value(save.efer | efer::SVME),
            EFER => Value(save.efer & !efer::SVME),
            VM_CR => Value(self.vm_cr),
            VM_HSAVE_PA => Value(self.save_area),
            _ if is_mapped(msr) => PassOn,
            _ => GeneralProtection,
        }
    }

    /// A write. Of `save`, EFER may change: the control block's is what the CPU has.
    pub fn write(
        &mut self,
        msr: u32,
        value: u64,
        save: &mut StateSaveArea,
        below: &mut impl Below,
    ) -> MsrAnswer {
        match msr {
            EFER => self.write_efer(value, save),
            VM_CR => self.write_vm_cr(value),
            VM_HSAVE_PA => {
                // The manual, 15.30.4; and the monitor's own pages are nobody's.
                if !below.is_readable_page(value) {
                    return GeneralProtection;
                }
                self.save_area = value;
                Done
            }
            APIC_BASE => self.write_apic_base(value, below.real(APIC_BASE)),
            X2APIC_COMMAND => x2apic_command(value, below.real(APIC_BASE)),
            // To stop at branches leaves no notes of them, as the other bits do.
            DEBUG_CTL if value & !STOP_AT_BRANCHES == 0 => PassOn,
            DEBUG_CTL => GeneralProtection,
            // Linux turns this off where firmware forgot to.
            SYSCFG if value & EXTENDED_MTRRS == 0 => change(SYSCFG, EXTENDED_MTRRS, value, below),
            HWCR => change(HWCR, HWCR_FREE, value, below),
            // The loader of microcode has nobody to take a #GP there: nothing is loaded.
            MICROCODE => Done,
            // These can only be written, and what they do is not offered.
            SMM_CTL | SVM_KEY | SMM_KEY | DOORBELL => GeneralProtection,
            _ if why_msr(MsrAccess { msr, write: true }, Whom::Hypervisor).is_some() => {
                change(msr, 0, value, below)
            }
            _ if is_mapped(msr) => PassOn,
            _ => GeneralProtection,
        }
    }

    /// The manual, 3.1.7, and 15.4 for SVME.
    const fn write_efer(&mut self, value: u64, save: &mut StateSaveArea) -> MsrAnswer {
        // What is written to LMA does not count: the CPU keeps it.
        let value = value & !efer::LMA | save.efer & efer::LMA;
        let reserved = value & !(self.offered.efer | efer::LMA | efer::SVME) != 0;
        let switches = (value ^ save.efer) & efer::LME != 0 && save.cr0 & cr0::PG != 0;
        let svme = value & efer::SVME != 0;
        if reserved || switches || svme && self.vm_cr & SVMDIS != 0 {
            return GeneralProtection;
        }
        self.svme = svme;
        // The CPU does not run a guest without it (15.5.1).
        save.efer = value | efer::SVME;
        Done
    }

    /// The manual, 15.30.1. The lower bits are kept, and do nothing: no INIT and no A20 reaches the
    /// hypervisor.
    const fn write_vm_cr(&mut self, value: u64) -> MsrAnswer {
        let locked = LOCK | SVMDIS;
        if value & !(locked | VM_CR_LOW) != 0 {
            return GeneralProtection;
        }
        if self.vm_cr & LOCK != 0 {
            self.vm_cr = value & !locked | self.vm_cr & locked;
            return Done;
        }
        if value & SVMDIS != 0 && self.svme {
            return GeneralProtection;
        }
        self.vm_cr = value;
        Done
    }

    /// The manual, 16.3.1, and 16.9 for the modes: on and off it goes, but it stays where it is.
    const fn write_apic_base(&self, value: u64, real: u64) -> MsrAnswer {
        if (value ^ real) & !MODES != 0 {
            return GeneralProtection;
        }
        match (real & MODES, value & MODES) {
            (_, APIC_OFF) | (APIC_OFF | XAPIC, XAPIC) => PassOn,
            (XAPIC | X2APIC, X2APIC) if self.offered.x2apic => PassOn,
            _ => GeneralProtection,
        }
    }
}

/// The x2APIC's interrupt command (the manual, 16.13): what starts or resets a CPU goes nowhere,
/// for there is one; and so does what is reserved for firmware.
const fn x2apic_command(value: u64, apic_base: u64) -> MsrAnswer {
    const RESERVED: u64 = 0xfff3_3000;
    const FIXED: u64 = 0;
    const LOWEST_PRIORITY: u64 = 1;
    const NMI: u64 = 4;
    if apic_base & MODES != X2APIC || value & RESERVED != 0 {
        return GeneralProtection;
    }
    match value >> 8 & 7 {
        FIXED | LOWEST_PRIORITY | NMI => PassOn,
        _ => Done,
    }
}

/// A write that may change these bits and no others.
fn change(msr: u32, free: u64, value: u64, below: &mut impl Below) -> MsrAnswer {
    match value ^ below.real(msr) {
        0 => Done,
        changed if changed & !free == 0 => PassOn,
        _ => GeneralProtection,
    }
}

/// Whether the map of MSRs has bits for it: all others come out whatever the monitor wants, and no
/// CPU has them.
const fn is_mapped(msr: u32) -> bool {
    matches!(msr, 0..0x2000 | 0xc000_0000..0xc000_2000 | 0xc001_0000..0xc001_2000)
}
