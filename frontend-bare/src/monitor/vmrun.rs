//! VMRUN of the hypervisor's: what it asks for is checked on a copy, and entered on the monitor's
//! terms.

use core::fmt;

use view_core::registers::Changed;
use view_core::{Frame, Frames};

use super::{Entered, Launched, Level, Monitor, insisted_of_guests};
use crate::entry_check::{Entry, Offer};
use crate::exit_code::ExitCode;
use crate::hypervisor_table::HypervisorTable;
use crate::launched;
use crate::machine::Machine;
use crate::stopped::Refused;
use crate::table::Levels;
use crate::veiled::Broken;
use crate::vmcb::{ControlArea, Event, EventKind, Intercept, TlbControl, Vmcb, cr4, efer};

/// Bits of CR4 that guests may set: all that had a name when this was written, but for shadow
/// stacks (the manual, 3.1.3).
const CR4: u64 = 0x7f_1fff & !(1 << 13 | 1 << 14 | 1 << 15 | 1 << 19);

/// Bits of EFER that guests may set (the manual, 3.1.7).
pub(super) const EFER: u64 =
    efer::SCE | efer::LME | efer::LMA | efer::NXE | 0x3 << 13 | 1 << 15 | 1 << 21;

/// Clean bit: the maps of ports and MSRs are as they were (the manual, 15.15.3).
const MAPS_ARE_CLEAN: u32 = 1 << 1;

/// There is no guest any more that could be entered.
struct Gone;

const SHUT_DOWN: ExitCode = ExitCode::By(Intercept::Shutdown);

impl<'m> Monitor<'m> {
    /// What is offered to the hypervisor, at this moment.
    pub(super) fn offer<'o, M: Machine>(
        &self,
        machine: &'o M,
    ) -> Offer<impl Fn(Frame) -> bool + use<'o, 'm, M>> {
        let frames: Frames<'m> = self.setting.frames();
        Offer {
            frames_end: self.setting.frames_end,
            address_bits: self.setting.address_bits,
            cr4: CR4,
            efer: EFER,
            asids: 1..=self.setting.asids - 2,
            readable: move |frame| crate::desk::is_readable(frames, machine, frame),
        }
    }

    pub(super) fn vmrun<M: Machine>(&mut self, machine: &mut M) {
        let (xcr0, breakpoints) = (self.switched.xcr0, machine.breakpoints());
        let Some(block) = self.operand(machine, "VMRUN") else { return };
        let mut asked = Vmcb::of_page(&self.desk(machine).copy(block)).clone();
        asked.save.take_vmload_state(&self.hypervisor.save);
        // First of all: for a block that is refused nothing of a launched guest's is put back.
        let checked = self.offer(machine).check(&asked);
        let mut entry = match checked {
            Ok(entry) => entry,
            Err(error) => {
                self.refuse(machine, format_args!("VMRUN: {:?}: {:?}", error.field, error.why));
                return self.fail_entry(machine, block, ExitCode::Invalid);
            }
        };
        // Before registers are put back: nothing may fail behind that.
        if let Err((number, broken)) = self.close_dropped(machine, block, &entry) {
            self.stop(machine, number, format_args!("{broken}"));
            return self.fail_entry(machine, block, SHUT_DOWN);
        }
        let launched = match self.resume(machine, block, &mut asked) {
            Ok(launched) => launched,
            Err(Gone) => return self.fail_entry(machine, block, SHUT_DOWN),
        };
        if launched.is_some() {
            entry.event = Some(asked.control.event).filter(|event| event.is_valid());
        }
        self.enter(machine, (block, launched, (xcr0, breakpoints)), (&asked, &entry));
    }

    /// The guest did not run: VMRUN did not accept the block, or there is no guest any more.
    fn fail_entry<M: Machine>(&mut self, machine: &mut M, block: Frame, why: ExitCode) {
        let mut page = self.desk(machine).copy(block);
        let control = &mut Vmcb::of_page_mut(&mut page).control;
        control.exit_code = why.raw();
        machine.write(block, &page);
        self.set_interrupts(false);
        self.skip(3);
    }

    fn enter<M: Machine>(
        &mut self,
        machine: &mut M,
        (block, launched, (xcr0, breakpoints)): (Frame, Option<usize>, (u64, [u64; 4])),
        (asked, entry): (&Vmcb, &Entry),
    ) {
        self.join_maps(machine, entry, asked.control.clean);
        let tables = self.tables(entry);
        let wanted = asked.control.intercepts;
        let root = match launched.and_then(|number| self.launched[number].as_ref()) {
            Some(guest) => guest.memory.root(),
            None => {
                self.shadow(machine, entry);
                self.setting.shadow.root()
            }
        };
        let nested_cr3 = root.number() << 12;
        if self.guest.control.nested_cr3 != nested_cr3 {
            machine.flush();
        }
        let mut control = Vmcb::zeroed().control;
        control.intercepts = match launched {
            Some(_) => launched::intercepts(&wanted),
            None => wanted.or(insisted_of_guests()),
        };
        control.pause_filter_count = asked.control.pause_filter_count;
        control.pause_filter_threshold = asked.control.pause_filter_threshold;
        control.tsc_offset = asked.control.tsc_offset;
        control.asid = Self::GUEST_ASID;
        control.virtual_interrupt = asked.control.virtual_interrupt;
        control.interrupt_state = asked.control.interrupt_state & ControlArea::INTERRUPT_SHADOW;
        control.nested_features = ControlArea::NESTED_PAGING;
        control.event = entry.event.unwrap_or(Event::NONE);
        control.nested_cr3 = nested_cr3;
        // Not every CPU writes it at exits: what is in there then is what was left here.
        // A software interrupt that is injected has its own there (15.20).
        let is_software =
            entry.event.is_some_and(|e| e.kind() == Some(EventKind::SoftwareInterrupt));
        control.next_rip = if is_software { asked.control.next_rip } else { 0 };
        self.guest.control = control;
        self.guest.save = asked.save.clone();
        let (io_map, msr_map) = (entry.io_map, entry.msr_map);
        let entered =
            Entered { block, wanted, io_map, msr_map, tables, xcr0, breakpoints, launched };
        self.level = Level::Guest(entered);
    }

    /// The hypervisor's tables for a guest, which are as deep as its own.
    const fn tables(&self, entry: &Entry) -> HypervisorTable {
        let levels = match self.hypervisor.save.cr4 & cr4::LA57 {
            0 => Levels::Four,
            _ => Levels::Five,
        };
        HypervisorTable { root: entry.nested_root, levels }
    }

    /// Where the hypervisor has a launched guest's mappings forgotten, it has dropped some: open
    /// pages that they do not lead to any more are taken from it, and closed if they were open
    /// until then.
    fn close_dropped<M: Machine>(
        &mut self,
        machine: &mut M,
        block: Frame,
        entry: &Entry,
    ) -> Result<(), (usize, Broken)> {
        let tables = self.tables(entry);
        let Some(number) = self.launched_at(block) else { return Ok(()) };
        let Some(guest) = self.launched[number].as_mut() else { return Ok(()) };
        if entry.tlb_control == TlbControl::Nothing {
            return Ok(());
        }
        let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
        guest.memory.close_dropped(&mut desk, &tables).map_err(|broken| (number, broken))
    }

    /// Which launched guest's control block this is, if it is one's.
    fn launched_at(&self, block: Frame) -> Option<usize> {
        let is_of = |guest: &Option<Launched<'_>>| guest.as_ref().is_some_and(|g| g.block == block);
        self.launched.iter().position(is_of)
    }

    /// What the hypervisor wants to see of ports and MSRs, beside what the monitor insists on.
    fn join_maps<M: Machine>(&mut self, machine: &mut M, entry: &Entry, clean: u32) {
        let asked = (entry.io_map, entry.msr_map);
        let maps = &mut self.maps;
        if maps.joined != Some(asked) || clean & MAPS_ARE_CLEAN == 0 {
            maps.joined_io.join(&maps.insisted_io, machine, entry.io_map);
            maps.joined_msr.join(&maps.insisted_guest_msr, machine, entry.msr_map);
            maps.joined = Some(asked);
        }
    }

    /// The shadow holds what one set of tables proposes, until the hypervisor has it forgotten.
    fn shadow<M: Machine>(&mut self, machine: &mut M, entry: &Entry) {
        let asked = Some((entry.nested_root, entry.asid));
        if self.shadowed != asked || entry.tlb_control != TlbControl::Nothing {
            self.setting.shadow.clear(machine, &mut self.setting.views.pool);
            machine.flush();
            self.shadowed = asked;
        }
    }

    /// Puts back what a launched guest had when it came out, if this is one's control block.
    fn resume<M: Machine>(
        &mut self,
        machine: &mut M,
        block: Frame,
        asked: &mut Vmcb,
    ) -> Result<Option<usize>, Gone> {
        let root = Frame::new(asked.control.nested_cr3 >> 12).ok();
        let is_here = |ended: &&mut Option<_>| ended.is_some_and(|(of, _)| of == block);
        // With another root it is another guest's block by now.
        let ended = self.ended.iter_mut().find(is_here).and_then(Option::take);
        if ended.is_some_and(|(_, of)| Some(of) == root) {
            return Err(Gone);
        }
        let Some(number) = self.launched_at(block) else { return Ok(None) };
        let Some(guest) = self.launched[number].as_mut() else { return Ok(None) };
        let stopped = guest.stopped.take().ok_or(Gone)?;
        let is_another = root != Some(core::mem::replace(&mut guest.root, root.unwrap_or(block)));
        let general = &self.switched.general;
        let resumed = if self.switched.extended.is_initial() {
            stopped.resume(&asked.control, &asked.save, general)
        } else {
            Err(Refused::Changed(Changed("extended")))
        };
        match resumed {
            Ok(resumed) => {
                core::mem::swap(&mut guest.extended, &mut self.switched.extended);
                self.switched.xcr0 = guest.xcr0;
                machine.set_breakpoints(guest.breakpoints);
                self.go_on(machine, resumed);
                asked.save = self.guest.save.clone();
                asked.control.event = self.guest.control.event;
                asked.control.interrupt_state = self.guest.control.interrupt_state;
                Ok(Some(number))
            }
            // Another guest was made where this one's was: it does not come back.
            Err(_) if is_another => {
                machine.say(format_args!("monitor: guest {number} was given up"));
                self.end_guest(machine, number);
                Ok(None)
            }
            Err(refused) => {
                machine.say(format_args!("monitor: guest {number} is stopped: {refused}"));
                self.end_guest(machine, number);
                Err(Gone)
            }
        }
    }

    /// Ends a launched guest, and says why.
    pub(super) fn stop<M: Machine>(
        &mut self,
        machine: &mut M,
        number: usize,
        why: fmt::Arguments<'_>,
    ) {
        machine.say(format_args!("monitor: guest {number} is stopped: {why}"));
        self.end_guest(machine, number);
    }
}
