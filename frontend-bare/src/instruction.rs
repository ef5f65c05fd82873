//! The one instruction that stopped a CPU: which it is, how long it is, and what it names.
//!
//! The bytes are a guest's and decide what of it shows, so this knows only the few forms that have
//! a row in the core's table, and refuses all others. Encodings are those of the manual, volume 3,
//! chapter 1 and appendix A.

use core::fmt;

use view_core::registers::{Gprs, Operand, Part};

use crate::guest_walk::is_in_64_bit_mode;
use crate::vmcb::{Segment, StateSaveArea};

/// How code is read (the manual, 4.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// 16 bits, unless a prefix says otherwise.
    Bits16,
    /// 32 bits, unless a prefix says otherwise.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl CodeSize {
    /// How the code is read that these registers are of.
    pub const fn of(save: &StateSaveArea) -> Self {
        if is_in_64_bit_mode(save) {
            Self::Bits64
        } else if save.cs.attributes & Segment::DEFAULT_32 != 0 {
            Self::Bits32
        } else {
            Self::Bits16
        }
    }
}

/// An instruction, and how many bytes it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Which one.
    pub what: What,
    /// Its length, up to 15.
    pub length: u8,
}

/// What an instruction does, as far as an exit asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "instructions, by their names in the manual")]
pub enum What {
    Cpuid,
    Rdmsr,
    Wrmsr,
    In,
    Out,
    Hlt,
    Pause,
    Invd,
    Wbinvd,
    Vmmcall,
    Xsetbv,
    /// `mov` to CR8 from this register.
    WriteCr8(u8),
    /// A `mov` from memory to a register.
    Load(Load),
    /// A `mov` to memory, from a register unless the instruction itself says what.
    Store {
        from: Option<Operand>,
        /// What its address is made of.
        address: Gprs,
    },
}

/// A load, with what becomes of it in a wider register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The register.
    pub number: u8,
    /// How much of it.
    pub part: Part,
    /// What its address is made of.
    pub address: Gprs,
    /// How it fills the register, if less is loaded.
    pub extension: Option<Extension>,
}

/// What `movzx` and `movsx` put above what they load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// How many bits are loaded.
    pub bits: u32,
    /// Whether the highest of them is repeated; else there are zeroes.
    pub signed: bool,
}

impl Extension {
    /// Whether this is in a register of so many bits what a load leaves there.
    pub const fn holds(self, register: u64, mask: u64) -> bool {
        let unused = u64::BITS - self.bits;
        let (low, signed) = (register << unused, (register << unused) as i64);
        let extended = if self.signed { (signed >> unused) as u64 } else { low >> unused };
        (register ^ extended) & mask == 0
    }
}

/// Why an instruction is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// There are too few bytes of it.
    Short,
    /// None that is known here; also not with these prefixes, or of this size of code.
    Unknown,
    /// It names registers alone, where memory was expected.
    NoMemory,
    /// Its address depends on where it is.
    RipRelative,
    /// Its address depends on the base of FS or GS, or is cut to 32 bits.
    Address,
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "the instruction's bytes are not all there",
            Self::Unknown => "no instruction that a device's memory or an exit is known to meet",
            Self::NoMemory => "an instruction without an address",
            Self::RipRelative => "an address relative to the instruction's own",
            Self::Address => "an address with a base of FS or GS, or of 32 bits",
        })
    }
}

impl core::error::Error for Undecodable {}

/// Decodes the instruction that some bytes begin with.
///
/// ```
/// use frontend_bare::instruction::{CodeSize, What, decode};
/// let cpuid = decode(&[0x0f, 0xa2], CodeSize::Bits64).expect("it is known");
/// assert_eq!((cpuid.what, cpuid.length), (What::Cpuid, 2));
/// ```
///
/// # Errors
/// [`Undecodable`]: then nothing is known of it, not even its length.
pub fn decode(bytes: &[u8], size: CodeSize) -> Result<Instruction, Undecodable> {
    let mut code = Code { bytes, at: 0, size, prefixes: Prefixes::default() };
    let first = code.opcode()?;
    let what = match first {
        0x0f => code.two_bytes()?,
        0x90 if code.prefixes.repeat == Some(0xf3) && code.prefixes.rex & REX_B == 0 => What::Pause,
        0xf4 => What::Hlt,
        0xe4 | 0xe5 => code.skip(1, What::In)?,
        0xe6 | 0xe7 => code.skip(1, What::Out)?,
        0xec | 0xed => What::In,
        0xee | 0xef => What::Out,
        0x88..=0x8b | 0x63 | 0xc6 | 0xc7 => code.mov(first)?,
        _ => return Err(Undecodable::Unknown),
    };
    if code.prefixes.lock {
        return Err(Undecodable::Unknown);
    }
    Ok(Instruction { what, length: code.at as u8 })
}

/// What stands before an instruction (the manual, volume 3, 1.2).
#[derive(Default)]
struct Prefixes {
    operand_16: bool,
    address: bool,
    fs_or_gs: bool,
    lock: bool,
    repeat: Option<u8>,
    rex: u8,
}

/// The bits of REX: 64-bit operands, and the fourth bits of three numbers of registers.
const REX_W: u8 = 8;
const REX_R: u8 = 4;
const REX_X: u8 = 2;
const REX_B: u8 = 1;

/// Bytes, as far as they were read.
struct Code<'b> {
    bytes: &'b [u8],
    at: usize,
    size: CodeSize,
    prefixes: Prefixes,
}

impl Code<'_> {
    fn next(&mut self) -> Result<u8, Undecodable> {
        let byte = self.bytes.get(self.at).filter(|_| self.at < LENGTH_MAX);
        self.at += 1;
        byte.copied().ok_or(Undecodable::Short)
    }

    fn skip(&mut self, count: usize, what: What) -> Result<What, Undecodable> {
        (0..count).try_for_each(|_| self.next().map(drop))?;
        Ok(what)
    }

    /// Reads prefixes and what follows them. What stands behind REX is no prefix any more: nobody
    /// writes one there, where it would undo REX.
    fn opcode(&mut self) -> Result<u8, Undecodable> {
        loop {
            let byte = self.next()?;
            match byte {
                0x66 => self.prefixes.operand_16 = true,
                0x67 => self.prefixes.address = true,
                0x26 | 0x2e | 0x36 | 0x3e => {}
                0x64 | 0x65 => self.prefixes.fs_or_gs = true,
                0xf0 => self.prefixes.lock = true,
                0xf2 | 0xf3 => self.prefixes.repeat = Some(byte),
                0x40..=0x4f if self.size == CodeSize::Bits64 => {
                    self.prefixes.rex = byte;
                    return self.next();
                }
                _ => return Ok(byte),
            }
        }
    }

    fn two_bytes(&mut self) -> Result<What, Undecodable> {
        match self.next()? {
            // Prefixes make other instructions of these.
            0x01 if self.prefixes.operand_16 || self.prefixes.repeat.is_some() => {
                Err(Undecodable::Unknown)
            }
            0x01 => match self.next()? {
                0xd1 => Ok(What::Xsetbv),
                0xd9 => Ok(What::Vmmcall),
                _ => Err(Undecodable::Unknown),
            },
            0x08 => Ok(What::Invd),
            0x09 => Ok(What::Wbinvd),
            0x30 => Ok(What::Wrmsr),
            0x32 => Ok(What::Rdmsr),
            0xa2 => Ok(What::Cpuid),
            0x22 => self.write_control_register(),
            opcode @ (0xb6 | 0xb7 | 0xbe | 0xbf) => {
                let bits = if opcode & 1 == 0 { 8 } else { 16 };
                let extension = Extension { bits, signed: opcode & 8 != 0 };
                self.load(self.operand_part(), Some(extension))
            }
            _ => Err(Undecodable::Unknown),
        }
    }

    /// `mov` to a control register, of which CR8 is the only one asked for.
    fn write_control_register(&mut self) -> Result<What, Undecodable> {
        let modrm = self.next()?;
        let (register, from) = (self.number(modrm >> 3, REX_R), self.number(modrm, REX_B));
        if register == 8 { Ok(What::WriteCr8(from)) } else { Err(Undecodable::Unknown) }
    }

    /// The forms of `mov` between registers and memory.
    fn mov(&mut self, opcode: u8) -> Result<What, Undecodable> {
        let wide = self.operand_part();
        match opcode {
            0x88 => self.store(Part::LowByte),
            0x89 => self.store(wide),
            0x8a => self.load(Part::LowByte, None),
            0x8b => self.load(wide, None),
            0x63 if wide == Part::Whole => {
                self.load(wide, Some(Extension { bits: 32, signed: true }))
            }
            0xc6 => self.store_immediate(1),
            0xc7 => self.store_immediate(if wide == Part::Word { 2 } else { 4 }),
            _ => Err(Undecodable::Unknown),
        }
    }

    const fn operand_part(&self) -> Part {
        match (self.prefixes.rex & REX_W != 0, self.prefixes.operand_16) {
            (true, _) => Part::Whole,
            (false, true) => Part::Word,
            (false, false) => Part::Half,
        }
    }

    fn load(&mut self, part: Part, extension: Option<Extension>) -> Result<What, Undecodable> {
        let (register, address) = self.memory()?;
        let (number, part) = self.named(register, part);
        Ok(What::Load(Load { number, part, address, extension }))
    }

    fn store(&mut self, part: Part) -> Result<What, Undecodable> {
        let (register, address) = self.memory()?;
        let (number, part) = self.named(register, part);
        let from = Operand::new(number, part).ok_or(Undecodable::Unknown)?;
        Ok(What::Store { from: Some(from), address })
    }

    fn store_immediate(&mut self, bytes: usize) -> Result<What, Undecodable> {
        let (extension, address) = self.memory()?;
        if extension & 7 != 0 {
            return Err(Undecodable::Unknown);
        }
        self.skip(bytes, What::Store { from: None, address })
    }

    /// Without REX the bytes 4 to 7 are the second ones of registers 0 to 3.
    const fn named(&self, register: u8, part: Part) -> (u8, Part) {
        if matches!(part, Part::LowByte) && self.prefixes.rex == 0 && register >= 4 {
            (register - 4, Part::HighByte)
        } else {
            (register, part)
        }
    }

    const fn number(&self, low: u8, rex_bit: u8) -> u8 {
        low & 7 | if self.prefixes.rex & rex_bit != 0 { 8 } else { 0 }
    }

    /// The register that is named beside memory, and the registers of the address.
    fn memory(&mut self) -> Result<(u8, Gprs), Undecodable> {
        if self.size != CodeSize::Bits64 || self.prefixes.repeat.is_some() {
            return Err(Undecodable::Unknown);
        }
        if self.prefixes.fs_or_gs || self.prefixes.address {
            return Err(Undecodable::Address);
        }
        let modrm = self.next()?;
        let (mode, rm) = (modrm >> 6, modrm & 7);
        let mut address = 0;
        let mut has_base = true;
        match rm {
            _ if mode == 3 => return Err(Undecodable::NoMemory),
            4 => {
                let sib = self.next()?;
                let index = self.number(sib >> 3, REX_X);
                address |= if index == 4 { 0 } else { 1 << index };
                has_base = mode != 0 || sib & 7 != 5;
                address |= if has_base { 1 << self.number(sib, REX_B) } else { 0 };
            }
            5 if mode == 0 => return Err(Undecodable::RipRelative),
            _ => address |= 1 << self.number(rm, REX_B),
        }
        let displacement = match mode {
            1 => 1,
            2 => 4,
            _ if has_base => 0,
            _ => 4,
        };
        let register = self.number(modrm >> 3, REX_R);
        (0..displacement).try_for_each(|_| self.next().map(drop))?;
        Ok((register, Gprs(address)))
    }
}

const LENGTH_MAX: usize = crate::vmcb::Fetched::MAX;
