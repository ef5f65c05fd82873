//! Calls of guests: see [`calls`](crate::calls).

use view_core::registers::Registers;
use view_core::whitelist::{Doorbell, DoorbellFact, Rule};
use view_core::{Epoch, Gfn, PageState, Refused, VmNumber};

use super::{Entered, GUESTS, Launched, Level, Monitor, Work};
use crate::calls::{self, Answer};
use crate::context::gather;
use crate::launched;
use crate::machine::Machine;
use crate::switched::Extended;
use crate::veiled::{Broken, Image, NotLaunched, Touched, Veiled};
use crate::vmcb::VirtualInterrupt;

/// What is next after a call.
enum Next {
    /// The guest goes on with an answer.
    Answer(Answer),
    /// The hypervisor has to propose a frame for this page; then the guest calls again.
    Frame(Gfn),
    /// There is no guest any more.
    Ended,
}

impl<'m> Monitor<'m> {
    pub(super) fn on_call<M: Machine>(&mut self, machine: &mut M, entered: &Entered) {
        self.counts.turns_out(Work::Call);
        let next = match entered.launched {
            _ if self.guest.save.cpl != 0 => Next::Answer(Answer::Privilege),
            None if self.guest.save.rax == calls::LAUNCH => self.launch(machine, entered),
            Some(_) if self.guest.save.rax == calls::LAUNCH => Next::Answer(Answer::Launch),
            None => Next::Answer(Answer::Launch),
            Some(number) => self.serve(machine, entered, number),
        };
        match next {
            Next::Answer(answer) => {
                self.guest.save.rax = answer as u64;
                self.guest.save.rip = self.guest.save.rip.wrapping_add(3);
                self.guest.control.interrupt_state = 0;
            }
            Next::Frame(gfn) => self.ask_for_frame(machine, entered, gfn),
            Next::Ended => self.reflect_shutdown(machine, entered),
        }
    }

    fn serve<M: Machine>(&mut self, machine: &mut M, entered: &Entered, number: usize) -> Next {
        let page = Gfn::new(self.switched.general.rbx);
        match (self.guest.save.rax, page) {
            (calls::END, _) => {
                machine.say(format_args!("monitor: guest {number} has ended"));
                self.end_guest(machine, number);
                Next::Ended
            }
            (calls::SHARE | calls::UNSHARE | calls::RECORD, Err(_)) => {
                Next::Answer(Answer::Operand)
            }
            (calls::SHARE | calls::UNSHARE | calls::RECORD, Ok(gfn)) => {
                match self.bring(machine, entered, number, gfn) {
                    Ok(None) => self.serve_page(machine, number, gfn),
                    Ok(Some(next)) => next,
                    Err(broken) => self.break_up(machine, number, broken),
                }
            }
            _ => Next::Answer(Answer::NoSuchCall),
        }
    }

    /// Has the page where the guest reaches it.
    fn bring<M: Machine>(
        &mut self,
        machine: &mut M,
        entered: &Entered,
        number: usize,
        gfn: Gfn,
    ) -> Result<Option<Next>, Broken> {
        let Some(guest) = self.launched[number].as_mut() else { return Ok(Some(Next::Ended)) };
        let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
        match guest.memory.vm().state(gfn) {
            None => Ok(Some(Next::Answer(Answer::Operand))),
            Some(PageState::Free | PageState::PagedOut | PageState::Sealed) => {
                match guest.memory.touched(&mut desk, &entered.tables, gfn)? {
                    Touched::Mapped => Ok(None),
                    Touched::NeedsFrame => Ok(Some(Next::Frame(gfn))),
                }
            }
            Some(_) => Ok(None),
        }
    }

    fn serve_page<M: Machine>(&mut self, machine: &mut M, number: usize, gfn: Gfn) -> Next {
        let Some(guest) = self.launched[number].as_mut() else { return Next::Ended };
        let mut desk = super::desk(&mut self.setting, &mut self.staging, machine);
        let call = match self.guest.save.rax {
            calls::RECORD => {
                let told = guest.memory.tell_record(&mut desk, gfn);
                return Next::Answer(if told { Answer::Done } else { Answer::State });
            }
            calls::SHARE => Doorbell::SHARE,
            _ => Doorbell::UNSHARE,
        };
        let general = &self.switched.general;
        let expiry = match general.rdx {
            0 => 0,
            1 => u64::MAX,
            _ if call == Doorbell::SHARE => return Next::Answer(Answer::Operand),
            _ => 0,
        };
        let (vm, perm) = (guest.memory.vm().number(), general.rcx);
        let fact = DoorbellFact { vm, call, gfn: gfn.number(), perm, mask: 0, expiry };
        let Ok(proposal) = Doorbell.infer(guest.memory.vm(), &fact) else {
            return Next::Answer(Answer::Operand);
        };
        let (gfn, act) = proposal.act();
        match guest.memory.act(&mut desk, gfn, act) {
            Ok(()) => Next::Answer(Answer::Done),
            Err(Broken::Core(_, Refused::ListFull)) => Next::Answer(Answer::NoRoom),
            Err(Broken::Core(..)) => Next::Answer(Answer::State),
            Err(broken) => self.break_up(machine, number, broken),
        }
    }

    fn break_up<M: Machine>(&mut self, machine: &mut M, number: usize, broken: Broken) -> Next {
        self.stop(machine, number, format_args!("{broken}"));
        Next::Ended
    }

    fn launch<M: Machine>(&mut self, machine: &mut M, entered: &Entered) -> Next {
        let Some(number) = (0..GUESTS).find(|number| self.launched[*number].is_none()) else {
            return Next::Answer(Answer::NoRoom);
        };
        let general = &self.switched.general;
        let image = Image { first: general.rbx, count: general.rcx, pages: general.rdx };
        let state: Registers = gather(&self.guest.save, general);
        self.epoch = Epoch(self.epoch.0 + 1);
        let who = (VmNumber(number as u16), self.epoch, self.setting.storage[number]);
        let (root_key, owners) = (&self.setting.root_key, self.setting.owners);
        let mut desk = super::Desk {
            machine,
            views: &mut self.setting.views,
            staging: &mut self.staging,
            owners,
        };
        let memory = Veiled::launch(&mut desk, who, (root_key, &entered.tables), (image, &state));
        match memory {
            Ok(memory) => {
                self.begin(machine, entered, (number, memory));
                Next::Answer(Answer::Done)
            }
            Err(NotLaunched::NeedsFrame(gfn)) => Next::Frame(gfn),
            Err(NotLaunched::Image(_)) => Next::Answer(Answer::Operand),
            Err(NotLaunched::NoTable) => Next::Answer(Answer::NoRoom),
            Err(NotLaunched::Broken(broken)) => self.break_up(machine, number, broken),
        }
    }

    /// The guest goes on as a launched one.
    fn begin<M: Machine>(
        &mut self,
        machine: &mut M,
        entered: &Entered,
        (number, memory): (usize, Veiled<'m>),
    ) {
        let record = memory.record();
        machine.say(format_args!(
            "monitor: guest {number} is launched: {} pages of {}, measured {}",
            record.image.count,
            record.image.pages,
            Hex(&record.measurement)
        ));
        let control = &mut self.guest.control;
        control.nested_cr3 = memory.root().number() << 12;
        control.intercepts = launched::intercepts(&entered.wanted);
        // Both are the hypervisor's from before: on CPUs that write no such address it would say
        // where the guest's first instruction ends, and what waits may be an exception.
        control.next_rip = 0;
        if !launched::may_wait(control) {
            let waiting = control.virtual_interrupt;
            control.virtual_interrupt = waiting.with(VirtualInterrupt::IRQ, false);
        }
        self.launched[number] = Some(Launched {
            memory,
            block: entered.block,
            root: entered.tables.root,
            stopped: None,
            extended: Extended::initial(),
            xcr0: self.switched.xcr0,
            breakpoints: [0; 4],
        });
        self.level = Level::Guest(Entered { launched: Some(number), ..*entered });
        machine.flush();
    }
}

/// Bytes as people write measurements.
struct Hex<'b>(&'b [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
