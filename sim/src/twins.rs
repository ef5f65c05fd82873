//! Events that lead to states which differ in names only: what one of them leads to, all do.
//!
//! Frames of which the same is true, pages of a VM that nothing was ever done to, and CPUs that
//! remember the same can change places without changing the state. So an event has the same
//! outcome, up to names, as its first twin: the event with each of them replaced by the first of
//! its kind. That one is played, checked and named for all of them.

use crate::event::{Ask, Event, PageRef, Phys};
use crate::machine::{FRAMES, PAGES, VM_PAGES};
use crate::rename::refers;
use crate::signature::untouched;
use crate::state::State;
use crate::symmetry::Symmetry;

/// What changes places with what: for each the first of its kind.
#[derive(Clone, Copy, Debug)]
pub struct Twins {
    frames: [u8; FRAMES],
    pages: [u8; PAGES],
    cpus: bool,
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

impl Twins {
    /// What can change places in a state.
    pub fn of(symmetry: &Symmetry, state: &State) -> Self {
        let cpus = symmetry.swaps_cpus() && {
            let alike = |[first, second]: [u8; 2]| first == second;
            state.pages.iter().all(|row| alike(row.tlb))
                && state.places.iter().all(|row| alike(row.tlb))
        };
        let same =
            Self { frames: std::array::from_fn(byte), pages: std::array::from_fn(byte), cpus };
        if !symmetry.renames() {
            return same;
        }
        let refers = refers(state);
        let key = |frame: usize| (state.places[frame].word(), refers[frame]);
        let frames = std::array::from_fn(|frame| {
            byte((0..frame).find(|first| key(*first) == key(frame)).unwrap_or(frame))
        });
        let untouched = untouched(state);
        let pages = std::array::from_fn(|page| {
            let (vm, at) = (page / VM_PAGES, page % VM_PAGES);
            let first = (0..at).find(|first| untouched[vm][*first] && untouched[vm][at]);
            byte(first.map_or(page, |first| vm * VM_PAGES + first))
        });
        Self { frames, pages, ..same }
    }

    /// The first twin of an event.
    pub fn first(&self, event: Event) -> Event {
        match event {
            Event::Offer(frame, page) => Event::Offer(self.frame(frame), self.page(page)),
            Event::Retract(frame, page) => Event::Retract(self.frame(frame), self.page(page)),
            Event::ManageMap(frame) => Event::ManageMap(self.frame(frame)),
            Event::GuestLoad(cpu, page) => Event::GuestLoad(self.cpu(cpu), page),
            Event::GuestStore(cpu, page) => Event::GuestStore(self.cpu(cpu), page),
            Event::ManageLoad(cpu, place) => Event::ManageLoad(self.cpu(cpu), self.place(place)),
            Event::ManageStore(cpu, place) => Event::ManageStore(self.cpu(cpu), self.place(place)),
            Event::Begin(cpu, page, ask) => Event::Begin(cpu, self.page(page), self.ask(ask)),
            Event::Join(cpu, page, ask) => Event::Join(cpu, self.page(page), self.ask(ask)),
            Event::Hand(..)
            | Event::Claim(_)
            | Event::Step(_)
            | Event::Drop(_)
            | Event::Fault(..)
            | Event::LaunchVm(_)
            | Event::Tick
            | Event::Restart => event,
        }
    }

    fn frame(&self, frame: u8) -> u8 {
        self.frames[usize::from(frame)]
    }

    fn page(&self, page: PageRef) -> PageRef {
        PageRef::at(usize::from(self.pages[page.index()]))
    }

    const fn cpu(&self, cpu: u8) -> u8 {
        if self.cpus { 0 } else { cpu }
    }

    fn place(&self, place: Phys) -> Phys {
        match place {
            Phys::Frame(frame) => Phys::Frame(self.frame(frame)),
            Phys::Replica(_) => place,
        }
    }

    fn ask(&self, ask: Ask) -> Ask {
        if let Ask::Accept(frame) = ask {
            Ask::Accept(self.frame(frame))
        } else if let Ask::PageIn(frame) = ask {
            Ask::PageIn(self.frame(frame))
        } else {
            ask
        }
    }
}
