//! How the tables are laid out.

use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Register;

/// The root pointer (ACPI, table 5.3).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Root {
    pub(super) signature: [u8; 8],
    checksum: u8,
    vendor: [u8; 6],
    pub(super) revision: u8,
    pub(super) rsdt: U32,
    /// From here on there is nothing before revision 2.
    pub(super) length: U32,
    pub(super) xsdt: U64,
    extended_checksum: u8,
    reserved: [u8; 3],
}

impl Root {
    /// How many bytes it had at first; they have a checksum of their own.
    pub(super) const FIRST: usize = 20;
}

/// What a table begins with (ACPI, table 5.4).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    pub(super) signature: [u8; 4],
    pub(super) length: U32,
    revision: u8,
    checksum: u8,
    maker: [u8; 26],
}

/// Where the entries of a MADT begin (ACPI, table 5.19).
pub(super) const MADT_ENTRIES: u32 = 44;

/// Flags of a CPU: it is enabled, or it may be (ACPI, table 5.22).
pub(super) const ENABLED_OR_POSSIBLE: u32 = 0b11;

/// A CPU (ACPI, table 5.21).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Cpu {
    kind: u8,
    length: u8,
    number: u8,
    apic: u8,
    pub(super) flags: U32,
}

/// A CPU with a number of 32 bits (ACPI, table 5.34).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct X2Cpu {
    kind: u8,
    length: u8,
    reserved: [u8; 2],
    apic: U32,
    pub(super) flags: U32,
    number: U32,
}

/// Where a register is (ACPI, table 5.1).
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Address {
    space: u8,
    bit_width: u8,
    bit_offset: u8,
    access: u8,
    address: U64,
}

const MEMORY: u8 = 0;
const PORTS: u8 = 1;

impl Address {
    /// At a port.
    pub(super) fn port(port: u32) -> Self {
        let address = u64::from(port).into();
        Self { space: PORTS, bit_width: 0, bit_offset: 0, access: 0, address }
    }

    /// Where it is; `None` if there is none.
    pub(super) fn register(self) -> Option<Register> {
        match (self.space, self.address.get()) {
            (_, 0) => None,
            (MEMORY, address) => Some(Register::Memory(address)),
            (PORTS, port) => {
                // There are no ports beyond.
                let port = u16::try_from(port).map(Register::Port);
                Some(port.unwrap_or(Register::Elsewhere(PORTS)))
            }
            (space, _) => Some(Register::Elsewhere(space)),
        }
    }
}

/// Flag of a FADT: the reset register is there (ACPI, table 5.10).
pub(super) const RESET_SUPPORTED: u32 = 1 << 10;

/// Fixed registers (ACPI, table 5.9). What a shorter, older one has not is zero.
#[derive(Clone, Copy, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Fadt {
    header: Header,
    before_control: [u8; 28],
    pub(super) pm1a_control: U32,
    pub(super) pm1b_control: U32,
    before_flags: [u8; 40],
    pub(super) flags: U32,
    pub(super) reset: Address,
    pub(super) reset_value: u8,
    before_x_control: [u8; 43],
    pub(super) x_pm1a_control: Address,
    pub(super) x_pm1b_control: Address,
    before_sleep: [u8; 48],
    pub(super) sleep_control: Address,
}

impl Fadt {
    /// How many bytes it had at first: up to its flags.
    pub(super) const FIRST: usize = offset_of!(Self, reset);
}

const _: () = assert!(size_of::<Root>() == 36);
const _: () = assert!(offset_of!(Root, length) == Root::FIRST);
const _: () = assert!(size_of::<Header>() == 36);
const _: () = assert!(size_of::<Cpu>() == 8);
const _: () = assert!(size_of::<X2Cpu>() == 16);
const _: () = assert!(size_of::<Address>() == 12);
const _: () = assert!(offset_of!(Fadt, pm1a_control) == 64);
const _: () = assert!(offset_of!(Fadt, flags) == 112);
const _: () = assert!(offset_of!(Fadt, reset) == 116);
const _: () = assert!(offset_of!(Fadt, reset_value) == 128);
const _: () = assert!(offset_of!(Fadt, x_pm1a_control) == 172);
const _: () = assert!(offset_of!(Fadt, sleep_control) == 244);
