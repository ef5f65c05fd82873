//! The platform under the core: writes nested tables, splits and joins large leaves, seals and
//! wipes frames.

use view_core::suite::{PageId, Stream, Tag};
use view_core::{
    Copies, OpenStep, Perm, Place as Goal, Platform, SealStep, Source, Target, View, What,
};

use super::Flaw;
use super::entry::{ENTRIES, LARGE, PRESENT, WRITE, Word, entry, target};
use super::memory::{MANAGERS_TABLE, Memory, PLACES, REPLICA, Tlb, Viewer, index, region};
use crate::event::PageRef;
use crate::machine::Broken;
use crate::study::spine::{PAGES, at, small};

/// Sealed words: only who has the key gets inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seal {
    page: u8,
    version: u8,
    words: [Word; ENTRIES],
    secret: bool,
}

impl Seal {
    fn tag(self) -> Tag {
        let mut tag = [0; 16];
        tag[..4].copy_from_slice(&[1, self.page, self.version, u8::from(self.secret)]);
        for (to, word) in tag[4..].chunks_exact_mut(2).zip(self.words) {
            to.copy_from_slice(&word.to_le_bytes());
        }
        tag
    }
}

/// Memory, and what it holds beside words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Machine {
    /// Frames, tables and what CPUs remember.
    pub(super) memory: Memory,
    /// Frames that hold what an owner stored in private, a bit each.
    pub(super) secret: u32,
    /// Frames that hold sealed words, which mean nothing to hardware.
    pub(super) seals: [Option<Seal>; PLACES],
    /// What management hands over when a page is paged in.
    handed: [Option<Seal>; PAGES],
    /// Whose replica there is.
    pub(super) replica_of: Option<u8>,
}

impl Machine {
    /// A host as it boots: frames that may become pages are management's, by one large leaf, and
    /// so is the frame of its own table.
    pub(super) fn booted() -> Self {
        let mut machine = Self::default();
        machine.memory.set(Viewer::Management.root(), 0, entry(0, WRITE | LARGE));
        for frame in [4, 5, 6, MANAGERS_TABLE] {
            Host::new(&mut machine, None).give(frame);
        }
        machine.memory.point(MANAGERS_TABLE, 0, Some(MANAGERS_TABLE));
        machine
    }

    /// Replaces what a frame holds by words.
    pub(super) fn put(&mut self, frame: u8, words: [Word; ENTRIES], secret: bool) {
        self.memory.words[usize::from(frame)] = words;
        self.seals[usize::from(frame)] = None;
        self.mark(frame, secret);
    }

    /// Says whether a frame holds what an owner stored in private.
    pub(super) fn mark(&mut self, frame: u8, secret: bool) {
        self.secret = self.secret & !(1 << frame) | u32::from(secret) << frame;
    }

    fn put_seal(&mut self, frame: u8, seal: Seal) {
        self.put(frame, [0; ENTRIES], false);
        self.seals[usize::from(frame)] = Some(seal);
    }
}

/// The platform, sound or with one flaw.
#[derive(Debug)]
pub(super) struct Host<'m> {
    /// The machine.
    pub(super) machine: &'m mut Machine,
    /// What is wrong with the platform.
    pub(super) flaw: Option<Flaw>,
    /// Whether a large leaf was split.
    pub(super) split: bool,
    /// Whether a table was taken out of its root.
    pub(super) unhooked: bool,
}

fn frame_of(page: &Target) -> u8 {
    u8::try_from(page.frame.number()).unwrap_or(u8::MAX)
}

fn gfn_of(page: &Target) -> u8 {
    u8::try_from(page.gfn.number()).unwrap_or(u8::MAX)
}

fn owner_of(page: &Target) -> Viewer {
    Viewer::Vm(u8::try_from(page.vm.0).unwrap_or(u8::MAX))
}

impl<'m> Host<'m> {
    /// A handle on the machine.
    pub(super) const fn new(machine: &'m mut Machine, flaw: Option<Flaw>) -> Self {
        Self { machine, flaw, split: false, unhooked: false }
    }

    /// The table under an entry of a root: each has its frame, behind the root's.
    const fn table(viewer: Viewer, address: u8, root: u8) -> u8 {
        match viewer {
            Viewer::Management => root + 1 + region(address),
            // Guests' pages are all in the first region.
            Viewer::Vm(_) => root + 1,
        }
    }

    /// Makes an address lead to a frame.
    pub(super) fn map(&mut self, viewer: Viewer, address: u8, frame: u8, perm: Perm) {
        let write = if perm == Perm::ReadWrite { WRITE } else { 0 };
        let root = viewer.root();
        let table = Self::table(viewer, address, root);
        if self.flaw == Some(Flaw::GrantsLarge) && viewer == Viewer::Management {
            let first = address - index(address);
            self.machine.memory.set(root, region(address), entry(first, write | LARGE));
            return;
        }
        let upper = self.machine.memory.word(root, region(address));
        if upper & LARGE != 0 {
            self.split(viewer, address);
        } else if upper & PRESENT == 0 {
            // What was in the table when it was taken out is no longer true.
            self.machine.memory.words[usize::from(table)] = [0; ENTRIES];
            self.machine.memory.set(root, region(address), entry(table, WRITE));
        }
        self.machine.memory.set(table, index(address), entry(frame, write));
    }

    /// Takes an address away. The last one of a table takes the table out of its root.
    fn unmap(&mut self, viewer: Viewer, address: u8) {
        let root = viewer.root();
        let upper = self.machine.memory.word(root, region(address));
        if upper & PRESENT == 0 {
            return;
        }
        if upper & LARGE != 0 {
            self.split(viewer, address);
            if self.flaw == Some(Flaw::SplitKeeps) {
                return;
            }
        }
        let table = Self::table(viewer, address, root);
        let words = self.machine.memory.words[usize::from(table)];
        let others = (0..).zip(words).filter(|(at, _)| *at != index(address));
        if others.into_iter().all(|(_, word)| word & PRESENT == 0) {
            self.machine.memory.set(root, region(address), 0);
            self.unhooked = true;
        } else {
            self.machine.memory.set(table, index(address), 0);
        }
    }

    /// Writes a table that says what a large leaf said, and puts it in its place.
    fn split(&mut self, viewer: Viewer, address: u8) {
        let root = viewer.root();
        let large = self.machine.memory.word(root, region(address));
        let table = Self::table(viewer, address, root);
        for at in 0..small(ENTRIES) {
            self.machine.memory.set(table, at, entry(target(large) + at, large & WRITE));
        }
        self.machine.memory.set(root, region(address), entry(table, WRITE));
        self.split = true;
    }

    /// Gives management a frame that is nobody's.
    pub(super) fn give(&mut self, frame: u8) {
        self.map(Viewer::Management, frame, frame, Perm::ReadWrite);
    }

    /// Joins management's table into a large leaf again, if it says the same.
    pub(super) fn join(&mut self) {
        let root = Viewer::Management.root();
        let table = Self::table(Viewer::Management, 0, root);
        let words = self.machine.memory.words[usize::from(table)];
        if (0..).zip(words).all(|(at, word)| word == entry(at, WRITE)) {
            self.machine.memory.set(root, 0, entry(0, WRITE | LARGE));
        }
    }

    fn replica(&self, page: &Target) -> Option<u8> {
        (self.machine.replica_of == Some(number(page))).then_some(REPLICA)
    }

    fn sealed(&self, page: &Target, id: &PageId, from: Source) -> Seal {
        let frame = usize::from(frame_of(page));
        let words = match from {
            Source::Frame => self.machine.memory.words[frame],
            Source::Zeroes => [0; ENTRIES],
        };
        let version = u8::try_from(id.version.number()).unwrap_or(u8::MAX);
        let secret = self.machine.secret >> frame & 1 != 0;
        Seal { page: number(page), version, words, secret }
    }
}

/// The page's place in arrays.
fn number(page: &Target) -> u8 {
    let vm = u8::try_from(page.vm.0).unwrap_or(u8::MAX);
    small(at(PageRef { vm, gfn: gfn_of(page) }))
}

impl Platform for Host<'_> {
    type Fault = Broken;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), Broken> {
        match view {
            View::Owner => self.unmap(owner_of(page), gfn_of(page)),
            View::Management => {
                self.unmap(Viewer::Management, frame_of(page));
                if let Some(replica) = self.replica(page) {
                    self.unmap(Viewer::Management, replica);
                }
            }
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<(), Broken> {
        let tlb = &mut self.machine.memory.tlb;
        *tlb = match self.flaw {
            Some(Flaw::KeepsUpper) => tlb.keeping(|upper| upper & LARGE == 0),
            Some(Flaw::KeepsLarge) => tlb.keeping(|upper| upper & LARGE != 0),
            Some(_) | None => Tlb::default(),
        };
        Ok(())
    }

    fn fetch(&mut self, page: &Target) -> Result<(), Broken> {
        let handed = self.machine.handed[usize::from(number(page))].ok_or(Broken)?;
        self.machine.put_seal(frame_of(page), handed);
        Ok(())
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), Broken> {
        for (SealStep { target, id, from, to }, tag) in steps.iter().zip(tags) {
            let seal = self.sealed(target, id, *from);
            *tag = seal.tag();
            match to {
                Goal::Replica => {
                    self.machine.replica_of = Some(number(target));
                    self.machine.put_seal(REPLICA, seal);
                }
                Goal::InPlace => self.machine.put_seal(frame_of(target), seal),
                Goal::Wire => {}
            }
            if id.stream == Stream::Resident {
                self.machine.handed[usize::from(number(target))] = Some(seal);
            }
        }
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Broken> {
        for (OpenStep { target, tag, .. }, genuine) in steps.iter().zip(genuine) {
            let frame = frame_of(target);
            let seal = self.machine.seals[usize::from(frame)];
            let seal = seal.filter(|seal| seal.tag() == *tag);
            let (words, secret) =
                seal.map_or_else(Default::default, |seal| (seal.words, seal.secret));
            self.machine.put(frame, words, secret);
            *genuine = seal.is_some();
        }
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), Broken> {
        if matches!(copies, Copies::Original | Copies::All) {
            self.machine.put(frame_of(page), [0; ENTRIES], false);
        }
        if let (Copies::Replica | Copies::All, Some(replica)) = (copies, self.replica(page)) {
            self.machine.put(replica, [0; ENTRIES], false);
            self.machine.replica_of = None;
        }
        Ok(())
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), Broken> {
        let frame = frame_of(page);
        let (viewer, address, frame) = match (view, what) {
            (View::Owner, _) => {
                // What was handed over before is of no use any more.
                self.machine.handed[usize::from(number(page))] = None;
                (owner_of(page), gfn_of(page), frame)
            }
            (View::Management, What::Plain | What::Sealed) => (Viewer::Management, frame, frame),
            (View::Management, What::Replica) => {
                let replica = self.replica(page).ok_or(Broken)?;
                (Viewer::Management, replica, replica)
            }
            // No VM here has a field mask.
            (View::Management, What::Masked(_)) => return Err(Broken),
        };
        self.map(viewer, address, frame, perm);
        Ok(())
    }
}
