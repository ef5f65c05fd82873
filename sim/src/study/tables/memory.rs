//! Memory, tables in it, and how hardware walks them.
//!
//! Everybody translates twice: by tables of their own, in their own memory, and by nested tables
//! that only the trusted side writes. Each access to an own table is itself translated by the
//! nested ones, and is a write there, since hardware marks entries as accessed (Intel SDM, volume
//! 3, "Accessed and Dirty Flags for EPT"). Both kinds have two levels of four entries.

use super::Flaw;
use super::entry::{ACCESSED, ENTRIES, LARGE, PRESENT, WRITE, Word, entry, target};

/// Who looks at memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Viewer {
    /// Whoever manages the host.
    Management,
    /// A guest.
    Vm(u8),
}

/// How many frames there are. The first seven back pages, or are management's until then: four in
/// a row under one large leaf, and the other three.
pub(super) const PLACES: usize = 18;
/// Where replicas go.
pub(super) const REPLICA: u8 = 7;
/// Where management keeps a table of its own.
pub(super) const MANAGERS_TABLE: u8 = 8;
/// Nested tables of management, of the first guest and of the second: a root, then its tables.
/// Nobody has them in a nested table.
const NESTED: [u8; 3] = [9, 13, 15];
/// How many addresses nested tables can translate.
const ADDRESSES: u8 = 16;

impl Viewer {
    /// Where its nested tables begin.
    pub(super) fn root(self) -> u8 {
        match self {
            Self::Management => NESTED[0],
            Self::Vm(number) => NESTED[1 + usize::from(number)],
        }
    }

    /// Where the table of its own is, in its own addresses.
    pub(super) const fn own_table(self) -> u8 {
        match self {
            Self::Management => MANAGERS_TABLE,
            Self::Vm(_) => 0,
        }
    }
}

/// A translation through both kinds of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaf {
    virt: u8,
    /// What the nested tables were asked for.
    pub(super) address: u8,
    /// What was found.
    pub(super) frame: u8,
    write: bool,
}

/// What some CPU remembers: one translation, and one entry of a nested root, which leads to a table
/// or is a large leaf. One viewer's at a time: every claim is about one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tlb {
    viewer: Option<Viewer>,
    leaf: Option<Leaf>,
    upper: Option<(u8, Word)>,
}

impl Tlb {
    /// What a flush leaves that spares some entries of roots.
    pub(super) fn keeping(self, spared: impl Fn(Word) -> bool) -> Self {
        Self { leaf: None, upper: self.upper.filter(|(_, upper)| spared(*upper)), ..self }
    }
}

/// Frames as words, and what a CPU remembers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Memory {
    /// Every frame.
    pub(super) words: [[Word; ENTRIES]; PLACES],
    /// What a CPU remembers.
    pub(super) tlb: Tlb,
}

/// What a nested table says of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which frame.
    pub(super) frame: u8,
    /// Whether it may be written.
    pub(super) write: bool,
}

/// One access: who, where, and what hardware did on the way.
#[derive(Debug)]
pub(super) struct Walk {
    /// Who.
    pub(super) viewer: Viewer,
    /// What is wrong with the hardware.
    pub(super) flaw: Option<Flaw>,
    /// The frames that it read tables from, a bit each.
    pub(super) touched: u32,
    /// The frames in which it marked an entry.
    pub(super) marked: u32,
    /// Whether what was found was remembered and is in no table any more.
    pub(super) stale: bool,
}

impl Walk {
    /// An access of this viewer.
    pub(super) const fn of(viewer: Viewer, flaw: Option<Flaw>) -> Self {
        Self { viewer, flaw, touched: 0, marked: 0, stale: false }
    }
}

impl Memory {
    /// What a CPU remembers for a viewer.
    fn tlb(&mut self, viewer: Viewer) -> &mut Tlb {
        if self.tlb.viewer != Some(viewer) {
            self.tlb = Tlb { viewer: Some(viewer), ..Tlb::default() };
        }
        &mut self.tlb
    }

    /// Who changed an own entry flushes what a CPU remembers of it; what it leads to now stays,
    /// however old it is.
    pub(super) fn forget_other(&mut self, viewer: Viewer, address: u8) {
        let tlb = self.tlb(viewer);
        tlb.leaf = tlb.leaf.filter(|leaf| leaf.address == address);
    }

    fn remembered(&self, viewer: Viewer) -> Tlb {
        if self.tlb.viewer == Some(viewer) { self.tlb } else { Tlb::default() }
    }

    /// The word of a frame, as a table.
    pub(super) fn word(&self, frame: u8, index: u8) -> Word {
        self.words[usize::from(frame)][usize::from(index)]
    }

    /// Writes a word of a frame.
    pub(super) fn set(&mut self, frame: u8, index: u8, word: Word) {
        self.words[usize::from(frame)][usize::from(index)] = word;
    }

    /// Translates by an entry of a nested root, and by what it leads to.
    fn below(&self, upper: Word, address: u8) -> Option<Place> {
        if upper & PRESENT == 0 {
            return None;
        }
        let write = upper & WRITE != 0;
        if upper & LARGE != 0 {
            return Some(Place { frame: target(upper) + index(address), write });
        }
        let leaf = self.word(target(upper), index(address));
        let place = Place { frame: target(leaf), write: write && leaf & WRITE != 0 };
        (leaf & PRESENT != 0).then_some(place)
    }

    /// What nested tables say now, whatever is remembered.
    pub(super) fn nested(&self, viewer: Viewer, address: u8) -> Option<Place> {
        self.below(self.word(viewer.root(), region(address)), address)
    }

    /// The entry of a nested root by which a CPU translates, remembered or not.
    fn upper(&self, viewer: Viewer, address: u8) -> Word {
        match self.remembered(viewer).upper {
            Some((of, upper)) if of == region(address) => upper,
            Some(_) | None => self.word(viewer.root(), region(address)),
        }
    }

    /// Finds a virtual address as hardware does, marks the entries on the way as accessed, and
    /// remembers what was found.
    pub(super) fn find(&mut self, walk: &mut Walk, virt: u8, write: bool) -> Option<u8> {
        let viewer = walk.viewer;
        let remembered = self.tlb(viewer).leaf.filter(|leaf| leaf.virt == virt);
        let leaf = match remembered {
            Some(leaf) => leaf,
            None => self.walk(walk, virt)?,
        };
        let now = self.nested(viewer, leaf.address).map(|place| place.frame);
        walk.stale = now != Some(leaf.frame);
        self.tlb(viewer).leaf = Some(leaf);
        (leaf.write || !write).then_some(leaf.frame)
    }

    fn walk(&mut self, walk: &mut Walk, virt: u8) -> Option<Leaf> {
        let (mut address, mut write) = (walk.viewer.own_table(), true);
        for index in [region(virt), index(virt)] {
            let table = self.table(walk, address)?;
            let word = self.word(table, index);
            if word & PRESENT == 0 {
                return None;
            }
            self.set(table, index, word | ACCESSED);
            walk.marked |= 1 << table;
            write = if walk.flaw == Some(Flaw::LastLevel) { true } else { write };
            write &= word & WRITE != 0;
            address = target(word);
        }
        // Of the roots' entries that were used, the one for what is looked at stays.
        let upper = self.upper(walk.viewer, address);
        if upper & PRESENT != 0 {
            self.tlb(walk.viewer).upper = Some((region(address), upper));
        }
        let found = self.below(upper, address)?;
        write &= found.write || walk.flaw == Some(Flaw::LastLevel);
        Some(Leaf { virt, address, frame: found.frame, write })
    }

    /// The frame of an own table that may be read and marked.
    fn table(&self, walk: &mut Walk, address: u8) -> Option<u8> {
        let found = if walk.flaw == Some(Flaw::RawTables) {
            Place { frame: address, write: true }
        } else {
            self.below(self.upper(walk.viewer, address), address)?
        };
        if !found.write && walk.flaw != Some(Flaw::MarksUnasked) {
            return None;
        }
        walk.touched |= 1 << found.frame;
        Some(found.frame)
    }

    /// Every frame in which a viewer may find an address: by nested tables, by what a CPU
    /// remembers of their root, by a translation that it remembers.
    pub(super) fn reaches(&self, viewer: Viewer, address: u8) -> impl Iterator<Item = u8> {
        let Tlb { leaf, upper, .. } = self.remembered(viewer);
        let old = upper.filter(|(of, _)| *of == region(address));
        let old = old.and_then(|(_, upper)| self.below(upper, address));
        let places = [self.nested(viewer, address), old].into_iter().flatten();
        let leaf = leaf.filter(|leaf| leaf.address == address);
        places.map(|place| place.frame).chain(leaf.map(|leaf| leaf.frame))
    }

    /// Every frame that a viewer reaches by any address, a bit each.
    pub(super) fn reached(&self, viewer: Viewer) -> u32 {
        let Tlb { leaf, upper, .. } = self.remembered(viewer);
        let leads = |of: u8| {
            self.word(viewer.root(), of) & PRESENT != 0
                || upper.is_some_and(|(old, _)| old == of)
                || leaf.is_some_and(|leaf| region(leaf.address) == of)
        };
        let addresses = (0..ADDRESSES).filter(|at| leads(region(*at)));
        addresses.flat_map(|at| self.reaches(viewer, at)).fold(0, |all, frame| all | 1 << frame)
    }

    /// Writes an own entry, so that a virtual address leads where its owner likes.
    pub(super) fn point(&mut self, table: u8, at: u8, to: Option<u8>) {
        self.set(table, at, to.map_or(0, |to| entry(to, WRITE)));
    }
}

/// Which entry of a root an address is under.
pub(super) const fn region(address: u8) -> u8 {
    address >> 2
}

/// Which entry of a table an address has.
pub(super) const fn index(address: u8) -> u8 {
    address & 3
}
