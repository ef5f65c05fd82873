//! The state of the study, and what each event does to it.

use view_core::{PageState, Perm};

use super::entry::{ENTRIES, WRITE, Word, entry};
use super::host::{Host, Machine};
use super::memory::{PLACES, Viewer, Walk};
use super::{DENIED, Event, Flaw, How, MOVED, OPEN_WRITTEN, PINNED, SPLIT, STALE};
use super::{OFFERED, OTHER, OTHERS_FRAME, PAGE_REFS, TABLE, TABLES_FRAME, UNHOOKED};
use crate::event::{Ask, PageRef};
use crate::study::spine::{Core, PAGES, at, small};

/// What only the checker knows of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ghost {
    /// What its owner would read.
    pub(super) latest: [Word; ENTRIES],
    /// What its owner lets management do.
    pub(super) consent: Option<Perm>,
    /// The frame of its last accept or page-in.
    pub(super) home: Option<u8>,
}

/// The state of core, machine and checker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    /// What the core knows.
    pub(super) core: Core,
    /// The machine.
    pub(super) machine: Machine,
    /// What the checker knows.
    pub(super) ghosts: [Ghost; PAGES],
}

/// What the last event did, for the checker.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Who read own tables in which frames, a bit each.
    pub(super) touched: Option<(Viewer, u32)>,
    /// What was reached.
    pub(super) reached: Vec<&'static str>,
}

/// The entry of an own table that is pointed at what is looked at, and taken back then.
const OWN_ENTRY: u8 = 2;
/// What management stores: no entry.
const MANAGERS_WORD: Word = 0xe0;
/// What a guest stores in private: to hardware it is an entry.
const GUESTS_WORD: Word = entry(1, WRITE);

impl State {
    /// Two guests whose pages were accepted, and whose own tables are set up.
    pub(super) fn booted() -> Self {
        let mut state = Self { machine: Machine::booted(), ..Self::default() };
        state.core.launch();
        for (frame, page) in [(TABLES_FRAME, TABLE), (OTHERS_FRAME, OTHER)] {
            assert!(state.core.offer(frame, page), "a free frame");
            let mut host = Host::new(&mut state.machine, None);
            state.core.run(page, Ask::Accept(frame), &mut host);
            state.ghosts[at(page)].home = Some(frame);
            state.machine.memory.point(frame, 0, Some(0));
            state.machine.mark(frame, true);
            state.stored(Viewer::Vm(page.vm), frame);
        }
        state
    }

    /// The page whose frame this is.
    fn page_in(&self, frame: u8) -> Option<PageRef> {
        PAGE_REFS.into_iter().find(|page| self.ghosts[at(*page)].home == Some(frame))
    }

    /// Somebody wrote to a frame. Its owner will find it there if it was allowed.
    fn stored(&mut self, viewer: Viewer, frame: u8) {
        let Some(page) = self.page_in(frame) else { return };
        let ghost = &mut self.ghosts[at(page)];
        let allowed = viewer == Viewer::Vm(page.vm)
            || viewer == Viewer::Management && ghost.consent == Some(Perm::ReadWrite);
        if allowed {
            ghost.latest = self.machine.memory.words[usize::from(frame)];
        }
    }

    fn is_open_to_write(&self, frame: u8) -> bool {
        let page = self.page_in(frame);
        page.is_some_and(|page| self.ghosts[at(page)].consent == Some(Perm::ReadWrite))
    }

    /// Whether a viewer may run: management always, a guest while the core says so.
    fn runs(&self, viewer: Viewer) -> bool {
        match viewer {
            Viewer::Management => true,
            Viewer::Vm(number) => self.core.glance().runs[usize::from(number)],
        }
    }

    /// Points an own entry at an address, looks there, and takes the entry back.
    fn look(&mut self, walk: &mut Walk, address: u8, how: How, noted: &mut Noted) {
        let viewer = walk.viewer;
        let own = self.machine.memory.nested(viewer, viewer.own_table());
        let Some(own) = own.filter(|_| self.runs(viewer)) else { return };
        self.machine.memory.point(own.frame, OWN_ENTRY, Some(address));
        let virt = if how == How::AsTable { OWN_ENTRY << 2 } else { OWN_ENTRY };
        self.machine.memory.forget_other(viewer, address);
        let found = self.machine.memory.find(walk, virt, how == How::Store);
        self.machine.memory.point(own.frame, OWN_ENTRY, None);
        noted.touched = Some((viewer, walk.touched));
        for frame in (0..small(PLACES)).filter(|frame| walk.marked >> frame & 1 != 0) {
            self.stored(viewer, frame);
        }
        let Some(frame) = found else {
            noted.reached.push(DENIED);
            return;
        };
        if walk.stale {
            noted.reached.push(STALE);
        }
        if how == How::AsTable {
            noted.reached.push(PINNED);
        }
        if how == How::Store {
            self.store(viewer, frame, noted);
        }
    }

    /// A store that every table allowed.
    fn store(&mut self, viewer: Viewer, frame: u8, noted: &mut Noted) {
        let word = match viewer {
            Viewer::Management => MANAGERS_WORD,
            Viewer::Vm(_) => GUESTS_WORD,
        };
        let mut words = self.machine.memory.words[usize::from(frame)];
        words[0] = word;
        let page = self.page_in(frame);
        let consent = page.is_some_and(|page| self.ghosts[at(page)].consent.is_some());
        let was_secret = self.machine.secret >> frame & 1 != 0;
        let secret = was_secret || !consent && viewer != Viewer::Management;
        self.machine.put(frame, words, secret);
        if viewer == Viewer::Management && self.is_open_to_write(frame) {
            noted.reached.push(OPEN_WRITTEN);
        }
        self.stored(viewer, frame);
    }

    fn begin(&mut self, page: PageRef, ask: Ask, noted: &mut Noted) {
        let before = self.core;
        let offered = match ask {
            Ask::Accept(frame) | Ask::PageIn(frame) => self.core.offer(frame, page),
            Ask::Map(_)
            | Ask::Unmap
            | Ask::Export(_)
            | Ask::Seal
            | Ask::PageOut
            | Ask::Destroy
            | Ask::Launch
            | Ask::Touch
            | Ask::Share(..)
            | Ask::Unshare
            | Ask::Exclude(_) => true,
        };
        if !offered || !self.core.begin(page, ask) {
            self.core = before;
            return;
        }
        let ghost = &mut self.ghosts[at(page)];
        if let Ask::Share(perm, _) = ask {
            // What its owner opens is shown.
            ghost.consent = Some(perm);
            if let Some(frame) = ghost.home {
                self.machine.mark(frame, false);
            }
        } else if let Ask::Accept(frame) = ask {
            *ghost = Ghost { home: Some(frame), ..Ghost::default() };
        } else if let Ask::PageIn(frame) = ask {
            ghost.home = Some(frame);
            if frame != OFFERED[0] {
                noted.reached.push(MOVED);
            }
        }
    }

    fn step(&mut self, flaw: Option<Flaw>, noted: &mut Noted) {
        let mut host = Host::new(&mut self.machine, flaw);
        let done = self.core.step(&mut host);
        if host.split {
            noted.reached.push(SPLIT);
        }
        if host.unhooked {
            noted.reached.push(UNHOOKED);
        }
        let Some((flight, state)) = done else { return };
        let ghost = &mut self.ghosts[at(flight.page)];
        if state.terms().is_none() {
            ghost.consent = None;
        }
        if state == PageState::Free {
            ghost.latest = [0; ENTRIES];
        }
        if matches!(state, PageState::Free | PageState::PagedOut) {
            ghost.home = None;
        }
    }

    /// What becomes of the state.
    pub(super) fn happen(&mut self, event: Event, flaw: Option<Flaw>, noted: &mut Noted) {
        match event {
            Event::Begin(page, ask) => self.begin(page, ask, noted),
            Event::Step => self.step(flaw, noted),
            Event::Give(frame) => {
                let mut host = Host::new(&mut self.machine, flaw);
                host.give(frame);
                host.join();
            }
            Event::Remap(PageRef { vm, gfn }, frame) => {
                if flaw == Some(Flaw::FollowsRemap) {
                    let mut host = Host::new(&mut self.machine, flaw);
                    host.map(Viewer::Vm(vm), gfn, frame, Perm::ReadWrite);
                }
            }
            Event::Look(viewer, address, how) => {
                let mut walk = Walk::of(viewer, flaw);
                self.look(&mut walk, address, how, noted);
            }
        }
    }
}
