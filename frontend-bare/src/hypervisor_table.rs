//! The nested tables that a hypervisor made for a guest, as the monitor reads them: proposals of
//! which frame may back which page, in memory that the hypervisor can change at any time.
//!
//! They have the form that [`NestedTable`](crate::table::NestedTable) has, and are as deep as the
//! hypervisor's own paging (the manual, 15.25.3). Each entry is fetched once.

use view_core::{Frame, Gfn};

use crate::memory::{ENTRIES, HostMemory};
use crate::table::Levels;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// A hypervisor's tables for one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypervisorTable {
    /// Their root.
    pub root: Frame,
    /// How deep they are.
    pub levels: Levels,
}

/// What was found for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// The frame.
    pub frame: Frame,
    /// Whether the guest may write there.
    pub writable: bool,
}

impl HypervisorTable {
    /// What the tables say of a page. Marks what it finds as accessed, and as dirty if the page is
    /// to be written and may be, as a CPU does (the manual, 5.4.2): hypervisors rely on it.
    ///
    /// `readable` says which frames the hypervisor may read itself: a table elsewhere is none, or
    /// the monitor would tell it what is there.
    pub fn find<M: HostMemory>(
        &self,
        memory: &mut M,
        readable: impl Fn(&M, Frame) -> bool,
        (page, write): (Gfn, bool),
    ) -> Option<Proposed> {
        let mut level = match self.levels {
            Levels::Four => 4,
            Levels::Five => 5,
        };
        if page.number() >> (9 * level) != 0 {
            return None;
        }
        let (mut table, mut writable) = (self.root, true);
        loop {
            let shift = 9 * (level - 1);
            let index = (page.number() >> shift) as usize % ENTRIES;
            let entry = if readable(memory, table) { memory.entry(table, index) } else { 0 };
            if entry & (PRESENT | USER) != PRESENT | USER {
                return None;
            }
            writable &= entry & WRITABLE != 0;
            let leaf = level == 1 || entry & LARGE != 0;
            if level > 3 && leaf {
                return None;
            }
            let dirty = if leaf && write && writable { DIRTY } else { 0 };
            if entry & (ACCESSED | dirty) != ACCESSED | dirty {
                memory.set_entry(table, index, entry | ACCESSED | dirty);
            }
            let number = (entry & ADDRESS) >> 12;
            if leaf {
                let within = page.number() & !(u64::MAX << shift);
                let first = number & (u64::MAX << shift);
                return Some(Proposed { frame: Frame::new(first | within).ok()?, writable });
            }
            table = Frame::new(number).ok()?;
            level -= 1;
        }
    }
}
