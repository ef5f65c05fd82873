//! What the hypervisor comes out for.

use view_core::{Frame, Ownership};

use super::{Action, End, Exception, Monitor, Work};
use crate::cpuid::{Asker, cpuid};
use crate::exit_code::ExitCode;
use crate::machine::Machine;
use crate::msr::{self, MsrAnswer};
use crate::permission_map::insisted::{Whom, why_msr};
use crate::permission_map::{IoAccess, IoWidth, MsrAccess};
use crate::ports::PortAnswer;
use crate::vmcb::{Event, EventKind, Intercept, Intercepts};

/// What the hypervisor does not do unseen.
pub(super) fn intercepts() -> Intercepts {
    Intercepts::of(&super::OF_BOTH).or(Intercepts::of(&[Intercept::Cpuid]))
}

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
            // Dropping what caches hold would bring back what the monitor has written over.
            Intercept::Invd => {
                machine.write_back();
                self.skip(2);
            }
            Intercept::Msr => self.on_msr(machine),
            Intercept::Io => return self.on_port(machine),
            Intercept::Shutdown | Intercept::Init => return Action::End(End::Shutdown),
            Intercept::Vmmcall | Intercept::Skinit => self.raise(Exception::InvalidOpcode),
            _ if !self.msrs.svme() => self.raise(Exception::InvalidOpcode),
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
        let save = &mut self.hypervisor.save;
        save.visit_vmload_words(|index, word| *word = machine.entry(frame, index));
        self.skip(3);
    }

    fn vmsave<M: Machine>(&mut self, machine: &mut M) {
        let Some(frame) = self.operand(machine, "VMSAVE") else { return };
        let save = &mut self.hypervisor.save;
        save.visit_vmload_words(|index, word| machine.set_entry(frame, index, *word));
        self.skip(3);
    }

    /// The hypervisor touched memory that its tables do not lead to.
    fn on_hypervisor_fault<M: Machine>(&mut self, machine: &mut M) {
        const WRITE: u64 = 1 << 1;
        let control = &self.hypervisor.control;
        let (address, write) = (control.exit_info_2, control.exit_info_1 & WRITE != 0);
        // Bits behind the CPU's addresses may have a meaning of their own, as that of encryption.
        let beyond = address >> self.setting.address_bits != 0;
        let Some(frame) = Frame::new(address >> 12).ok().filter(|_| !beyond) else {
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
                let guest = self.launched.get(number).and_then(Option::as_ref);
                if let Some((ended, guest)) = self.ended.get_mut(number).zip(guest) {
                    *ended = Some((guest.block, guest.root));
                }
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
        let answer = if write {
            let readable = self.offer(machine).operand(value).is_ok();
            let mut below = Real { machine, readable };
            self.msrs.write(msr, value, &mut self.hypervisor.save, &mut below)
        } else {
            self.msrs.read(msr, &self.hypervisor.save)
        };
        let read = match answer {
            MsrAnswer::Value(read) => Some(read),
            MsrAnswer::Done => Some(0),
            MsrAnswer::PassOn if write => machine.write_msr(msr, value).then_some(0),
            MsrAnswer::PassOn => machine.read_msr(msr),
            MsrAnswer::GeneralProtection => {
                let why = why_msr(MsrAccess { msr, write }, Whom::Hypervisor).unwrap_or("unknown");
                let access = if write { "WRMSR" } else { "RDMSR" };
                self.refuse(machine, format_args!("{access} of {msr:#x}: {why}"));
                None
            }
        };
        let Some(read) = read else {
            self.raise(Exception::GeneralProtection);
            return;
        };
        if !write {
            self.hypervisor.save.rax = read & 0xffff_ffff;
            self.switched.general.rdx = read >> 32;
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
            match self.setting.ports.write(access, value) {
                PortAnswer::PassOn => machine.write_port(access, value),
                PortAnswer::Done => {
                    self.refuse(machine, format_args!("{value:#x} to port {:#x}", access.port));
                }
                PortAnswer::Reset => return Action::End(End::Reset),
                PortAnswer::Off => return Action::End(End::Off),
            }
        } else {
            let read = u64::from(machine.read_port(access));
            let kept = if bits == 0xffff_ffff { 0 } else { rax & !bits };
            self.hypervisor.save.rax = kept | read & bits;
        }
        self.hypervisor.save.rip = self.hypervisor.control.exit_info_2;
        Action::Enter
    }
}

/// The CPU as it is, and whether the hypervisor may read the page that it names.
struct Real<'m, M> {
    machine: &'m mut M,
    readable: bool,
}

impl<M: Machine> msr::Below for Real<'_, M> {
    fn real(&mut self, msr: u32) -> u64 {
        self.machine.read_msr(msr).unwrap_or(0)
    }

    fn is_readable_page(&mut self, _: u64) -> bool {
        self.readable
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
