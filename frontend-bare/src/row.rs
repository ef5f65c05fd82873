//! Which row of the core's table an exit is, and what of its own words shows beside it.

use core::fmt;

use view_core::registers::{Exit, Gprs, Operand, Part, PortSize};

use crate::exit_code::ExitCode;
use crate::guest_walk::GuestMemory;
use crate::instruction::{CodeSize, Instruction, Load, Undecodable, What, decode};
use crate::launched::{EXCEPTION_ALIGNMENT, EXCEPTION_DEBUG, EXCEPTION_MACHINE_CHECK, UNDEFINED};
use crate::vmcb::{ControlArea, Fetched, Intercept, StateSaveArea};

/// What a guest touched that its nested tables do not let it. Other exits do not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// A page of its own memory.
    Memory,
    /// No memory: a device that the hypervisor emulates.
    Device,
}

/// Why an exit has no row. The VM stops: nothing of it can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRow {
    /// Of an exit for this reason nothing is known.
    Exit(ExitCode),
    /// What stopped is no instruction that can show.
    Instruction(Undecodable),
    /// It is another instruction than the exit says, or another kind of access.
    Contradiction,
    /// A port that is read into memory or written from it, or of no known size.
    Port,
    /// A device's memory on the way to something else: code, tables, or the stack of an interrupt.
    ThroughDevice,
    /// The next instruction is not behind this one.
    NextRip,
}

impl fmt::Display for NoRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "an exit {code:?}, which a launched guest has not"),
            Self::Instruction(why) => why.fmt(f),
            Self::Contradiction => f.write_str("an instruction that the exit is not of"),
            Self::Port => f.write_str("a port and memory at once, or of no known size"),
            Self::ThroughDevice => f.write_str("a device's memory as code, tables or stack"),
            Self::NextRip => f.write_str("an instruction without one behind it"),
        }
    }
}

impl core::error::Error for NoRow {}

/// An exit, as far as it shows.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) exit: Exit,
    /// The two words of its own.
    pub(crate) infos: [u64; 2],
    /// How long the instruction is that stopped; none if the exit is not an instruction's.
    pub(crate) length: u8,
    /// Its bytes, where the hypervisor has to decode it, too.
    pub(crate) fetched: Fetched,
    /// What a load leaves in the register.
    pub(crate) load: Option<Load>,
}

/// Instructions that an intercept alone names, and whose rows they have. `pause` and its like yield
/// nothing, as `hlt`; `xsetbv` takes what `wrmsr` takes.
const INSTRUCTIONS: [(Intercept, What, Exit); 7] = [
    (Intercept::Cpuid, What::Cpuid, Exit::Cpuid),
    (Intercept::Hlt, What::Hlt, Exit::Halt),
    (Intercept::Pause, What::Pause, Exit::Halt),
    (Intercept::Invd, What::Invd, Exit::Halt),
    (Intercept::Wbinvd, What::Wbinvd, Exit::Halt),
    (Intercept::Xsetbv, What::Xsetbv, Exit::WriteMsr),
    (Intercept::Vmmcall, What::Vmmcall, Exit::Hypercall),
];

/// What comes between two instructions, or before one that the CPU carries out then, or that the
/// monitor refuses its guest.
const INTERRUPTS: [Intercept; 10] = [
    Intercept::Intr,
    Intercept::Nmi,
    Intercept::Smi,
    Intercept::Init,
    Intercept::Vintr,
    Intercept::Iret,
    Intercept::Rdpmc,
    Intercept::Exception(EXCEPTION_MACHINE_CHECK),
    Intercept::Exception(EXCEPTION_DEBUG),
    Intercept::Exception(EXCEPTION_ALIGNMENT),
];

/// Words of exits for ports and MSRs (the manual, 15.10.2 and 15.11), and for nested faults
/// (15.25.6).
const IO_IN: u64 = 1;
const IO_STRING: u64 = 1 << 2;
const IO_REPEATED: u64 = 1 << 3;
const IO_SIZE: u64 = 7 << 4;
const IO_PORT: u64 = 0xffff << 16;
const MSR_WRITE: u64 = 1;
const FAULT_WRITE: u64 = 1 << 1;
const FAULT_CODE: u64 = 1 << 4;
const FAULT_FINAL: u64 = 1 << 32;
const FAULT_TABLE: u64 = 1 << 33;
/// Present, write, user, reserved bit, code; the guest's access itself, or its tables.
const FAULT_SHOWN: u64 = 0x1f | FAULT_FINAL | FAULT_TABLE;
/// The exit's word is of `mov` with this register (15.8.1).
const CR_MOV: u64 = 1 << 63;

/// An exit's row.
pub(crate) fn row<R: FnMut(u64) -> Option<u64>>(
    control: &ControlArea,
    save: &StateSaveArea,
    memory: &mut GuestMemory<R>,
    touched: Touched,
) -> Result<Row, NoRow> {
    let mut stop = Stop { control, save, memory };
    let none = NoRow::Exit(control.exit());
    if control.exit() == ExitCode::NestedPageFault {
        return stop.fault(touched);
    }
    let ExitCode::By(intercept) = control.exit() else { return Err(none) };
    if INTERRUPTS.contains(&intercept) || UNDEFINED.contains(&intercept) {
        return Ok(stop.between(Exit::Interrupt, [0; 2]));
    }
    if intercept == Intercept::Shutdown {
        return Ok(stop.between(Exit::Shutdown, [0; 2]));
    }
    if control.exit_event.is_valid() {
        return Err(NoRow::ThroughDevice);
    }
    if let Some((_, what, exit)) = INSTRUCTIONS.iter().find(|(by, ..)| *by == intercept) {
        return stop.instruction(*what, *exit, [0; 2]);
    }
    if intercept == Intercept::Msr {
        return stop.msr();
    }
    if intercept == Intercept::Io {
        return stop.port();
    }
    if intercept == Intercept::CrWrite(8) { stop.task_priority() } else { Err(none) }
}

struct Stop<'s, R> {
    control: &'s ControlArea,
    save: &'s StateSaveArea,
    memory: &'s mut GuestMemory<R>,
}

impl<R: FnMut(u64) -> Option<u64>> Stop<'_, R> {
    fn between(&self, exit: Exit, infos: [u64; 2]) -> Row {
        Row { exit, infos, length: 0, fetched: Fetched::new(&[]), load: None }
    }

    /// An instruction without operands, or with operands that do not show.
    fn instruction(&mut self, what: What, exit: Exit, infos: [u64; 2]) -> Result<Row, NoRow> {
        let length = if self.control.next_rip != 0 {
            self.length_to(self.control.next_rip)?
        } else {
            let (instruction, _) = self.decoded()?;
            if instruction.what != what {
                return Err(NoRow::Contradiction);
            }
            instruction.length
        };
        Ok(Row { length, ..self.between(exit, infos) })
    }

    fn msr(&mut self) -> Result<Row, NoRow> {
        let written = self.control.exit_info_1 & MSR_WRITE;
        if written != 0 {
            self.instruction(What::Wrmsr, Exit::WriteMsr, [written, 0])
        } else {
            self.instruction(What::Rdmsr, Exit::ReadMsr, [0; 2])
        }
    }

    fn port(&mut self) -> Result<Row, NoRow> {
        let info = self.control.exit_info_1;
        let size = match (info & IO_SIZE) >> 4 {
            1 => PortSize::Byte,
            2 => PortSize::Word,
            4 => PortSize::Double,
            _ => return Err(NoRow::Port),
        };
        if info & (IO_STRING | IO_REPEATED) != 0 {
            return Err(NoRow::Port);
        }
        let exit = if info & IO_IN != 0 { Exit::PortIn(size) } else { Exit::PortOut(size) };
        let length = self.length_to(self.control.exit_info_2)?;
        let infos = [info & (IO_IN | IO_SIZE | IO_PORT), u64::from(length)];
        Ok(Row { length, ..self.between(exit, infos) })
    }

    /// CR8 is the task priority of the local APIC: a store to a device, of which four bits count.
    fn task_priority(&mut self) -> Result<Row, NoRow> {
        let (Instruction { what, length }, _) = self.decoded()?;
        let What::WriteCr8(number) = what else { return Err(NoRow::Contradiction) };
        let from = Operand::new(number, Part::LowByte);
        let exit = Exit::MmioWrite { from, address: Gprs(0) };
        Ok(Row { length, ..self.between(exit, [CR_MOV | u64::from(number), 0]) })
    }

    fn fault(&mut self, touched: Touched) -> Result<Row, NoRow> {
        let ControlArea { exit_info_1: how, exit_info_2: address, .. } = *self.control;
        if touched == Touched::Memory {
            let page = address & !(view_core::PAGE_SIZE as u64 - 1);
            return Ok(self.between(Exit::PageFault, [how & FAULT_SHOWN, page]));
        }
        if how & (FAULT_TABLE | FAULT_CODE) != 0 || self.control.exit_event.is_valid() {
            return Err(NoRow::ThroughDevice);
        }
        let (Instruction { what, length }, fetched) = self.decoded()?;
        let (exit, load) = access(what, how & FAULT_WRITE != 0).ok_or(NoRow::Contradiction)?;
        let fetched = Fetched::new(fetched.bytes().get(..length.into()).unwrap_or_default());
        let infos = [how & FAULT_SHOWN, address];
        Ok(Row { exit, infos, length, fetched, load })
    }

    fn decoded(&mut self) -> Result<(Instruction, Fetched), NoRow> {
        let fetched = self.memory.fetch(self.save);
        let decoded = decode(fetched.bytes(), CodeSize::of(self.save));
        Ok((decoded.map_err(NoRow::Instruction)?, fetched))
    }

    fn length_to(&self, next_rip: u64) -> Result<u8, NoRow> {
        let length = next_rip.wrapping_sub(self.save.rip);
        let fits = (1..=Fetched::MAX as u64).contains(&length);
        if fits { Ok(length as u8) } else { Err(NoRow::NextRip) }
    }
}

/// The row of an access to a device's memory, if it is that access.
fn access(what: What, is_write: bool) -> Option<(Exit, Option<Load>)> {
    match (what, is_write) {
        (What::Load(load), false) => {
            let into = Operand::new(load.number, load.part)?;
            Some((Exit::MmioRead { into, address: load.address }, Some(load)))
        }
        (What::Store { from, address }, true) => Some((Exit::MmioWrite { from, address }, None)),
        _ => None,
    }
}
