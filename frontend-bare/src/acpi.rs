//! What the firmware's tables say that the monitor has to know: how many CPUs there are, how the
//! machine is switched off, and whether devices are held to tables of their own.
//!
//! Source: ACPI 6.5, sections 5.2.5 to 5.2.12 ("ACPI" in this module). Firmware is trusted as the
//! loader is. All the same every length is bounded, and every table that something is taken from
//! has the right checksum: what does not add up ends in an error, and the monitor does not begin.

use core::fmt;

use heapless::Vec;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

mod layout;

use layout::{Address, Cpu, Fadt, Header, Root, X2Cpu};

/// What the tables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// How many CPUs there are, or may be later on: all that the MADT has as enabled or as
    /// possible.
    pub cpus: u32,
    /// The control registers of PM1a and PM1b, of two bytes: by bit 13 sleep states are entered, S5
    /// among them, which is off (ACPI, 4.8.3.2.1).
    pub pm1: Vec<Register, PM1_MAX>,
    /// The same in one byte, by bit 5, on machines without fixed hardware (ACPI, 4.8.3.7).
    pub sleep_control: Option<Register>,
    /// How the machine is reset, if it says so.
    pub reset: Option<Reset>,
    /// Whether there is a unit that translates what devices access (tables DMAR or IVRS).
    pub iommu: bool,
}

/// Each may be given in two ways.
const PM1_MAX: usize = 4;

/// Where a register is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// At a port.
    Port(u16),
    /// At an address of memory.
    Memory(u64),
    /// In another space, by its number (ACPI, 5.2.3.2).
    Elsewhere(u8),
}

/// How the machine is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Where.
    pub register: Register,
    /// What has to be written there.
    pub value: u8,
}

/// Why the tables say nothing that could be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// There is nothing at an address.
    Unreadable(u64),
    /// A table is not what it should be; this is what it should be.
    Signature(Table),
    /// The sum of a table's bytes is not zero.
    Checksum(Table),
    /// A table is shorter than its fields or longer than anybody's, with this length.
    Length(Table, u32),
    /// An entry of the MADT is too short, or longer than the table; it begins at this offset.
    Entry(u32),
    /// There are more tables than anybody has.
    TooMany(u32),
    /// A table is missing.
    Missing(Table),
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The root pointer.
    Rsdp,
    /// The list of tables with addresses of 32 bits.
    Rsdt,
    /// The same with 64 bits.
    Xsdt,
    /// CPUs and interrupts.
    Madt,
    /// Fixed registers.
    Fadt,
}

impl Table {
    const fn signature(self) -> &'static [u8] {
        match self {
            Self::Rsdp => b"RSD PTR ",
            Self::Rsdt => b"RSDT",
            Self::Xsdt => b"XSDT",
            Self::Madt => b"APIC",
            Self::Fadt => b"FACP",
        }
    }
}

/// No table that is read here is longer: that of the CPUs has room for 65536 of them.
const LENGTH_MAX: u32 = 1 << 20;

/// More tables than any firmware was seen to have.
const TABLES_MAX: u32 = 256;

/// Reads what the tables say. `rsdp` is where the loader says that they begin; `read` copies bytes
/// of memory out, and says whether there are any.
///
/// # Errors
/// [`AcpiError`].
pub fn survey(rsdp: u64, read: impl FnMut(u64, &mut [u8]) -> bool) -> Result<Survey, AcpiError> {
    let mut memory = Memory(read);
    let (list, list_length, width) = memory.list(rsdp)?;
    let tables = (list_length - size_of::<Header>() as u32) / width;
    if tables > TABLES_MAX {
        return Err(AcpiError::TooMany(tables));
    }
    let (mut survey, mut has_madt, mut has_fadt) = (Survey::default(), false, false);
    for index in 0..tables {
        let mut address = [0; 8];
        let at = offset(list, size_of::<Header>() as u32 + index * width);
        memory.copy(at, &mut address[..width as usize])?;
        let address = u64::from_le_bytes(address);
        // Firmware leaves holes in its lists.
        if address == 0 {
            continue;
        }
        let header: Header = memory.typed(address)?;
        match &header.signature {
            b"APIC" => {
                survey.cpus = survey.cpus.saturating_add(memory.cpus(address)?);
                has_madt = true;
            }
            b"FACP" => {
                memory.fixed(address, &mut survey)?;
                has_fadt = true;
            }
            b"DMAR" | b"IVRS" => survey.iommu = true,
            _ => (),
        }
    }
    match (has_madt, has_fadt) {
        (false, _) => Err(AcpiError::Missing(Table::Madt)),
        (true, false) => Err(AcpiError::Missing(Table::Fadt)),
        (true, true) => Ok(survey),
    }
}

/// An address behind another; past the last one, where nothing is.
const fn offset(address: u64, bytes: u32) -> u64 {
    address.saturating_add(bytes as u64)
}

/// The firmware's memory.
struct Memory<F>(F);

impl<F: FnMut(u64, &mut [u8]) -> bool> Memory<F> {
    fn copy(&mut self, address: u64, to: &mut [u8]) -> Result<(), AcpiError> {
        let there = (self.0)(address, to);
        if there { Ok(()) } else { Err(AcpiError::Unreadable(address)) }
    }

    fn typed<T: FromBytes + IntoBytes>(&mut self, address: u64) -> Result<T, AcpiError> {
        let mut value = T::new_zeroed();
        self.copy(address, value.as_mut_bytes())?;
        Ok(value)
    }

    /// Whether so many bytes have the sum zero.
    fn sums_up(&mut self, table: Table, address: u64, length: u32) -> Result<(), AcpiError> {
        let (mut sum, mut piece) = (0_u8, [0; 64]);
        for start in (0..length).step_by(piece.len()) {
            let size = piece.len().min((length - start) as usize);
            let bytes = &mut piece[..size];
            self.copy(offset(address, start), bytes)?;
            sum = bytes.iter().fold(sum, |sum, byte| sum.wrapping_add(*byte));
        }
        if sum == 0 { Ok(()) } else { Err(AcpiError::Checksum(table)) }
    }

    /// Checks a table that begins with a header; its length.
    fn checked(&mut self, table: Table, address: u64, least: usize) -> Result<u32, AcpiError> {
        let header: Header = self.typed(address)?;
        if header.signature != table.signature() {
            return Err(AcpiError::Signature(table));
        }
        let length = header.length.get();
        if (length as usize) < least || length > LENGTH_MAX {
            return Err(AcpiError::Length(table, length));
        }
        self.sums_up(table, address, length)?;
        Ok(length)
    }

    /// The list of tables: where it is, how long, and how many bytes an address in it has (ACPI,
    /// 5.2.5.3, 5.2.7 and 5.2.8).
    fn list(&mut self, rsdp: u64) -> Result<(u64, u32, u32), AcpiError> {
        let mut root = Root::new_zeroed();
        self.copy(rsdp, &mut root.as_mut_bytes()[..Root::FIRST])?;
        if root.signature != Table::Rsdp.signature() {
            return Err(AcpiError::Signature(Table::Rsdp));
        }
        self.sums_up(Table::Rsdp, rsdp, Root::FIRST as u32)?;
        if root.revision >= 2 {
            root = self.typed(rsdp)?;
            let length = root.length.get();
            if (length as usize) < size_of::<Root>() || length > LENGTH_MAX {
                return Err(AcpiError::Length(Table::Rsdp, length));
            }
            self.sums_up(Table::Rsdp, rsdp, length)?;
        }
        let (table, address, width) = match root.xsdt.get() {
            0 => (Table::Rsdt, u64::from(root.rsdt.get()), 4),
            xsdt => (Table::Xsdt, xsdt, 8),
        };
        let length = self.checked(table, address, size_of::<Header>())?;
        Ok((address, length, width))
    }

    /// How many CPUs a MADT has that are enabled or that may be (ACPI, 5.2.12.2 and 5.2.12.12).
    fn cpus(&mut self, madt: u64) -> Result<u32, AcpiError> {
        let length = self.checked(Table::Madt, madt, layout::MADT_ENTRIES as usize)?;
        let (mut at, mut cpus) = (layout::MADT_ENTRIES, 0);
        while at < length {
            let [kind, size]: [u8; 2] = self.typed(offset(madt, at))?;
            let size = u32::from(size);
            let flags = match kind {
                _ if size < 2 || size > length - at => return Err(AcpiError::Entry(at)),
                0 if (size as usize) < size_of::<Cpu>() => return Err(AcpiError::Entry(at)),
                9 if (size as usize) < size_of::<X2Cpu>() => return Err(AcpiError::Entry(at)),
                0 => self.typed::<Cpu>(offset(madt, at))?.flags.get(),
                9 => self.typed::<X2Cpu>(offset(madt, at))?.flags.get(),
                _ => 0,
            };
            cpus += u32::from(flags & layout::ENABLED_OR_POSSIBLE != 0);
            at += size;
        }
        Ok(cpus)
    }

    /// Takes what a FADT says of power (ACPI, 5.2.9). Where it gives a register twice, in 32 bits
    /// and with its space, both are taken: whoever writes to it may believe either.
    fn fixed(&mut self, address: u64, survey: &mut Survey) -> Result<(), AcpiError> {
        let length = self.checked(Table::Fadt, address, Fadt::FIRST)?;
        let mut fadt = Fadt::new_zeroed();
        let known = size_of::<Fadt>().min(length as usize);
        self.copy(address, &mut fadt.as_mut_bytes()[..known])?;
        let port = |port: u32| Address::port(port).register();
        let pm1 = [
            port(fadt.pm1a_control.get()),
            port(fadt.pm1b_control.get()),
            fadt.x_pm1a_control.register(),
            fadt.x_pm1b_control.register(),
        ];
        survey.pm1.clear();
        for register in pm1.into_iter().flatten() {
            if !survey.pm1.contains(&register) {
                survey.pm1.push(register).map_err(|_| AcpiError::TooMany(PM1_MAX as u32))?;
            }
        }
        survey.sleep_control = fadt.sleep_control.register();
        if fadt.flags.get() & layout::RESET_SUPPORTED != 0 {
            let reset = fadt.reset.register();
            survey.reset = reset.map(|register| Reset { register, value: fadt.reset_value });
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsdp => "RSDP",
            Self::Rsdt => "RSDT",
            Self::Xsdt => "XSDT",
            Self::Madt => "MADT",
            Self::Fadt => "FADT",
        })
    }
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(address) => write!(f, "no table at {address:#x}"),
            Self::Signature(table) => write!(f, "no {table} where one should be"),
            Self::Checksum(table) => write!(f, "{table} with a wrong checksum"),
            Self::Length(table, length) => write!(f, "{table} of {length} bytes"),
            Self::Entry(at) => write!(f, "MADT with a wrong entry at {at}"),
            Self::TooMany(tables) => write!(f, "{tables} tables"),
            Self::Missing(table) => write!(f, "no {table}"),
        }
    }
}
