//! What sim's own machine shows at each point of a trace: the one answer that is right, or, while a
//! withdrawal is not fenced yet, all that are.
//!
//! CPU 0 of the world looks at everything before anything may be withdrawn, so it remembers all
//! that a CPU can. Where that differs from what the tables say a platform is free: it may have let
//! go already, it may show the page as it is, or as it was at any time since the withdrawal.

use view_core::{Ownership, PageState, Perm, View};

use crate::bytes::{Bytes, Plain};
use crate::event::{Event, PageRef, Phys};
use crate::machine::Machine;
use crate::world::World;

/// What a load finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Seen {
    /// No mapping.
    Nothing,
    /// Zeroes.
    Zero,
    /// What the management side stored.
    Public,
    /// The guest's store with this number.
    Stored(u8),
    /// Anything else: sealed bytes.
    Other,
}

/// The CPU of the world that remembers all it can.
const REMEMBERS: u8 = 0;
/// A CPU that looks only where that one remembers less than the tables say by now.
const FRESH: u8 = 1;

/// The world, and what is allowed while it is in between.
#[derive(Debug)]
pub(super) struct Reference<'w, 't> {
    world: &'w mut World<'t>,
    /// What each page showed in each view since what is remembered is what is mapped.
    since: Vec<[Vec<Seen>; 2]>,
}

impl<'w, 't> Reference<'w, 't> {
    pub(super) fn new(world: &'w mut World<'t>) -> Self {
        let pages = usize::from(world.config.pages.first().copied().unwrap_or(0));
        let mut this = Self { world, since: vec![[Vec::new(), Vec::new()]; pages] };
        this.note();
        this
    }

    /// Lets something happen.
    pub(super) fn apply(&mut self, event: Event) {
        if matches!(event, Event::Step(_) | Event::Fault(..)) {
            self.look_at_everything();
        }
        self.world.apply(event);
        self.note();
    }

    /// Whether the guest may run.
    pub(super) fn runs(&self) -> bool {
        self.world.runs(0)
    }

    /// What the table says of a page.
    pub(super) fn state(&self, page: PageRef) -> PageState {
        self.world.state(page)
    }

    /// Every load that is right.
    pub(super) fn allowed(&self, view: View, page: PageRef) -> Vec<Seen> {
        let mut allowed = self.since[usize::from(page.gfn)][index(view)].clone();
        let mapped = self.shows(self.mapped(view, page));
        if !allowed.contains(&mapped) {
            allowed.push(mapped);
        }
        allowed
    }

    /// Whether a store must succeed, and whether it may.
    pub(super) fn stores(&self, view: View, page: PageRef) -> [bool; 2] {
        let must = stored_to(self.mapped(view, page)).is_some();
        [must, must || self.stores_on(view, page).is_some()]
    }

    /// The CPU on which a store passes, and where it goes.
    fn stores_on(&self, view: View, page: PageRef) -> Option<(u8, Phys)> {
        let on = |cpu| Some((cpu, stored_to(self.found(cpu, view, page))?));
        [REMEMBERS, FRESH].into_iter().find_map(on)
    }

    /// The store that a platform carried out.
    pub(super) fn store(&mut self, view: View, page: PageRef) {
        let Some((cpu, place)) = self.stores_on(view, page) else { return };
        self.apply(match view {
            View::Owner => Event::GuestStore(cpu, page),
            View::Management => Event::ManageStore(cpu, place),
        });
    }

    /// Whose page is at a place.
    pub(super) fn page_at(&self, place: Phys) -> Option<PageRef> {
        let own = |page: &PageRef| page.vm == 0;
        self.world.config.page_refs().filter(own).find(|page| match place {
            Phys::Replica(_) => self.machine().replica(*page) == Some(place),
            Phys::Frame(_) => self.frame(*page) == Some(place),
        })
    }

    /// The frame that is a page's, whatever became of the page.
    pub(super) fn frame(&self, page: PageRef) -> Option<Phys> {
        let frames = 0..self.world.config.frames;
        let own = frames.into_iter().find(|number| match self.world.ownership(*number) {
            Ownership::Owned(vm, gfn) | Ownership::Quarantined(vm, gfn) => {
                (u64::from(vm.0), gfn.number()) == (u64::from(page.vm), u64::from(page.gfn))
            }
            Ownership::Free | Ownership::Offered(..) => false,
        });
        own.map(Phys::Frame)
    }

    const fn machine(&self) -> &Machine {
        &self.world.machine
    }

    fn look_at_everything(&mut self) {
        let pages: Vec<PageRef> = self.world.config.page_refs().collect();
        pages.into_iter().for_each(|page| self.world.apply(Event::GuestLoad(REMEMBERS, page)));
        Phys::all().for_each(|place| self.world.apply(Event::ManageLoad(REMEMBERS, place)));
    }

    /// Where a CPU finds a page, and what it may do there. It remembers nothing by this.
    fn found(&self, cpu: u8, view: View, page: PageRef) -> Option<(Phys, Perm)> {
        let mut machine = self.machine().clone();
        match view {
            View::Owner => machine.guest_walk(cpu, page).map(|place| (place, Perm::ReadWrite)),
            View::Management => {
                let places = [machine.replica(page), self.frame(page)].into_iter().flatten();
                places.into_iter().find_map(|place| Some((place, machine.host_walk(cpu, place)?)))
            }
        }
    }

    /// Where the tables say that a page is, and what may be done there.
    fn mapped(&self, view: View, page: PageRef) -> Option<(Phys, Perm)> {
        let machine = self.machine();
        match view {
            View::Owner => machine.guest_table[page.index()].map(|place| (place, Perm::ReadWrite)),
            View::Management => {
                let places = [machine.replica(page), self.frame(page)].into_iter().flatten();
                let perm = |place: Phys| Some((place, machine.host_table[place.index()]?));
                places.into_iter().find_map(perm)
            }
        }
    }

    fn shows(&self, found: Option<(Phys, Perm)>) -> Seen {
        let Some((place, _)) = found else { return Seen::Nothing };
        match self.machine().at(place) {
            Bytes::Plain(Plain::Zero) => Seen::Zero,
            Bytes::Plain(Plain::Public) => Seen::Public,
            Bytes::Plain(Plain::Secret(store) | Plain::Shared(store)) => Seen::Stored(store),
            Bytes::Sealed(_) => Seen::Other,
        }
    }

    /// Notes what may be seen from now on.
    fn note(&mut self) {
        let pages = (0_u8..).take(self.since.len()).map(|gfn| PageRef { vm: 0, gfn });
        for (page, view) in pages.flat_map(|page| [(page, View::Owner), (page, View::Management)]) {
            let found = self.found(REMEMBERS, view, page);
            let (now, place) = (self.shows(found), |(place, _)| place);
            let settled = found.map(place) == self.mapped(view, page).map(place);
            let since = &mut self.since[usize::from(page.gfn)][index(view)];
            if settled {
                since.clear();
            }
            if !since.contains(&now) {
                since.push(now);
            }
        }
    }
}

fn stored_to(found: Option<(Phys, Perm)>) -> Option<Phys> {
    found.filter(|(_, perm)| *perm == Perm::ReadWrite).map(|(place, _)| place)
}

const fn index(view: View) -> usize {
    match view {
        View::Owner => 0,
        View::Management => 1,
    }
}
