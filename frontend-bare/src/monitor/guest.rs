//! What a guest comes out for.

use view_core::{Gfn, Perm, Target, VmNumber};

use super::{Entered, Level, Monitor};
use crate::exit_code::ExitCode;
use crate::machine::Machine;
use crate::permission_map::{IoAccess, MsrAccess};
use crate::vmcb::{Event, EventKind, Intercept, Vmcb};

/// Bits of what a nested page fault says (the manual, 15.25.6).
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;

impl<'m> Monitor<'m> {
    pub(super) fn on_guest_exit<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        match self.guest.control.exit() {
            ExitCode::NestedPageFault => self.on_shadow_fault(machine, entered),
            ExitCode::By(by) if self.is_for_hypervisor(machine, entered, by) => {
                self.reflect(machine, entered);
            }
            ExitCode::By(_) => self.raise_in_guest(),
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

    /// The guest may not do this, and the hypervisor does not care.
    fn raise_in_guest(&mut self) {
        self.guest.control.event = Event::new(EventKind::Exception, 6, None);
    }

    /// A guest that is not launched touched a page that the shadow does not lead to.
    fn on_shadow_fault<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        let control = &self.guest.control;
        let write = control.exit_info_1 & WRITE != 0;
        let Ok(gfn) = Gfn::new(control.exit_info_2 >> 12) else {
            return self.reflect(machine, entered);
        };
        let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
        let Some(found) = desk.find(&entered.tables, (gfn, write)) else {
            return self.reflect(machine, entered);
        };
        if write && !found.writable {
            self.guest.control.exit_info_1 |= PRESENT;
            return self.reflect(machine, entered);
        }
        if !desk.is_readable(found.frame) {
            let frame = found.frame.number();
            self.refuse(machine, format_args!("a guest's page in frame {frame:#x}"));
            self.guest.control.exit_code = ExitCode::By(Intercept::Shutdown).raw();
            return self.reflect(machine, entered);
        }
        // Written pages only are shown as writable, so that the hypervisor's dirty bits are right.
        let perm = if write { Perm::ReadWrite } else { Perm::Read };
        let page = Target { vm: VmNumber(0), gfn, frame: found.frame };
        let super::Setting { views, shadow, .. } = &mut self.setting;
        if views.show_guest(machine, shadow, (&page, perm)).is_err() {
            self.refuse(machine, format_args!("no table for page {:#x}", gfn.number()));
        }
        self.guest.control.event = super::hypervisor::again(self.guest.control.exit_event);
    }

    /// Hands the exit to the hypervisor.
    pub(super) fn reflect<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        self.level = Level::Hypervisor;
        self.set_interrupts(false);
        self.skip(3);
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
        self.hypervisor.save.take_vmload_state(&self.guest.save);
    }
}
