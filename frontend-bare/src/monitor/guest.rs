//! What a guest comes out for.

use view_core::page_table::PageNumbers;
use view_core::{Gfn, PageState, Perm, Target, VmNumber};
use zerocopy::FromZeros;

use super::{Entered, Level, Monitor, Work};
use crate::calls;
use crate::cpuid;
use crate::exit_code::ExitCode;
use crate::general::General;
use crate::guest_walk::GuestMemory;
use crate::instruction::{CodeSize, decode};
use crate::machine::Machine;
use crate::memory::ENTRIES;
use crate::permission_map::{IoAccess, MsrAccess};
use crate::stopped::{Resumed, Stopped};
use crate::switched::Extended;
use crate::veiled::{self, Veiled};
use crate::vmcb::{Event, EventKind, Intercept, Vmcb};

/// Bits of what a nested page fault says (the manual, 15.25.6).
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
/// A write of the guest itself, not of its tables' walk, to a page that is not there.
const MISSING: u64 = 1 << 32 | 1 << 2 | WRITE;

impl<'m> Monitor<'m> {
    pub(super) fn on_guest_exit<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        let exit = self.guest.control.exit();
        if exit == ExitCode::By(Intercept::Vmmcall) && calls::is_ours(self.guest.save.rax) {
            return self.on_call(machine, entered);
        }
        if let Some(number) = entered.launched {
            return self.on_launched_exit(machine, entered, number);
        }
        match exit {
            ExitCode::NestedPageFault => self.on_shadow_fault(machine, entered),
            ExitCode::By(by) if self.is_for_hypervisor(machine, entered, by) => {
                self.fill_in_next(machine, entered);
                self.reflect(machine, entered);
            }
            // The guest may not do this, and the hypervisor does not care.
            ExitCode::By(_) => {
                self.guest.control.event = Event::new(EventKind::Exception, 6, None);
            }
            ExitCode::AvicIncompleteIpi
            | ExitCode::AvicUnaccelerated
            | ExitCode::Vmgexit
            | ExitCode::Invalid
            | ExitCode::Unknown(_) => self.reflect(machine, entered),
        }
    }

    /// Whether the hypervisor asked to see this, or sees it whether it asked or not.
    #[expect(clippy::wildcard_enum_match_arm, reason = "most are as the hypervisor asked")]
    fn is_for_hypervisor<M: Machine>(&self, machine: &M, entered: &Entered, by: Intercept) -> bool {
        let control = &self.guest.control;
        match by {
            Intercept::Io => IoAccess::from_exit_info(control.exit_info_1)
                .is_none_or(|access| access.is_wanted(machine, entered.io_map)),
            Intercept::Msr => {
                let msr = self.switched.general.rcx as u32;
                let write = control.exit_info_1 & 1 != 0;
                MsrAccess { msr, write }.is_wanted(machine, entered.msr_map)
            }
            Intercept::Intr | Intercept::Nmi | Intercept::Smi | Intercept::Init => true,
            Intercept::Shutdown => true,
            by => entered.wanted.has(by),
        }
    }

    /// Where the guest goes on after the instruction that came out, on CPUs that do not say so: the
    /// hypervisor was told that it finds that (the manual, 15.7.1).
    fn fill_in_next<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        const INSTRUCTIONS: [Intercept; 9] = [
            Intercept::Cpuid,
            Intercept::Hlt,
            Intercept::Io,
            Intercept::Msr,
            Intercept::Pause,
            Intercept::Invd,
            Intercept::Wbinvd,
            Intercept::Vmmcall,
            Intercept::Xsetbv,
        ];
        let Vmcb { control, save } = &mut self.guest;
        let is_one = INSTRUCTIONS.iter().any(|by| control.exit() == ExitCode::By(*by));
        if control.next_rip != 0 || !is_one {
            return;
        }
        let address_bits = self.setting.address_bits;
        let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
        let read = |address: u64| {
            let gfn = Gfn::new(address >> 12).ok()?;
            let found = desk.find(&entered.tables, (gfn, false))?;
            let readable = desk.is_readable(found.frame);
            readable.then(|| desk.machine.entry(found.frame, (address >> 3) as usize % ENTRIES))
        };
        let fetched = GuestMemory { address_bits, read }.fetch(save);
        if let Ok(instruction) = decode(fetched.bytes(), CodeSize::of(save)) {
            control.next_rip = save.rip.wrapping_add(instruction.length.into());
        }
    }

    fn on_launched_exit<M: Machine>(&mut self, machine: &mut M, entered: &Entered, number: usize) {
        if self.guest.control.exit() != ExitCode::NestedPageFault {
            return self.hide(machine, entered, (number, crate::stopped::Touched::Device));
        }
        let pages = self.launched[number].as_ref().map_or(0, |guest| guest.memory.pages());
        let gfn = self.guest.control.exit_info_2 >> 12;
        match Gfn::new(gfn).ok().filter(|_| gfn < pages) {
            Some(gfn) => self.on_touch(machine, entered, (number, gfn)),
            None => self.hide(machine, entered, (number, crate::stopped::Touched::Device)),
        }
    }

    /// A launched guest touched a page that its own tables do not lead to.
    fn on_touch<M: Machine>(
        &mut self,
        machine: &mut M,
        entered: &Entered,
        (number, gfn): (usize, Gfn),
    ) {
        let Some(guest) = self.launched[number].as_mut() else {
            return self.reflect_shutdown(machine, entered);
        };
        let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
        match guest.memory.touched(&mut desk, &entered.tables, gfn) {
            Ok(veiled::Touched::Mapped) => {
                self.counts.turns_out(Work::TouchedPage);
                self.guest.control.event = super::hypervisor::again(self.guest.control.exit_event);
            }
            Ok(veiled::Touched::NeedsFrame) => self.ask_for_frame(machine, entered, gfn),
            Err(broken) => {
                self.stop(machine, number, format_args!("{broken}"));
                self.reflect_shutdown(machine, entered);
            }
        }
    }

    /// Has the hypervisor propose a frame for a page, as if the guest had written there.
    pub(super) fn ask_for_frame<M: Machine>(
        &mut self,
        machine: &mut M,
        entered: &Entered,
        gfn: Gfn,
    ) {
        let control = &mut self.guest.control;
        if control.exit() != ExitCode::NestedPageFault {
            control.exit_event = Event::NONE;
        }
        control.exit_code = ExitCode::NestedPageFault.raw();
        (control.exit_info_1, control.exit_info_2) = (MISSING, gfn.number() << 12);
        match entered.launched {
            Some(number) => {
                self.hide(machine, entered, (number, crate::stopped::Touched::Memory));
            }
            None => self.reflect(machine, entered),
        }
    }

    /// Keeps a launched guest's registers, and shows the hypervisor what it needs of the exit; or
    /// answers itself.
    fn hide<M: Machine>(
        &mut self,
        machine: &mut M,
        entered: &Entered,
        (number, touched): (usize, crate::stopped::Touched),
    ) {
        let Some(guest) = self.launched[number].as_mut() else {
            return self.reflect_shutdown(machine, entered);
        };
        let address_bits = self.setting.address_bits;
        let read = |address| read(&guest.memory, machine, address);
        let Vmcb { control, save } = &self.guest;
        let general = &self.switched.general;
        let mut memory = GuestMemory { address_bits, read };
        let stopped = match Stopped::new(control, save, general, &mut memory, touched) {
            Ok(stopped) => stopped,
            Err(no_row) => {
                self.stop(machine, number, format_args!("{no_row}"));
                return self.reflect_shutdown(machine, entered);
            }
        };
        if let Some(resumed) = stopped.own_answer(super::vmrun::EFER) {
            return self.go_on(machine, resumed);
        }
        core::mem::swap(&mut guest.extended, &mut self.switched.extended);
        self.switched.extended = Extended::initial();
        guest.xcr0 = core::mem::replace(&mut self.switched.xcr0, entered.xcr0);
        guest.breakpoints = machine.breakpoints();
        machine.set_breakpoints(entered.breakpoints);
        stopped.show(&mut self.guest.control, &mut self.guest.save, &mut self.switched.general);
        guest.stopped = Some(stopped);
        self.reflect(machine, entered);
    }

    /// A launched guest goes on with this.
    pub(super) fn go_on<M: Machine>(&mut self, machine: &mut M, mut resumed: Resumed) {
        let control = &mut self.guest.control;
        control.event = resumed.event;
        control.interrupt_state = u64::from(resumed.in_shadow);
        core::mem::swap(&mut self.guest.save, &mut resumed.save);
        core::mem::swap(&mut self.switched.general, &mut resumed.general);
        if let Some(xcr0) = resumed.xcr0 {
            if is_xcr0(xcr0, machine.cpuid(0xd, 0)) {
                self.switched.xcr0 = xcr0;
            } else {
                control.event = Event::new(EventKind::Exception, 13, Some(0));
            }
        }
    }

    /// The guest is gone: to the hypervisor its CPU has shut down, and nothing is left of it.
    pub(super) fn reflect_shutdown<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        self.guest.control.exit_code = ExitCode::By(Intercept::Shutdown).raw();
        (self.guest.control.exit_info_1, self.guest.control.exit_info_2) = (0, 0);
        (self.guest.control.exit_event, self.guest.control.next_rip) = (Event::NONE, 0);
        self.guest.save.zero();
        self.switched.general = General::ZERO;
        self.switched.extended = Extended::initial();
        self.switched.xcr0 = entered.xcr0;
        machine.set_breakpoints(entered.breakpoints);
        self.reflect(machine, entered);
    }

    /// A guest that is not launched touched a page that the shadow does not lead to.
    fn on_shadow_fault<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        let control = &self.guest.control;
        let write = control.exit_info_1 & WRITE != 0;
        let Ok(gfn) = Gfn::new(control.exit_info_2 >> 12) else {
            return self.reflect(machine, entered);
        };
        let address_bits = self.setting.address_bits;
        let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
        let Some(found) = desk.find(&entered.tables, (gfn, write)) else {
            return self.reflect(machine, entered);
        };
        if write && !found.writable {
            self.guest.control.exit_info_1 |= PRESENT;
            return self.reflect(machine, entered);
        }
        let beyond = found.frame.number() << 12 >> address_bits != 0;
        if beyond || !desk.is_readable(found.frame) {
            let frame = found.frame.number();
            self.refuse(machine, format_args!("a guest's page in frame {frame:#x}"));
            return self.reflect_shutdown(machine, entered);
        }
        // Written pages only are shown as writable, so that the hypervisor's dirty bits are right.
        let perm = if write { Perm::ReadWrite } else { Perm::Read };
        let page = Target { vm: VmNumber(0), gfn, frame: found.frame };
        let super::Setting { views, shadow, .. } = &mut self.setting;
        if views.show_guest(machine, shadow, (&page, perm)).is_err() {
            self.refuse(machine, format_args!("no table for page {:#x}", gfn.number()));
            return self.reflect_shutdown(machine, entered);
        }
        self.guest.control.event = super::hypervisor::again(self.guest.control.exit_event);
    }

    /// Hands the exit to the hypervisor, as it is in the guest's control block by now.
    fn reflect<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        self.level = Level::Hypervisor;
        self.set_interrupts(false);
        self.skip(3);
        self.hypervisor.save.take_vmload_state(&self.guest.save);
        let desk = super::desk(&mut self.setting, &mut self.staging, machine);
        if !desk.is_readable(entered.block) {
            return;
        }
        let mut page = desk.copy(entered.block);
        let block = Vmcb::of_page_mut(&mut page);
        let (to, from) = (&mut block.control, &self.guest.control);
        to.virtual_interrupt = from.virtual_interrupt;
        to.interrupt_state = from.interrupt_state;
        (to.exit_code, to.exit_info_1) = (from.exit_code, from.exit_info_1);
        (to.exit_info_2, to.exit_event) = (from.exit_info_2, from.exit_event);
        (to.next_rip, to.fetched) = (from.next_rip, from.fetched.clone());
        to.event = Event::NONE;
        block.save = self.guest.save.clone();
        desk.machine.write(entered.block, &page);
    }
}

/// Eight bytes of a launched guest's memory, as it has it itself.
fn read(guest: &Veiled<'_>, machine: &impl Machine, address: u64) -> Option<u64> {
    let gfn = Gfn::new(address >> 12).ok()?;
    let resident = |state: &PageState| {
        matches!(state, PageState::Private | PageState::Replica | PageState::Open { .. })
    };
    guest.vm().state(gfn).filter(resident)?;
    let frame = guest.vm().frame(gfn)?;
    Some(machine.entry(frame, (address >> 3) as usize % ENTRIES))
}

/// Whether XCR0 may have this value, given what CPUID function Dh says of the CPU (the manual,
/// 11.5.2).
fn is_xcr0(value: u64, [low, _, _, high]: [u32; 4]) -> bool {
    const X87: u64 = 1;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX_512: u64 = 0b111 << 5;
    let offered = (u64::from(high) << 32 | u64::from(low)) & cpuid::XCR0;
    let is_whole = |part: u64, whole: u64| value & part == 0 || value & whole == whole;
    value & X87 != 0
        && value & !offered == 0
        && is_whole(AVX, SSE | AVX)
        && is_whole(AVX_512, AVX_512 | AVX)
}
