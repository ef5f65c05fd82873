//! A guest in long mode: its registers as a control block has them, and its memory by words.

use std::collections::BTreeMap;

use frontend_bare::guest_walk::GuestMemory;
use frontend_bare::vmcb::{Segment, StateSaveArea, Vmcb, cr0, cr4, efer};

pub(crate) const ADDRESS_BITS: u32 = 40;
pub(crate) const PRESENT: u64 = 1;
pub(crate) const LARGE: u64 = 1 << 7;

/// A guest in 64-bit mode with tables of so many levels.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) save: StateSaveArea,
    pub(crate) words: BTreeMap<u64, u64>,
    levels: u32,
    next_table: u64,
}

impl Guest {
    pub(crate) fn new(levels: u32) -> Self {
        let mut guest = Self {
            save: Vmcb::zeroed().save.clone(),
            words: BTreeMap::new(),
            levels,
            next_table: 0x2000,
        };
        guest.enter_long_mode();
        guest
    }

    /// Sets what long mode takes, and leaves other bits as they are.
    pub(crate) fn enter_long_mode(&mut self) {
        let save = &mut self.save;
        save.cr0 |= cr0::PG | cr0::PE;
        save.cr4 = save.cr4 & !cr4::LA57 | cr4::PAE;
        save.cr4 |= if self.levels == 5 { cr4::LA57 } else { 0 };
        save.efer |= efer::LME | efer::LMA | efer::NXE | efer::SVME;
        save.cs = Segment { attributes: 0xa9b, base: 0x5000, ..save.cs };
        save.cr3 = 0x1018; // with bits that are no address
    }

    /// Maps a page; the bits are of its entry. Returns where that is.
    pub(crate) fn map(&mut self, linear: u64, physical: u64, leaf: u32, bits: u64) -> u64 {
        let mut table = self.save.cr3 & !0xfff;
        for level in (0..self.levels).rev() {
            let at = table + (linear >> (12 + 9 * level) & 0x1ff) * 8;
            if level == leaf {
                self.words.insert(at, physical | bits | if leaf > 0 { LARGE } else { 0 });
                return at;
            }
            let next_table = self.next_table;
            table = *self.words.entry(at).or_insert(next_table | PRESENT) & 0xf_ffff_ffff_f000;
            if table == next_table {
                self.next_table += 0x1000;
            }
        }
        unreachable!("a leaf has a level")
    }

    /// What it has of its memory; nothing elsewhere.
    pub(crate) fn memory(&self) -> GuestMemory<impl FnMut(u64) -> Option<u64>> {
        let read = |at| self.words.get(&at).copied();
        GuestMemory { address_bits: ADDRESS_BITS, read }
    }

    /// Puts bytes into memory, by physical address.
    pub(crate) fn put(&mut self, physical: u64, bytes: impl IntoIterator<Item = u8>) {
        for (at, byte) in (physical..).zip(bytes) {
            let word = self.words.entry(at & !7).or_insert(0);
            *word |= u64::from(byte) << (at % 8 * 8);
        }
    }
}

/// An address as the CPU takes it with tables of so many levels.
pub(crate) fn canonical(address: u64, levels: u32) -> u64 {
    let unused = 64 - (12 + 9 * levels);
    ((address << unused) as i64 >> unused) as u64
}
