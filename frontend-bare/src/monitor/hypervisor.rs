//! What the hypervisor comes out for.

use view_core::{Frame, Ownership};

use super::{Action, End, Exception, Monitor, Work};
use crate::cpuid::{Asker, cpuid};
use crate::exit_code::ExitCode;
use crate::machine::Machine;
use crate::permission_map::{IoAccess, IoWidth};
use crate::vmcb::{Event, EventKind, Intercept, Intercepts, Vmcb, efer};

/// What the hypervisor does not do unseen.
pub(super) fn intercepts() -> Intercepts {
    use Intercept as I;
    Intercepts::of(&[
        I::Cpuid,
        I::Io,
        I::Msr,
        I::Shutdown,
        I::Init,
        I::Vmrun,
        I::Vmmcall,
        I::Vmload,
        I::Vmsave,
        I::Stgi,
        I::Clgi,
        I::Skinit,
        I::Invlpga,
    ])
}

const EFER: u32 = 0xc000_0080;
const VM_CR: u32 = 0xc001_0114;
const VM_HSAVE_PA: u32 = 0xc001_0117;

impl<'m> Monitor<'m> {
    pub(super) fn on_hypervisor_exit<M: Machine>(&mut self, machine: &mut M) -> Action {
        let exit = self.hypervisor.control.exit();
        // What was being delivered is delivered again, unless something else is.
        self.hypervisor.control.event = again(self.hypervisor.control.exit_event);
        match exit {
            ExitCode::NestedPageFault => self.on_hypervisor_fault(machine),
            ExitCode::By(by) => return self.on_hypervisor_intercept(machine, by),
            ExitCode::Invalid => return Action::End(End::Invalid),
            ExitCode::AvicIncompleteIpi
            | ExitCode::AvicUnaccelerated
            | ExitCode::Vmgexit
            | ExitCode::Unknown(_) => return Action::End(End::Unexpected(exit)),
        }
        Action::Enter
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are not intercepted")]
    fn on_hypervisor_intercept<M: Machine>(&mut self, machine: &mut M, by: Intercept) -> Action {
        match by {
            Intercept::Cpuid => self.on_cpuid(machine),
            Intercept::Msr => self.on_msr(machine),
            Intercept::Io => return self.on_port(machine),
            Intercept::Shutdown | Intercept::Init => return Action::End(End::Shutdown),
            Intercept::Vmmcall | Intercept::Skinit => self.raise(Exception::InvalidOpcode),
            _ if !self.svme => self.raise(Exception::InvalidOpcode),
            Intercept::Vmrun => self.vmrun(machine),
            Intercept::Vmload => self.vmload(machine),
            Intercept::Vmsave => self.vmsave(machine),
            Intercept::Stgi | Intercept::Clgi => {
                self.set_interrupts(by == Intercept::Stgi);
                self.skip(3);
            }
            Intercept::Invlpga => {
                machine.flush();
                self.skip(3);
            }
            _ => return Action::End(End::Unexpected(ExitCode::By(by))),
        }
        Action::Enter
    }

    /// The operand of VMLOAD, VMSAVE or VMRUN, if the hypervisor may read there itself.
    pub(super) fn operand<M: Machine>(&mut self, machine: &mut M, what: &str) -> Option<Frame> {
        let address = self.hypervisor.save.rax;
        let operand = self.offer(machine).operand(address);
        if let Err(why) = operand {
            self.refuse(machine, format_args!("{what} of {address:#x}: {:?}", why.why));
            self.raise(Exception::GeneralProtection);
        }
        operand.ok()
    }

    fn vmload<M: Machine>(&mut self, machine: &mut M) {
        let Some(frame) = self.operand(machine, "VMLOAD") else { return };
        let page = self.desk(machine).copy(frame);
        self.hypervisor.save.take_vmload_state(&Vmcb::of_page(&page).save);
        self.skip(3);
    }

    fn vmsave<M: Machine>(&mut self, machine: &mut M) {
        let Some(frame) = self.operand(machine, "VMSAVE") else { return };
        let mut page = self.desk(machine).copy(frame);
        Vmcb::of_page_mut(&mut page).save.take_vmload_state(&self.hypervisor.save);
        machine.write(frame, &page);
        self.skip(3);
    }

    /// The hypervisor touched memory that its tables do not lead to.
    fn on_hypervisor_fault<M: Machine>(&mut self, machine: &mut M) {
        const WRITE: u64 = 1 << 1;
        let control = &self.hypervisor.control;
        let (address, write) = (control.exit_info_2, control.exit_info_1 & WRITE != 0);
        let Ok(frame) = Frame::new(address >> 12) else {
            self.raise(Exception::GeneralProtection);
            return;
        };
        if machine.is_own(frame) {
            self.refuse(
                machine,
                format_args!("the hypervisor touches {address:#x}, the monitor's"),
            );
            self.raise(Exception::GeneralProtection);
            return;
        }
        self.show(machine, frame, write);
    }

    /// Lets the hypervisor reach a frame: as it is, or as far as it may.
    pub(super) fn show<M: Machine>(&mut self, machine: &mut M, frame: Frame, write: bool) {
        if let Some(Ownership::Owned(vm, gfn)) = self.setting.frames().owner(frame) {
            self.counts.turns_out(if write { Work::LeftPage } else { Work::SealedPage });
            let number = usize::from(vm.0);
            let guest = self.launched.get_mut(number).and_then(Option::as_mut);
            let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
            let looked = guest.map(|guest| guest.memory.looked_at(&mut desk, (gfn, frame), write));
            if let Some(Err(broken)) = looked {
                self.ended[number] = self.launched[number].as_ref().map(|guest| guest.block);
                self.stop(machine, number, format_args!("{broken}"));
            }
            // A page that was left to it is memory like any other.
            if matches!(self.setting.frames().owner(frame), Some(Ownership::Owned(..))) {
                return;
            }
        } else {
            self.counts.turns_out(Work::PlainPage);
        }
        if let Err(error) = self.desk(machine).show_plainly(frame) {
            self.refuse(machine, format_args!("frame {:#x}: {error:?}", frame.number()));
            self.raise(Exception::GeneralProtection);
        }
    }

    fn on_cpuid<M: Machine>(&mut self, machine: &mut M) {
        let (leaf, subleaf) = (self.hypervisor.save.rax as u32, self.switched.general.rcx as u32);
        let asker = Asker { cr4: self.hypervisor.save.cr4, xcr0: self.switched.xcr0 };
        let answer = cpuid(leaf, subleaf, &asker, |leaf, subleaf| machine.cpuid(leaf, subleaf));
        let [eax, ebx, ecx, edx] = answer.map(u64::from);
        self.hypervisor.save.rax = eax;
        let general = &mut self.switched.general;
        (general.rbx, general.rcx, general.rdx) = (ebx, ecx, edx);
        self.skip(2);
    }

    fn on_msr<M: Machine>(&mut self, machine: &mut M) {
        let write = self.hypervisor.control.exit_info_1 & 1 != 0;
        let msr = self.switched.general.rcx as u32;
        let value = self.hypervisor.save.rax & 0xffff_ffff | self.switched.general.rdx << 32;
        let current = self.hypervisor.save.efer;
        let svme = if self.svme { efer::SVME } else { 0 };
        let answer = match (msr, write) {
            (EFER, false) => Some(current & !efer::SVME | svme),
            (VM_HSAVE_PA, false) => Some(self.save_area),
            (VM_CR, false) => Some(0),
            (EFER, true) => {
                self.svme = value & efer::SVME != 0;
                let kept = current & efer::LMA | efer::SVME;
                self.hypervisor.save.efer = value & !efer::LMA | kept;
                Some(0)
            }
            (VM_HSAVE_PA, true) => {
                let checked = self.offer(machine).operand(value);
                if let Err(why) = checked {
                    self.refuse(machine, format_args!("VM_HSAVE_PA {value:#x}: {:?}", why.why));
                } else {
                    self.save_area = value;
                }
                checked.ok().map(|_| 0)
            }
            _ => {
                self.refuse(machine, format_args!("access to MSR {msr:#x}, write: {write}"));
                None
            }
        };
        let Some(answer) = answer else {
            self.raise(Exception::GeneralProtection);
            return;
        };
        if !write {
            self.hypervisor.save.rax = answer & 0xffff_ffff;
            self.switched.general.rdx = answer >> 32;
        }
        self.skip(2);
    }

    fn on_port<M: Machine>(&mut self, machine: &mut M) -> Action {
        const STRING_OR_REP: u64 = 0b11 << 2;
        let info = self.hypervisor.control.exit_info_1;
        let access = IoAccess::from_exit_info(info).filter(|_| info & STRING_OR_REP == 0);
        let Some(access) = access else {
            self.raise(Exception::GeneralProtection);
            return Action::Enter;
        };
        let rax = self.hypervisor.save.rax;
        let bits = match access.width {
            IoWidth::One => 0xff,
            IoWidth::Two => 0xffff,
            IoWidth::Four => 0xffff_ffff,
        };
        if info & 1 == 0 {
            let value = (rax & bits) as u32;
            let resets = match access.port {
                0x64 => value & 0xf1 == 0xf0 && value & 1 == 0,
                0x92 => value & 1 != 0,
                0xcf9 => value & 4 != 0,
                _ => false,
            };
            if resets {
                return Action::End(End::Reset);
            }
            machine.write_port(access, value);
        } else {
            let read = u64::from(machine.read_port(access));
            let kept = if bits == 0xffff_ffff { 0 } else { rax & !bits };
            self.hypervisor.save.rax = kept | read & bits;
        }
        self.hypervisor.save.rip = self.hypervisor.control.exit_info_2;
        Action::Enter
    }
}

/// What was being delivered when an exit cut in, to be delivered again. An interrupt instruction
/// starts again by itself.
pub(super) fn again(event: Event) -> Event {
    match event.kind() {
        Some(EventKind::Interrupt | EventKind::Nmi | EventKind::Exception) if event.is_valid() => {
            event
        }
        _ => Event::NONE,
    }
}
