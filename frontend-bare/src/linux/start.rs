//! All goes to its place, and the state of the CPU that begins there.

use view_core::Page;
use zerocopy::IntoBytes;

use super::place::{Bytes, Machine, NoPlace, Plan};
use super::{Header, PAGE, ZeroPage, memory_map};
use crate::vmcb::{Segment, StateSaveArea, cr0, cr4, efer};

/// How many page tables there are: a root, one below it, and four of 1 GiB each.
pub(super) const TABLES: u64 = 6;

/// Memory by its addresses. All of them are below 4 GiB; nothing is lent.
pub trait Memory {
    /// Copies bytes from one place to another, which do not overlap.
    fn copy(&mut self, from: Bytes, to: u64);
    /// Puts bytes at a place.
    fn write(&mut self, to: u64, bytes: &[u8]);
}

/// How the CPU begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The 64-bit entry.
    pub rip: u64,
    /// The zero page's address.
    pub rsi: u64,
    /// The root of the page tables.
    pub cr3: u64,
    /// The descriptor table's address.
    pub descriptors: u64,
}

/// Where the 64-bit entry is, from where the kernel is (the protocol, "64-bit Boot Protocol").
const ENTRY: u64 = 0x200;

/// Descriptors: two that are none, then code and data of 4 GiB, at the selectors that the protocol
/// wants: 10h and 18h.
const DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

/// The same two as the CPU keeps them, and a task: a CPU without one cannot be (15.5.1).
const CODE: Segment = Segment { selector: 0x10, attributes: 0xa9b, limit: u32::MAX, base: 0 };
const DATA: Segment = Segment { selector: 0x18, attributes: 0xc93, limit: u32::MAX, base: 0 };
const TASK: Segment = Segment { selector: 0, attributes: 0x8b, limit: 0x67, base: 0 };
const NO_LOCAL: Segment = Segment { selector: 0, attributes: 0x82, limit: 0, base: 0 };
const NO_TABLE: Segment = Segment { selector: 0, attributes: 0, limit: 0, base: 0 };

/// What registers are after a reset (the manual, 14.1.3; 7.8.1 for the PAT).
const PAT: u64 = 0x0007_0406_0007_0406;
const DR6: u64 = 0xffff_0ff0;
const DR7: u64 = 0x400;
const RFLAGS: u64 = 2;

/// Of an entry of a page table (the manual, 5.4.1): it is there, may be written, and is a leaf.
const TABLE: u64 = 3;
const LEAF: u64 = 0x83;
const LEAF_SHIFT: usize = 21;
const ENTRIES: usize = 512;

impl Plan {
    /// Puts all to its place. `rsdp` is where ACPI begins, or 0.
    ///
    /// # Errors
    /// [`NoPlace::TooManyRanges`]; nothing was written then.
    pub fn carry_out(
        &self,
        header: &Header,
        machine: &Machine<'_>,
        rsdp: u64,
        memory: &mut impl Memory,
    ) -> Result<Start, NoPlace> {
        let map = memory_map(machine.ranges, &machine.monitor)?;
        let [kernel, initrd, command_line] = self.from;
        memory.copy(kernel, self.kernel.address);
        if let Some(place) = self.initrd.filter(|place| place.address != initrd.address) {
            memory.copy(initrd, place.address);
        }
        memory.copy(command_line, self.command_line);
        memory.write(self.command_line + command_line.size, &[0]);
        for index in 0..TABLES {
            memory.write(self.tables + index * PAGE, self.page_table(index).bytes());
        }
        memory.write(self.descriptors, DESCRIPTORS.as_bytes());
        memory.write(self.zero_page, ZeroPage::of(header, self, rsdp, &map).as_bytes());
        let Self { tables: cr3, descriptors, zero_page: rsi, .. } = *self;
        Ok(Start { rip: self.kernel.address + ENTRY, rsi, cr3, descriptors })
    }

    /// One of the tables that map the first 4 GiB to themselves.
    fn page_table(&self, index: u64) -> Page {
        let entry = |at: usize| match index {
            0 if at == 0 => self.tables + PAGE + TABLE,
            1 if at < 4 => self.tables + (2 + at as u64) * PAGE + TABLE,
            2.. => (((index - 2) as usize * ENTRIES + at) as u64) << LEAF_SHIFT | LEAF,
            _ => 0,
        };
        let mut page = Page::zeroed();
        for (at, bytes) in page.bytes_mut().as_chunks_mut().0.iter_mut().enumerate() {
            *bytes = u64::to_le_bytes(entry(at));
        }
        page
    }
}

impl Start {
    /// Puts the CPU into 64-bit mode before the kernel's first instruction, interrupts off; the
    /// other registers are as after a reset. RSI is not in the control block: the caller sets it.
    pub const fn fill(&self, save: &mut StateSaveArea) {
        (save.cs, save.ss, save.ds, save.es) = (CODE, DATA, DATA, DATA);
        (save.fs, save.gs, save.tr, save.ldtr) = (DATA, DATA, TASK, NO_LOCAL);
        let limit = (size_of_val(&DESCRIPTORS) - 1) as u32;
        save.gdtr = Segment { limit, base: self.descriptors, ..NO_TABLE };
        save.idtr = NO_TABLE;
        save.cpl = 0;
        save.efer = efer::SVME | efer::LME | efer::LMA;
        (save.cr0, save.cr3, save.cr4) = (cr0::PG | cr0::PE | cr0::ET, self.cr3, cr4::PAE);
        (save.dr6, save.dr7, save.rflags) = (DR6, DR7, RFLAGS);
        (save.rip, save.rsp) = (self.rip, self.descriptors + PAGE);
        save.g_pat = PAT;
    }
}
