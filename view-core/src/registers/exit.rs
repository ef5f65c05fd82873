//! Why a virtual CPU stopped, and the one table of what shows then and what may be changed.

use core::fmt;

use super::Registers;

/// How much of a general register an instruction names. Written by 32 bits, the upper half becomes
/// zero; written by less, the rest stays (AMD APM volume 1, 3.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// Bits 0 to 7: `al`.
    LowByte,
    /// Bits 8 to 15, of the first four registers alone: `ah`.
    HighByte,
    /// Bits 0 to 15: `ax`.
    Word,
    /// Bits 0 to 31: `eax`.
    Half,
    /// All 64 bits: `rax`.
    Whole,
}

impl Part {
    /// The bits of the register that are meant.
    pub const fn bits(self) -> u64 {
        match self {
            Self::LowByte => 0xff,
            Self::HighByte => 0xff00,
            Self::Word => 0xffff,
            Self::Half => LOW_HALF,
            Self::Whole => u64::MAX,
        }
    }
}

/// A set of general registers: bit 0 is `rax`, then as instructions number them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gprs(pub u16);

/// A general register that an instruction names, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operand {
    number: u8,
    part: Part,
}

impl Operand {
    /// Register `number`, 0 to 15 as instructions number them. `None` if there is no such one, or
    /// if it has no such part.
    ///
    /// ```
    /// use view_core::registers::{Operand, Part};
    /// assert!(Operand::new(3, Part::HighByte).is_some()); // bh
    /// assert!(Operand::new(4, Part::HighByte).is_none());
    /// ```
    pub const fn new(number: u8, part: Part) -> Option<Self> {
        let last = if matches!(part, Part::HighByte) { 3 } else { 15 };
        if number <= last { Some(Self { number, part }) } else { None }
    }
}

/// How much goes through a port at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortSize {
    /// `al`.
    Byte,
    /// `ax`.
    Word,
    /// `eax`.
    Double,
}

impl PortSize {
    const fn bits(self) -> u64 {
        match self {
            Self::Byte => 0xff,
            Self::Word => 0xffff,
            Self::Double => LOW_HALF,
        }
    }
}

/// Why a virtual CPU stopped.
///
/// Port numbers, addresses and sizes are in the exit's own words, which show beside this. Forms
/// that name memory as well (`ins`, `outs`, `movs`) have no row: whoever decodes one stops there.
/// So does what changes flags on its way to a device (`or [device], al`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// `cpuid`.
    Cpuid,
    /// `rdmsr`.
    ReadMsr,
    /// `wrmsr`.
    WriteMsr,
    /// `in`.
    PortIn(PortSize),
    /// `out`.
    PortOut(PortSize),
    /// A load from a device's memory.
    MmioRead {
        /// Where it goes.
        into: Operand,
        /// What its address is made of.
        address: Gprs,
    },
    /// A store to a device's memory.
    MmioWrite {
        /// What is stored; `None` if the instruction itself says.
        from: Option<Operand>,
        /// What its address is made of.
        address: Gprs,
    },
    /// `hlt`, or another instruction that yields nothing and takes nothing.
    Halt,
    /// A timer, or another interrupt of the host.
    Interrupt,
    /// A page that the nested tables do not map, and that is no device's.
    PageFault,
    /// `vmmcall`: a call that is not for the trusted side.
    Hypercall,
    /// The CPU can't go on: a triple fault.
    Shutdown,
}

/// What shows at an exit, and what may be changed there. A bit that is set in a word stands for
/// that bit of the register.
#[derive(Clone, Debug)]
pub struct Masks {
    /// What shows.
    pub shown: Registers,
    /// What carrying the instruction out yields. It has `rip` where an instruction stopped: that
    /// may become the next one, and nothing else.
    pub result: Registers,
}

const LOW_HALF: u64 = 0xffff_ffff;
const RFLAGS_IF: u64 = 1 << 9;
const RFLAGS_VM: u64 = 1 << 17;
const CR0_PE: u64 = 1;
const EFER_LMA: u64 = 1 << 10;
/// `L` and `D` among the attributes of `cs`.
const CS_SIZE: u64 = 0b11 << (16 + 9);
const CPL: u64 = 0b11;

/// The table. Whether interrupts are on shows at every exit, or none could be injected; in which
/// mode the CPU runs, where an instruction is decoded or a call is judged by it.
pub fn masks(exit: Exit) -> Masks {
    let (mut shown, mut result) = (Registers::ZERO, Registers::ZERO);
    (shown.rflags, result.rip) = (RFLAGS_IF, u64::MAX);
    match exit {
        Exit::Cpuid => {
            (shown.rax, shown.rcx) = (LOW_HALF, LOW_HALF);
            (result.rax, result.rbx) = (LOW_HALF, LOW_HALF);
            (result.rcx, result.rdx) = (LOW_HALF, LOW_HALF);
        }
        Exit::ReadMsr => {
            shown.rcx = LOW_HALF;
            (result.rax, result.rdx) = (LOW_HALF, LOW_HALF);
        }
        Exit::WriteMsr => (shown.rax, shown.rcx, shown.rdx) = (LOW_HALF, LOW_HALF, LOW_HALF),
        Exit::PortIn(size) => result.rax = size.bits(),
        Exit::PortOut(size) => shown.rax = size.bits(),
        Exit::MmioRead { into, address } => {
            name_mode(&mut shown);
            name(&mut shown, address);
            name_part(&mut result, into);
        }
        Exit::MmioWrite { from, address } => {
            name_mode(&mut shown);
            name(&mut shown, address);
            if let Some(from) = from {
                name_part(&mut shown, from);
            }
        }
        Exit::Hypercall => {
            name_mode(&mut shown);
            (shown.rax, shown.rbx, shown.rcx) = (u64::MAX, u64::MAX, u64::MAX);
            (shown.rdx, shown.rsi) = (u64::MAX, u64::MAX);
            result.rax = u64::MAX;
        }
        Exit::Halt => {}
        Exit::Interrupt | Exit::PageFault | Exit::Shutdown => result.rip = 0,
    }
    Masks { shown, result }
}

fn name_mode(mask: &mut Registers) {
    mask.rflags |= RFLAGS_VM;
    (mask.cr0, mask.efer, mask.cs, mask.cpl) = (CR0_PE, EFER_LMA, CS_SIZE, CPL);
}

fn name(mask: &mut Registers, Gprs(named): Gprs) {
    for (number, word) in mask.words_mut().iter_mut().take(16).enumerate() {
        if named & (1 << number) != 0 {
            *word = u64::MAX;
        }
    }
}

fn name_part(mask: &mut Registers, Operand { number, part }: Operand) {
    if let Some(word) = mask.words_mut().get_mut(usize::from(number)) {
        *word |= part.bits();
    }
}

/// What the management side sees of a context at an exit: the bits of its mask, and zeroes
/// elsewhere. Where the next instruction is, it is told beside this.
///
/// ```
/// use view_core::registers::{Exit, PortSize, Registers, show};
/// let mut kept = Registers::ZERO;
/// (kept.rax, kept.rdx) = (0x5ec2_e741, 0x3f8);
/// let shown = show(Exit::PortOut(PortSize::Byte), &kept);
/// assert_eq!((shown.rax, shown.rdx), (0x41, 0));
/// assert_eq!(show(Exit::Halt, &kept).rax, 0);
/// ```
pub fn show(exit: Exit, kept: &Registers) -> Registers {
    let Masks { mut shown, .. } = masks(exit);
    for (shown, kept) in shown.words_mut().iter_mut().zip(kept.words()) {
        *shown &= kept;
    }
    shown
}

/// The first register in which a context differs from what was shown, where it must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed(pub &'static str);

impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the register {} was changed, which this exit does not ask for", self.0)
    }
}

impl core::error::Error for Changed {}

/// What a guest is entered with after an exit: its own context as it was kept, and of `returned`
/// the results of the instruction alone.
///
/// `returned` is what [`show`] gave, changed. With `rip` at `next_rip` the instruction was carried
/// out and its results are taken, all of them; with `rip` as it was shown (zero) it was not, and
/// nothing else may differ. `next_rip` is the trusted side's, from the CPU or its own decoding.
///
/// ```
/// use view_core::registers::{Exit, PortSize, Registers, accept, show};
/// let mut kept = Registers::ZERO;
/// (kept.rax, kept.rip) = (0x5ec2_e700, 0x10);
/// let exit = Exit::PortIn(PortSize::Byte);
/// let mut returned = show(exit, &kept);
/// (returned.rax, returned.rip) = (0x41, 0x11);
/// let entered = accept(exit, 0x11, &kept, &returned).expect("al is the result");
/// assert_eq!((entered.rax, entered.rip), (0x5ec2_e741, 0x11));
/// (returned.rax, returned.rip) = (0, 0x12);
/// assert_eq!(accept(exit, 0x11, &kept, &returned).expect_err("skipped").0, "rip");
/// ```
///
/// # Errors
/// [`Changed`]; whether the VM then stops is the platform's choice, but this context is never
/// entered.
pub fn accept(
    exit: Exit,
    next_rip: u64,
    kept: &Registers,
    returned: &Registers,
) -> Result<Registers, Changed> {
    let Masks { shown, mut result } = masks(exit);
    if returned.rip != next_rip {
        result = Registers::ZERO;
    }
    let mut entered = kept.clone();
    let masks = shown.words().iter().zip(result.words());
    let words = Registers::NAMES.iter().zip(entered.words_mut()).zip(returned.words());
    for (((name, word), returned), (shown, result)) in words.zip(masks) {
        if (*word & shown ^ returned) & !result != 0 {
            return Err(Changed(name));
        }
        // A result of 32 bits leaves zeroes above it.
        let replaced = if *result == LOW_HALF { u64::MAX } else { *result };
        *word = *word & !replaced | returned & result;
    }
    Ok(entered)
}
