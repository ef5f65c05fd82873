//! Nested page tables: what a guest, or the hypervisor itself, reaches of the host's frames.
//!
//! They have the form of long mode's tables, in four levels or five (AMD64 Architecture
//! Programmer's Manual, volume 2, sections 5.3 and 15.25). Tables come from a [`Pool`] and go back
//! to it; large pages are split where a single page of them has to change. A CPU may go on with
//! what it remembers of an entry that was taken away until it is made to forget: that duty is the
//! [platform](crate::platform)'s.

use view_core::{Frame, Gfn, Perm};

use crate::memory::{ENTRIES, HostMemory};
use crate::pool::{Pool, PoolEmpty};

/// How many bits of a page's number one level takes.
const LEVEL_BITS: u32 = ENTRIES.trailing_zeros();

/// How deep a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Levels {
    /// 48 bits of addresses.
    Four,
    /// 57 bits of addresses, more than there are numbers of pages.
    Five,
}

/// Why a page cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// A table is missing, and no frame is left for it.
    PoolEmpty,
    /// The page's number has more bits than the table has levels for.
    OutOfReach(Gfn),
    /// Some of the pages of a large one are mapped one by one.
    Divided,
}

impl From<PoolEmpty> for MapError {
    fn from(_: PoolEmpty) -> Self {
        Self::PoolEmpty
    }
}

/// One entry: of a table, or of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const ABSENT: Self = Self(0);
    const PRESENT: u64 = 1;
    const WRITABLE: u64 = 1 << 1;
    /// Walks of nested tables are walks of a user.
    const USER: u64 = 1 << 2;
    const LARGE: u64 = 1 << 7;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    const fn of_table(table: Frame) -> Self {
        Self(table.number() << 12 | Self::PRESENT | Self::WRITABLE | Self::USER)
    }

    const fn of_page(frame: Frame, perm: Perm, level: u32) -> Self {
        let writable = if matches!(perm, Perm::ReadWrite) { Self::WRITABLE } else { 0 };
        let large = if level > 1 { Self::LARGE } else { 0 };
        Self(frame.number() << 12 | writable | large | Self::PRESENT | Self::USER)
    }

    const fn is_present(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    const fn is_large(self) -> bool {
        self.0 & Self::LARGE != 0
    }

    const fn is_writable(self) -> bool {
        self.0 & Self::WRITABLE != 0
    }

    /// The frame of the table or of the page; of the first page if it is large.
    fn frame(self) -> Frame {
        Frame::new((self.0 & Self::ADDRESS) >> 12).unwrap_or(Frame::MAX)
    }

    /// The entry for one of the parts of a large page, a level below.
    const fn part(self, index: usize, level: u32) -> Self {
        let large = if level > 1 { Self::LARGE } else { 0 };
        let pages = (index as u64) << (LEVEL_BITS * (level - 1));
        Self((self.0 & !Self::LARGE | large) + (pages << 12))
    }
}

/// Where a walk ends: at a page, or where there is none.
#[derive(Clone, Copy, Debug)]
struct End {
    table: Frame,
    index: usize,
    level: u32,
    entry: Entry,
    /// Whether every table on the way lets writes through.
    writable: bool,
}

/// A set of tables, by its root.
#[derive(Debug)]
pub struct NestedTable {
    root: Frame,
    levels: u32,
}

impl NestedTable {
    /// A table that maps nothing.
    ///
    /// # Errors
    /// [`PoolEmpty`].
    pub fn new<const N: usize>(
        memory: &mut impl HostMemory,
        pool: &mut Pool<N>,
        levels: Levels,
    ) -> Result<Self, PoolEmpty> {
        let levels = match levels {
            Levels::Four => 4,
            Levels::Five => 5,
        };
        Ok(Self { root: empty_table(memory, pool)?, levels })
    }

    /// The frame of the root, for the CPU.
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// What a CPU that remembers nothing finds for a page.
    pub fn find(&self, memory: &impl HostMemory, page: Gfn) -> Option<(Frame, Perm)> {
        let end = self.walk(memory, page)?;
        let within = page.number() & !(u64::MAX << (LEVEL_BITS * (end.level - 1)));
        let frame = Frame::new(end.entry.frame().number() | within).ok()?;
        let writable = end.writable && end.entry.is_writable();
        let perm = if writable { Perm::ReadWrite } else { Perm::Read };
        end.entry.is_present().then_some((frame, perm))
    }

    /// Maps a page; what it was mapped to before is forgotten.
    ///
    /// # Errors
    /// [`MapError`]; the page is then mapped as before.
    pub fn map<const N: usize>(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut Pool<N>,
        (page, frame, perm): (Gfn, Frame, Perm),
    ) -> Result<(), MapError> {
        self.map_at(memory, pool, (page, frame, perm), 1)
    }

    /// Maps the 512 pages around a page to the 512 frames around a frame, both aligned.
    ///
    /// # Errors
    /// [`MapError`]; the pages are then mapped as before.
    pub fn map_large<const N: usize>(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut Pool<N>,
        (page, frame, perm): (Gfn, Frame, Perm),
    ) -> Result<(), MapError> {
        let first = frame.number() & !(ENTRIES as u64 - 1);
        let first = Frame::new(first).unwrap_or(frame);
        self.map_at(memory, pool, (page, first, perm), 2)
    }

    fn map_at<const N: usize>(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut Pool<N>,
        (page, frame, perm): (Gfn, Frame, Perm),
        level: u32,
    ) -> Result<(), MapError> {
        loop {
            let end = self.walk(memory, page).ok_or(MapError::OutOfReach(page))?;
            if end.level == level {
                let entry = Entry::of_page(frame, perm, level);
                memory.set_entry(end.table, end.index, entry.0);
                return Ok(());
            }
            if end.level < level {
                return Err(MapError::Divided);
            }
            self.descend(memory, pool, &end)?;
        }
    }

    /// Takes a page away. Where it is a part of a large one and no frame is left to split that, all
    /// of the large one goes: whoever had more of it asks again.
    pub fn unmap<const N: usize>(
        &mut self,
        memory: &mut impl HostMemory,
        pool: &mut Pool<N>,
        page: Gfn,
    ) {
        while let Some(end) = self.walk(memory, page).filter(|end| end.entry.is_present()) {
            if end.level == 1 || self.descend(memory, pool, &end).is_err() {
                memory.set_entry(end.table, end.index, Entry::ABSENT.0);
                return;
            }
        }
    }

    /// Takes everything away and gives every table but the root back. A CPU may still remember
    /// those: who calls makes all CPUs forget before anything is taken from the pool again.
    pub fn clear<const N: usize>(&mut self, memory: &mut impl HostMemory, pool: &mut Pool<N>) {
        clear(memory, pool, self.root, self.levels);
    }

    /// Gives every table back, the root as well. What [`clear`](Self::clear) says of CPUs holds.
    pub fn give_back<const N: usize>(mut self, memory: &mut impl HostMemory, pool: &mut Pool<N>) {
        self.clear(memory, pool);
        pool.give_back(self.root);
    }

    /// Puts a table below an entry that has none: an empty one, or one that says the same.
    fn descend<const N: usize>(
        &self,
        memory: &mut impl HostMemory,
        pool: &mut Pool<N>,
        end: &End,
    ) -> Result<(), PoolEmpty> {
        let table = empty_table(memory, pool)?;
        if end.entry.is_present() {
            for index in 0..ENTRIES {
                memory.set_entry(table, index, end.entry.part(index, end.level - 1).0);
            }
        }
        memory.set_entry(end.table, end.index, Entry::of_table(table).0);
        Ok(())
    }

    /// Walks as far as there are tables; `None` for a page beyond the root's reach.
    fn walk(&self, memory: &impl HostMemory, page: Gfn) -> Option<End> {
        let reaches = page.number() >> (LEVEL_BITS * self.levels) == 0;
        let (mut table, mut writable) = (self.root, true);
        let mut level = self.levels;
        loop {
            let index = (page.number() >> (LEVEL_BITS * (level - 1))) as usize % ENTRIES;
            let entry = Entry(memory.entry(table, index));
            if level == 1 || !entry.is_present() || entry.is_large() {
                return reaches.then_some(End { table, index, level, entry, writable });
            }
            (table, writable) = (entry.frame(), writable && entry.is_writable());
            level -= 1;
        }
    }
}

fn empty_table<const N: usize>(
    memory: &mut impl HostMemory,
    pool: &mut Pool<N>,
) -> Result<Frame, PoolEmpty> {
    let table = pool.take()?;
    memory.wipe(table);
    Ok(table)
}

/// Empties a table, and gives those below it back.
fn clear<const N: usize>(
    memory: &mut impl HostMemory,
    pool: &mut Pool<N>,
    table: Frame,
    level: u32,
) {
    for index in 0..ENTRIES {
        let entry = Entry(memory.entry(table, index));
        if level > 1 && entry.is_present() && !entry.is_large() {
            clear(memory, pool, entry.frame(), level - 1);
            pool.give_back(entry.frame());
        }
        memory.set_entry(table, index, Entry::ABSENT.0);
    }
}
