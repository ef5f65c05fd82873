//! What can happen next, within the bounds: guests, the trusted side, and every attack.
//!
//! Events that would certainly do nothing are left out, by the blackboard table and by looking at
//! mappings; a test shows separately that what is refused is refused.

use view_core::{Ownership, PageState, Perm};

use crate::bytes::{Bytes, Seal};
use crate::event::{Ask, Event, FaultTime, Handed, PageRef, Phys, Term};
use crate::flight::PLANS;
use crate::machine::{FRAMES, Machine, PAGES, VMS};
use crate::mutant::Mutant;
use crate::table;
use crate::world::World;

impl World<'_> {
    /// Every event that may come next.
    pub fn enabled(&self) -> Vec<Event> {
        let mut events = Vec::new();
        self.list_enabled(&mut events);
        events
    }

    /// Adds every event that may come next.
    pub(crate) fn list_enabled(&self, events: &mut Vec<Event>) {
        let now = Now::of(self);
        self.batches(&now, events);
        self.guests(&now, events);
        self.management(&now, events);
        self.frames(&now, events);
        self.handovers(&now, events);
        let unlaunched =
            (0_u8..).zip(self.config.pages).filter(|(vm, _)| !self.launched[usize::from(*vm)]);
        events.extend(unlaunched.map(|(vm, _)| Event::LaunchVm(vm)));
        let has_deadline = |page: PageRef| self.ghost(page).term == Some(Term::Tick);
        if !self.ticked && now.pages().any(|(page, _)| has_deadline(page)) {
            events.push(Event::Tick);
        }
        if self.life < usize::from(self.config.restarts) {
            events.push(Event::Restart);
        }
    }

    fn batches(&self, now: &Now, events: &mut Vec<Event>) {
        let [_, drops, faults, begins] = self.used;
        let begins = begins < self.config.begins;
        let mut idle = None;
        for (cpu, flight) in (0..self.config.batches).zip(&self.flights) {
            let Some(flight) = flight else {
                idle = idle.or(Some(cpu));
                continue;
            };
            events.push(Event::Step(cpu));
            if drops < self.config.drops {
                events.push(Event::Drop(cpu));
            }
            if faults < self.config.faults {
                events.push(Event::Fault(cpu, FaultTime::Early));
                events.push(Event::Fault(cpu, FaultTime::Late));
            }
            let room = usize::from(self.config.plans).min(PLANS);
            if begins && flight.steps == 0 && flight.asks.len() < room {
                self.asks(now, |page, ask| events.push(Event::Join(cpu, page, ask)));
            }
        }
        if let (Some(cpu), true) = (idle, begins) {
            self.asks(now, |page, ask| events.push(Event::Begin(cpu, page, ask)));
        }
    }

    fn asks(&self, now: &Now, mut found: impl FnMut(PageRef, Ask)) {
        for (page, state) in now.pages().filter(|(page, _)| !self.is_busy(*page)) {
            let spent = self.version(page) >= u64::from(self.config.versions);
            let once = self.ghost(page).term == Some(Term::Once);
            let launched = self.launched[usize::from(page.vm)];
            for ask in self.config.asks.iter().copied() {
                let burns = table::burns(state, ask) && (once || ask != Ask::Unmap);
                // What a page may always be asked, even when its versions are spent.
                let over = burns && spent && ask != Ask::Unshare;
                if over || table::after(state, ask, once, launched).is_none() {
                    continue;
                }
                if self.may_ask(now, (page, state), ask) {
                    self.in_frames(page, ask, |ask| found(page, ask));
                }
            }
        }
    }

    /// Guests act only while they run; a clock that ticked closes pages for them.
    fn may_ask(&self, now: &Now, (page, state): (PageRef, PageState), ask: Ask) -> bool {
        let overdue = || self.ticked && self.ghost(page).term == Some(Term::Tick);
        match ask {
            Ask::Touch | Ask::Share(..) | Ask::Exclude(_) => now.runs(page),
            Ask::Unshare => now.runs(page) || overdue(),
            Ask::Map(Perm::ReadWrite) => state == PageState::Building || state.terms().is_some(),
            Ask::Map(Perm::Read)
            | Ask::Unmap
            | Ask::Export(_)
            | Ask::Seal
            | Ask::PageOut
            | Ask::PageIn(_)
            | Ask::Destroy
            | Ask::Accept(_)
            | Ask::Launch => true,
        }
    }

    /// An ask about a frame stands for one ask for each frame that was offered.
    fn in_frames(&self, page: PageRef, ask: Ask, mut found: impl FnMut(Ask)) {
        let offered = |number: &u8| {
            let owner = self.ownership(*number);
            let anothers = self.mutant.is_some_and(Mutant::takes_anothers);
            matches!(owner, Ownership::Offered(vm, gfn) if anothers
                || u64::from(vm.0) == u64::from(page.vm) && gfn.number() == u64::from(page.gfn))
        };
        let frames = (0..self.config.frames).filter(offered);
        if matches!(ask, Ask::PageIn(_)) {
            frames.for_each(|frame| found(Ask::PageIn(frame)));
        } else if matches!(ask, Ask::Accept(_)) {
            frames.for_each(|frame| found(Ask::Accept(frame)));
        } else {
            found(ask);
        }
    }

    fn guests(&self, now: &Now, events: &mut Vec<Event>) {
        let stores = self.used[0] < self.config.stores;
        for (page, _) in now.pages().filter(|(page, _)| now.runs(*page)) {
            let at = page.index();
            let mapped = self.machine.guest_table[at];
            for (cpu, tlb) in (0..self.config.cpus).zip(&self.machine.tlbs) {
                let remembered = tlb.guest[at];
                if remembered.or(mapped).is_none() {
                    continue;
                }
                if remembered.is_none() {
                    events.push(Event::GuestLoad(cpu, page));
                }
                if stores {
                    events.push(Event::GuestStore(cpu, page));
                }
            }
        }
    }

    fn management(&self, now: &Now, events: &mut Vec<Event>) {
        let Machine { memory, host_table, tlbs, .. } = &self.machine;
        for (at, (bytes, mapped)) in memory.iter().zip(host_table).enumerate() {
            for (cpu, tlb) in (0..self.config.cpus).zip(tlbs) {
                let remembered = tlb.host[at];
                let Some(perm) = remembered.or(*mapped) else { continue };
                if remembered.is_none() {
                    events.push(Event::ManageLoad(cpu, Phys::at(at)));
                }
                if perm == Perm::ReadWrite && *bytes != Bytes::PUBLIC {
                    events.push(Event::ManageStore(cpu, Phys::at(at)));
                }
            }
        }
        // Only a wrong frontend listens.
        if self.mutant.is_some() && self.flights.iter().all(Option::is_none) {
            let closed = now.pages().filter(|(_, state)| *state == PageState::Private);
            events.extend(closed.map(|(page, _)| Event::Claim(page)));
        }
    }

    fn frames(&self, now: &Now, events: &mut Vec<Event>) {
        debug_assert!(usize::from(self.config.frames) <= FRAMES && self.config.pages.len() <= VMS);
        let wants =
            now.pages().filter(|(_, state)| matches!(state, PageState::Free | PageState::PagedOut));
        let wanting: heapless::Vec<PageRef, PAGES> = wants.map(|(page, _)| page).collect();
        for number in 0..self.config.frames {
            match self.ownership(number) {
                Ownership::Free => {
                    events.extend(wanting.iter().map(|page| Event::Offer(number, *page)));
                }
                Ownership::Offered(vm, gfn) => {
                    let small = |number: u64| u8::try_from(number).unwrap_or(u8::MAX);
                    let page = PageRef { vm: small(u64::from(vm.0)), gfn: small(gfn.number()) };
                    events.push(Event::Retract(number, page));
                    // To map it earlier than this makes no difference to anybody.
                    if self.config.raw && self.machine.host_table[usize::from(number)].is_none() {
                        events.push(Event::ManageMap(number));
                    }
                }
                Ownership::Owned(..) | Ownership::Quarantined(..) => {}
            }
        }
    }

    /// Whatever the management side was ever given can be handed over for a page that is out.
    fn handovers(&self, now: &Now, events: &mut Vec<Event>) {
        for (page, state) in now.pages() {
            let out = state == PageState::PagedOut;
            // Only a wrong platform reads again what it has fetched.
            let again = self.mutant.is_some() && state == PageState::Sealed;
            if !out && !again {
                continue;
            }
            let handed = self.machine.handed[page.index()];
            if handed != Bytes::PUBLIC {
                events.push(Event::Hand(page, Handed::Forged));
            }
            let others = |seal: &&Seal| handed != Bytes::Sealed(**seal);
            let known = self.machine.known.iter().filter(others);
            events.extend(known.map(|seal| Event::Hand(page, Handed::Known(seal.label))));
        }
    }
}

/// What onlookers see now: asked once.
struct Now {
    pages: heapless::Vec<(PageRef, PageState), PAGES>,
    runs: [bool; VMS],
}

impl Now {
    fn of(world: &World<'_>) -> Self {
        let mut runs = [false; VMS];
        for (vm, runs) in (0..).zip(&mut runs).take(world.config.pages.len()) {
            *runs = world.runs(vm);
        }
        Self {
            pages: world.config.page_refs().map(|page| (page, world.state(page))).collect(),
            runs,
        }
    }

    fn pages(&self) -> impl Iterator<Item = (PageRef, PageState)> + '_ {
        self.pages.iter().copied()
    }

    /// Whether the page's guest runs.
    fn runs(&self, page: PageRef) -> bool {
        self.runs[usize::from(page.vm)]
    }
}
