//! spec/register-masks.md in bits: what the words of its cells mean, by the names that instructions
//! give to registers.

use view_core::registers::{Exit, Gprs, Operand, Part, PortSize, Registers};

/// The general registers by number: 32, 16 and 8 bits of the first eight have names of their own.
const SHORT: [[&str; 4]; 8] = [
    ["eax", "ax", "al", "ah"],
    ["ecx", "cx", "cl", "ch"],
    ["edx", "dx", "dl", "dh"],
    ["ebx", "bx", "bl", "bh"],
    ["esp", "sp", "spl", ""],
    ["ebp", "bp", "bpl", ""],
    ["esi", "si", "sil", ""],
    ["edi", "di", "dil", ""],
];
const BITS: [u64; 4] = [0xffff_ffff, 0xffff, 0xff, 0xff00];
const PARTS: [Part; 4] = [Part::Half, Part::Word, Part::LowByte, Part::HighByte];

/// An exit as a row of the table has it: with the operand and the address registers of one
/// instruction, if it has any.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// The exit.
    pub exit: Exit,
    /// Its row in the table.
    pub row: &'static str,
    operand: &'static str,
    address: &'static [&'static str],
}

/// Every exit; those of devices with operands of every size and addresses of none to two registers.
pub fn stops() -> Vec<Stop> {
    let plain = |(row, exit)| Stop { exit, row, operand: "", address: &[] };
    let fixed = [
        ("cpuid", Exit::Cpuid),
        ("rdmsr", Exit::ReadMsr),
        ("wrmsr", Exit::WriteMsr),
        ("in, 1 byte", Exit::PortIn(PortSize::Byte)),
        ("in, 2 bytes", Exit::PortIn(PortSize::Word)),
        ("in, 4 bytes", Exit::PortIn(PortSize::Double)),
        ("out, 1 byte", Exit::PortOut(PortSize::Byte)),
        ("out, 2 bytes", Exit::PortOut(PortSize::Word)),
        ("out, 4 bytes", Exit::PortOut(PortSize::Double)),
        ("hlt", Exit::Halt),
        ("interrupt", Exit::Interrupt),
        ("page fault", Exit::PageFault),
        ("vmmcall", Exit::Hypercall),
        ("shutdown", Exit::Shutdown),
    ];
    let addresses: [(&[&str], u16); 3] = [(&[], 0), (&["rsi"], 1 << 6), (&["rbx", "r9"], 0x208)];
    let mut all: Vec<Stop> = fixed.into_iter().map(plain).collect();
    for (operand, named) in operands() {
        for (address, numbers) in addresses {
            let (into, numbers) = (named, Gprs(numbers));
            let load = into.map(|into| Exit::MmioRead { into, address: numbers });
            let store = Exit::MmioWrite { from: named, address: numbers };
            let row = |row, exit| Stop { exit, row, operand, address };
            all.extend(load.map(|load| row("load from a device", load)));
            all.push(row("store to a device", store));
        }
    }
    all
}

/// Names of operands, and what the core calls them; first that of an instruction that has none.
fn operands() -> Vec<(&'static str, Option<Operand>)> {
    let mut all = vec![("", None)];
    for number in 0..16_u8 {
        let index = usize::from(number);
        all.push((Registers::NAMES[index], Operand::new(number, Part::Whole)));
        let short = SHORT.get(index).into_iter().flatten().zip(PARTS);
        let short = short.filter(|(name, _)| !name.is_empty());
        all.extend(short.map(|(name, part)| (*name, Operand::new(number, part))));
    }
    all
}

impl Stop {
    /// What shows, or may be changed, as cell 1 or 2 of its row says.
    pub fn cell(&self, cell: usize) -> Registers {
        let mut rows = spec::rows(spec::REGISTER_MASKS);
        let row = rows.find(|row| row[0] == self.row).expect("a row for each exit");
        let mut mask = Registers::ZERO;
        for word in row[cell].split(' ') {
            match word {
                "nothing" => {}
                "address" => self.address.iter().for_each(|name| set(&mut mask, name)),
                "operand" if self.operand.is_empty() => {}
                "operand" => set(&mut mask, self.operand),
                name => set(&mut mask, name),
            }
        }
        mask
    }
}

/// Sets the bits that a word of the table stands for.
fn set(mask: &mut Registers, word: &str) {
    match word {
        "if" => mask.rflags |= 0x200,
        "mode" => {
            mask.rflags |= 0x2_0000;
            (mask.cr0, mask.efer, mask.cs, mask.cpl) = (1, 0x400, 0x600_0000, 3);
        }
        name => {
            let whole = Registers::NAMES.iter().position(|whole| *whole == name);
            let short = SHORT.iter().zip(0..).find_map(|(names, number)| {
                let which = names.iter().position(|short| *short == name)?;
                Some((number, BITS[which]))
            });
            let named = whole.map(|number| (number, u64::MAX)).or(short);
            let (number, bits) = named.unwrap_or_else(|| panic!("{name} is no register"));
            mask.words_mut()[number] |= bits;
        }
    }
}
