//! The zero page: all that Linux is told before it can ask.

use core::fmt;
use core::mem::offset_of;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Fields, Header, OFFSET};
use super::memory_map::{ENTRIES_MAX, Entry, MemoryMap};
use super::place::Plan;

/// The zero page (zero-page.rst, struct boot_params), as far as it is written here; all else in it
/// is zero.
#[derive(Clone, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ZeroPage {
    before_rsdp: [u8; 0x70],
    rsdp: U64,
    before_entries: [u8; 0x170],
    entries: u8,
    before_header: [u8; 8],
    header: Fields,
    disks: [u8; 0x40],
    map: [Entry; ENTRIES_MAX],
    rest: [u8; 0x330],
}

const _: () = assert!(size_of::<ZeroPage>() == view_core::PAGE_SIZE);
const _: () = assert!(offset_of!(ZeroPage, rsdp) == 0x70);
const _: () = assert!(offset_of!(ZeroPage, entries) == 0x1e8);
const _: () = assert!(offset_of!(ZeroPage, header) == OFFSET);
const _: () = assert!(offset_of!(ZeroPage, map) == 0x2d0);

/// The loader has no number of its own.
const LOADER_UNKNOWN: u8 = 0xff;

impl ZeroPage {
    /// What Linux is told when all is where the plan says. `rsdp` is where ACPI begins, or 0.
    pub fn of(header: &Header, plan: &Plan, rsdp: u64, map: &MemoryMap) -> Self {
        let mut page = Self::new_zeroed();
        page.rsdp = rsdp.into();
        page.entries = map.len() as u8;
        for (to, from) in page.map.iter_mut().zip(map) {
            *to = *from;
        }
        let fields = &mut page.header;
        *fields = header.for_zero_page();
        fields.loader = LOADER_UNKNOWN;
        (fields.loader_version, fields.loader_extended) = (0, 0);
        // Everything that is placed is below 4 GiB.
        let address = |address: u64| U32::new(address as u32);
        fields.code_32_start = address(plan.kernel.address);
        let initrd = plan.initrd;
        fields.ramdisk = initrd.map_or(U32::ZERO, |initrd| address(initrd.address));
        fields.ramdisk_size = initrd.map_or(U32::ZERO, |initrd| address(initrd.size));
        fields.command_line = address(plan.command_line);
        fields.setup_data = U64::ZERO;
        page
    }
}

impl fmt::Debug for ZeroPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ZeroPage(..)")
    }
}
