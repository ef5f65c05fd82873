//! One virtual CPU of a launched guest, from an exit that its hypervisor is to see to the VMRUN
//! that answers it.
//!
//! The monitor keeps the CPU's registers here. What the hypervisor gets are the bits that the
//! core's table shows at such an exit, laid over values that say nothing; what it hands back has to
//! be that, changed in the results of the instruction alone.
//!
//! `rip` never shows: it is zero to the hypervisor. Next to it `next_rip` is the length of the
//! instruction, so that KVM ends up there whether it takes what it was told or decodes an access to
//! a device's memory and adds the length itself.
//!
//! Single steps are not kept: where RFLAGS.TF is set and a hypervisor carries an instruction out,
//! the trap after it does not come.

use core::fmt;

use view_core::registers::{Changed, Exit, Registers, accept, show};
use zerocopy::{FromZeros, IntoBytes, transmute_mut};
use zeroize::Zeroize;

use crate::context::{gather, masked, scatter};
use crate::exit_code::ExitCode;
use crate::general::General;
use crate::guest_walk::GuestMemory;
use crate::launched::{Moment, may_wait, shown_event};
pub use crate::row::{NoRow, Touched};
use crate::row::{Row, row};
use crate::vmcb::{ControlArea, Event, Intercept, StateSaveArea, cr4};

/// A virtual CPU that waits for its hypervisor. Registers are wiped when it is dropped.
pub struct Stopped {
    pub(crate) code: ExitCode,
    pub(crate) row: Row,
    pub(crate) kept: Resumed,
    /// What was being delivered, as far as it shows.
    cut_short: Event,
}

/// What a virtual CPU goes on with. Registers are wiped when it is dropped.
#[derive(Clone)]
pub struct Resumed {
    /// The state save area for VMRUN and VMLOAD.
    pub save: StateSaveArea,
    /// The registers beside it.
    pub general: General,
    /// Whether interrupts wait for one more instruction.
    pub in_shadow: bool,
    /// What the guest finds on entry.
    pub event: Event,
    /// What the guest wrote to XCR0, if it just did and the hypervisor did not object. Whoever
    /// loads it checks it as the CPU would.
    pub xcr0: Option<u64>,
}

/// Why a virtual CPU is not entered again. Its registers are gone, and with them the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The hypervisor changed what it must not.
    Changed(Changed),
    /// The hypervisor throws this at the guest.
    Event(Event),
    /// An interrupt waits that the guest must not get.
    Waiting,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(changed) => changed.fmt(f),
            Self::Event(event) => write!(f, "{event:?} is not for a guest that is launched"),
            Self::Waiting => f.write_str("what waits is not an interrupt"),
        }
    }
}

impl core::error::Error for Refused {}

impl Stopped {
    /// Keeps a virtual CPU that came back from VMRUN.
    ///
    /// `control` and `save` are the monitor's own, as the CPU and VMSAVE left them; `next_rip` was
    /// zero before VMRUN, for not every CPU writes it. `memory` is the guest's own view of itself.
    /// `touched` is what a nested page fault was about: who asks knows whose the page is.
    ///
    /// # Errors
    /// [`NoRow`]: the hypervisor can't be shown anything of this exit, and the VM stops.
    pub fn new<R: FnMut(u64) -> Option<u64>>(
        control: &ControlArea,
        save: &StateSaveArea,
        general: &General,
        memory: &mut GuestMemory<R>,
        touched: Touched,
    ) -> Result<Self, NoRow> {
        let row = row(control, save, memory, touched)?;
        let kept = Resumed {
            save: save.clone(),
            general: general.clone(),
            in_shadow: control.is_in_interrupt_shadow(),
            event: Event::NONE,
            xcr0: None,
        };
        let stopped =
            Self { code: control.exit(), row, kept, cut_short: shown_event(control.exit_event) };
        // Zero stands for an instruction that was not carried out.
        if stopped.next_rip() == 0 && stopped.row.length > 0 {
            return Err(NoRow::NextRip);
        }
        Ok(stopped)
    }

    /// Which row of the core's table this is.
    pub const fn exit(&self) -> Exit {
        self.row.exit
    }

    /// Fills in what the hypervisor gets of the exit: its words, and every register. The exit is
    /// one that the monitor has no [answer](Self::own_answer) to.
    ///
    /// In `control` all else stays, what is virtual of interrupts above all; of the save area
    /// nothing does. What VMSAVE stores of it is for the hypervisor's CPU as well, which VMSAVE
    /// reads.
    pub fn show(&self, control: &mut ControlArea, save: &mut StateSaveArea, general: &mut General) {
        control.exit_code = self.code.raw();
        [control.exit_info_1, control.exit_info_2] = self.row.infos;
        control.exit_event = self.cut_short;
        control.event = Event::NONE;
        control.interrupt_state =
            if self.kept.in_shadow { ControlArea::INTERRUPT_SHADOW } else { 0 };
        control.next_rip = u64::from(self.row.length);
        control.fetched = self.row.fetched.clone();
        save.zero();
        let kept = gather(&self.kept.save, &self.kept.general);
        scatter(&masked(self.row.exit, &kept, self.shown_rip()), save, general);
    }

    /// What the virtual CPU goes on with, given what its hypervisor hands to VMRUN: the monitor's
    /// own copy of its control block, in which what VMLOAD loads is what the hypervisor's CPU had.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn resume(
        self,
        control: &ControlArea,
        save: &StateSaveArea,
        general: &General,
    ) -> Result<Resumed, Refused> {
        let kept = gather(&self.kept.save, &self.kept.general);
        let (returned, is_carried_out) = self.returned(&kept, save, general)?;
        let entered = accept(self.row.exit, self.next_rip(), &kept, &returned);
        let mut entered = entered.map_err(Refused::Changed)?;
        if is_carried_out {
            self.check_extension(&entered)?;
            self.correct_cpuid(&mut entered);
        }
        let mut resumed = self.kept.clone();
        resumed.in_shadow &= !is_carried_out;
        resumed.event = self.injected(control, is_carried_out)?;
        let is_xsetbv = self.code == ExitCode::By(Intercept::Xsetbv);
        resumed.xcr0 = (is_xsetbv && is_carried_out).then(|| self.edx_eax());
        scatter(&entered, &mut resumed.save, &mut resumed.general);
        Ok(resumed)
    }

    /// What came back, as if nothing had stood in for what does not show; and whether `rip` says
    /// that the instruction was carried out.
    fn returned(
        &self,
        kept: &Registers,
        save: &StateSaveArea,
        general: &General,
    ) -> Result<(Registers, bool), Refused> {
        let masked = masked(self.row.exit, kept, self.shown_rip());
        // Bytes that no register has.
        let (mut rest, mut shown) = (save.clone(), StateSaveArea::new_zeroed());
        let mut others = General::ZERO;
        scatter(&masked, &mut rest, &mut others);
        scatter(&masked, &mut shown, &mut others);
        if rest.as_bytes() != shown.as_bytes() {
            return Err(Refused::Changed(Changed("reserved")));
        }
        let mut returned = gather(save, general);
        let moved = returned.rip.wrapping_sub(self.shown_rip());
        let is_carried_out = self.row.length > 0 && moved == u64::from(self.row.length);
        let plain = show(self.row.exit, kept);
        let words = returned.words_mut().iter_mut().zip(masked.words()).zip(plain.words());
        words.for_each(|((word, masked), plain)| *word ^= masked ^ plain);
        returned.rip = if is_carried_out { self.next_rip() } else { moved };
        if !is_carried_out && moved != 0 {
            return Err(Refused::Changed(Changed("rip")));
        }
        Ok((returned, is_carried_out))
    }

    /// A load that fills a register leaves there what its instruction says.
    fn check_extension(&self, entered: &Registers) -> Result<(), Refused> {
        let Some(load) = self.row.load else { return Ok(()) };
        let Some(extension) = load.extension else { return Ok(()) };
        let number = usize::from(load.number);
        let (Some(word), Some(name)) = (entered.words().get(number), Registers::NAMES.get(number))
        else {
            return Ok(());
        };
        let holds = extension.holds(*word, load.part.bits());
        if holds { Ok(()) } else { Err(Refused::Changed(Changed(name))) }
    }

    /// The bits of CPUID that say what the guest itself wrote to CR4 (the manual, volume 3,
    /// appendix E): the hypervisor did not see it do so.
    fn correct_cpuid(&self, entered: &mut Registers) {
        if self.row.exit != Exit::Cpuid {
            return;
        }
        let (leaf, part) = (self.kept.save.rax as u32, self.kept.general.rcx as u32);
        let (bit, enabled) = match (leaf, part) {
            (1, _) => (CPUID_OSXSAVE, cr4::OSXSAVE),
            (7, 0) => (CPUID_OSPKE, cr4::PKE),
            _ => return,
        };
        let on = self.kept.save.cr4 & enabled != 0;
        entered.rcx = if on { entered.rcx | bit } else { entered.rcx & !bit };
    }

    fn injected(&self, control: &ControlArea, is_carried_out: bool) -> Result<Event, Refused> {
        if !may_wait(control) {
            return Err(Refused::Waiting);
        }
        if !control.event.is_valid() {
            return Ok(Event::NONE);
        }
        let in_shadow = self.kept.in_shadow && !is_carried_out;
        let takes_interrupts = self.kept.save.rflags & RFLAGS_IF != 0 && !in_shadow;
        let (exit, cut_short) = (self.row.exit, self.cut_short);
        let moment = Moment { exit, is_carried_out, takes_interrupts, cut_short };
        let may = moment.may_inject(control.event);
        if may { Ok(control.event) } else { Err(Refused::Event(control.event)) }
    }

    pub(crate) const fn next_rip(&self) -> u64 {
        self.kept.save.rip.wrapping_add(self.row.length as u64)
    }

    /// Zero; but one before `iret`, for KVM takes it that one was carried out when the next exit
    /// has another `rip`.
    fn shown_rip(&self) -> u64 {
        u64::from(self.code == ExitCode::By(Intercept::Iret))
    }

    pub(crate) fn edx_eax(&self) -> u64 {
        self.kept.general.rdx << 32 | self.kept.save.rax & u64::from(u32::MAX)
    }
}

impl Zeroize for Resumed {
    fn zeroize(&mut self) {
        let words: &mut [u64; size_of::<StateSaveArea>() / 8] = transmute_mut!(&mut self.save);
        words.zeroize();
        self.general.zeroize();
        self.xcr0.zeroize();
    }
}

impl Drop for Resumed {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopped").field("exit", &self.row.exit).finish_non_exhaustive()
    }
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumed").field("event", &self.event).finish_non_exhaustive()
    }
}

/// Bits of ECX.
const CPUID_OSXSAVE: u64 = 1 << 27;
const CPUID_OSPKE: u64 = 1 << 4;
const RFLAGS_IF: u64 = 1 << 9;
