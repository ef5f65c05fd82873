//! Exits of a launched guest that the monitor answers itself, so that its hypervisor neither learns
//! nor decides what happens.
//!
//! They are about registers that a control block holds. A hypervisor that answered would change
//! them there, where the core's table lets nothing be changed.

use view_core::registers::Exit;

use crate::entry_check::PAT_KINDS;
use crate::exit_code::ExitCode;
use crate::launched::{
    EXCEPTION_ALIGNMENT, EXCEPTION_DEBUG, GENERAL_PROTECTION, NOT_THERE, UNDEFINED,
};
use crate::stopped::{Resumed, Stopped};
use crate::vmcb::{Event, EventKind, Intercept, StateSaveArea, cr4, efer};

impl Stopped {
    /// The answer, if this is an exit for the monitor: what the guest goes on with at once. `None`:
    /// its hypervisor is to be [shown](Self::show) it.
    ///
    /// `efer_offered` is which bits of EFER guests may set.
    pub fn own_answer(&self, efer_offered: u64) -> Option<Resumed> {
        if self.is_for_hypervisor() {
            return None;
        }
        let mut resumed = self.kept.clone();
        if let ExitCode::By(intercept) = self.code
            && let Some(event) = self.raised(intercept)
        {
            resumed.event = event;
            return Some(resumed);
        }
        let is_fine = if self.exit() == Exit::ReadMsr {
            self.read_msr(&mut resumed)?
        } else if self.exit() == Exit::WriteMsr {
            // Also XSETBV's, which names zero here: no such MSR is known.
            self.write_msr(&mut resumed, efer_offered)?
        } else {
            return None;
        };
        if is_fine {
            resumed.save.rip = self.next_rip();
            resumed.in_shadow = false;
        } else {
            resumed.event = GENERAL_PROTECTION;
        }
        Some(resumed)
    }

    /// The usual exits, which are not: copies of registers have to be wiped.
    const fn is_for_hypervisor(&self) -> bool {
        use Intercept as I;
        let code = self.code;
        matches!(
            code,
            ExitCode::NestedPageFault | ExitCode::By(I::Intr | I::Cpuid | I::Io | I::Hlt)
        )
    }

    /// What the guest finds where it stopped. Exceptions that the CPU raised are its own: their
    /// exits are there for the CPU to take interrupts in between.
    fn raised(&self, by: Intercept) -> Option<Event> {
        let exception = |vector, code| Some(Event::new(EventKind::Exception, vector, code));
        // Of these registers there is one, which is the kernel's.
        let (cpl, number) = (self.kept.save.cpl, self.kept.general.rcx as u32);
        let is_forbidden = by == Intercept::Xsetbv && (cpl != 0 || number != 0);
        if by == Intercept::Exception(EXCEPTION_DEBUG) {
            exception(EXCEPTION_DEBUG, None)
        } else if by == Intercept::Exception(EXCEPTION_ALIGNMENT) {
            exception(EXCEPTION_ALIGNMENT, Some(0))
        } else if by == Intercept::Rdpmc || is_forbidden {
            Some(GENERAL_PROTECTION)
        } else {
            UNDEFINED.contains(&by).then_some(NOT_THERE)
        }
    }

    /// Whether it could be read; `None` if it is no register of a control block.
    fn read_msr(&self, resumed: &mut Resumed) -> Option<bool> {
        let number = self.kept.general.rcx as u32;
        let (word, _) = register(number, &mut resumed.save)?;
        let hidden = if number == MSR_EFER { efer::SVME } else { 0 };
        let value = *word & !hidden;
        (resumed.save.rax, resumed.general.rdx) = (value & LOW_HALF, value >> 32);
        Some(true)
    }

    /// Whether it takes that value; `None` if it is no register of a control block.
    fn write_msr(&self, resumed: &mut Resumed, efer_offered: u64) -> Option<bool> {
        let (number, value) = (self.kept.general.rcx as u32, self.edx_eax());
        let save = &self.kept.save;
        let (word, kind) = register(number, &mut resumed.save)?;
        let (fits, taken) = match kind {
            Kind::Any => (true, value),
            Kind::Address => (is_canonical(value, save.cr4), value),
            Kind::Half => (true, value & LOW_HALF),
            Kind::Pat => (value.to_le_bytes().iter().all(|kind| PAT_KINDS.contains(kind)), value),
            Kind::Efer => {
                // LMA is the CPU's. LME stays, or LMA would have to follow once paging is on.
                let offered = efer_offered & !efer::SVME | efer::LMA;
                let fits = value & !offered == 0 && (value ^ save.efer) & efer::LME == 0;
                (fits, value & !efer::LMA | save.efer & efer::LMA | efer::SVME)
            }
        };
        if fits {
            *word = taken;
        }
        Some(fits)
    }
}

/// What a register takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Address,
    Half,
    Pat,
    Efer,
}

/// The word of a control block that is this MSR.
const fn register(number: u32, save: &mut StateSaveArea) -> Option<(&mut u64, Kind)> {
    let found = match number {
        MSR_EFER => (&mut save.efer, Kind::Efer),
        0x277 => (&mut save.g_pat, Kind::Pat),
        0x174 => (&mut save.sysenter_cs, Kind::Half),
        0x175 => (&mut save.sysenter_esp, Kind::Address),
        0x176 => (&mut save.sysenter_eip, Kind::Address),
        0xc000_0081 => (&mut save.star, Kind::Any),
        0xc000_0082 => (&mut save.lstar, Kind::Address),
        0xc000_0083 => (&mut save.cstar, Kind::Address),
        0xc000_0084 => (&mut save.sfmask, Kind::Half),
        0xc000_0100 => (&mut save.fs.base, Kind::Address),
        0xc000_0101 => (&mut save.gs.base, Kind::Address),
        0xc000_0102 => (&mut save.kernel_gs_base, Kind::Address),
        _ => return None,
    };
    Some(found)
}

/// Whether the bits above the highest of a linear address are as that is (the manual, 5.3.1).
const fn is_canonical(address: u64, bits_of_cr4: u64) -> bool {
    let unused = if bits_of_cr4 & cr4::LA57 != 0 { 64 - 57 } else { 64 - 48 };
    ((address << unused) as i64 >> unused) as u64 == address
}

const MSR_EFER: u32 = 0xc000_0080;
const LOW_HALF: u64 = 0xffff_ffff;
