//! A hostile device: the management side programs it, and it reads and writes memory between any
//! two steps of a batch, through an IOMMU that remembers what it translated.
//!
//! To the core a device is part of the management side's view: withdrawing and fencing have to
//! reach it. What it maps is what that view was granted, and frames that are nobody's. Remapping
//! hardware: Intel's specification of VT-d, chapter "Caching Translation Information", with its
//! sections on invalidation and on draining of requests.

mod machine;

use std::fmt;

use view_core::{Ownership, PageState, Perm};

use super::spine::{Core, Glance, small};
use super::{After, Found, Model, Study, Wanted, Wrong, explore};
use crate::bytes::{Bytes, Plain};
use crate::event::{Ask, PageRef, Term};
use machine::{Entry, FRAMES, Host, Machine, PLACES, REPLICA};

/// The study.
pub(super) const STUDY: Study = Study {
    name: "dma",
    purpose: "a device that management programs, behind an IOMMU that remembers",
    bounds: "1 VM, 1 page, 2 frames, 1 replica, 1 device, 2 versions, a batch of 1",
    claims: &[],
    wrongs: WRONGS,
    reaches: &[
        OLD_TRANSLATION,
        REFUSED,
        OPEN_WRITTEN,
        SEALED_READ,
        LANDED_IN_FENCE,
        DONATED_AFTER_DMA,
    ],
    explore: |wanted| {
        let found = WRONGS.iter().position(|wrong| Some(wrong.name) == wanted.wrong);
        study(found.map(|index| FLAWS[index]), wanted)
    },
};

const OLD_TRANSLATION: &str = "a device uses a translation that is in no table any more";
const REFUSED: &str = "a device is refused";
const OPEN_WRITTEN: &str = "a device writes to an open page";
const SEALED_READ: &str = "a device reads a sealed page";
const LANDED_IN_FENCE: &str = "a fence waits for a write of a device";
const DONATED_AFTER_DMA: &str = "a frame that a device wrote becomes a page";

const PAGES: u8 = 1;
const VERSIONS: u64 = 2;

/// How the platform can be wrong, in the order of [`WRONGS`].
const FLAWS: [Flaw; 7] = [
    Flaw::KeepsIotlb,
    Flaw::KeepsTable,
    Flaw::KeepsDonated,
    Flaw::LeavesPosted,
    Flaw::UnmapsLate,
    Flaw::ReturnsEarly,
    Flaw::ReadsAsWrites,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    KeepsIotlb,
    KeepsTable,
    KeepsDonated,
    LeavesPosted,
    UnmapsLate,
    ReturnsEarly,
    ReadsAsWrites,
}

const WRONGS: &[Wrong] = &[
    Wrong {
        name: "keeps-iotlb",
        sentence: "the fence flushes what CPUs remember, not what the IOMMU remembers",
        caught_by: &["C1", "C2", "C8", "I1", "I5"],
    },
    Wrong {
        name: "forgets-iommu",
        sentence: "withdrawing from the management side leaves its devices' mapping in place",
        caught_by: &["C1", "C2", "C8", "I1", "I5"],
    },
    Wrong {
        name: "keeps-donated",
        sentence: "a frame that is donated stays mapped for the device that had it",
        caught_by: &["C1", "C2", "C8", "I1", "I5"],
    },
    Wrong {
        name: "leaves-posted",
        sentence: "the fence does not wait for writes that the IOMMU translated before",
        caught_by: &["C2", "I1", "I5"],
    },
    Wrong {
        name: "unmaps-device-late",
        sentence: "a device loses a page after the fence, when it is wiped or granted already",
        caught_by: &["C1", "C2", "C8", "I1", "I5"],
    },
    Wrong {
        name: "returns-early",
        sentence: "a device has a frame back when its owner loses it, before it is wiped",
        caught_by: &["C1", "C8"],
    },
    Wrong {
        name: "reads-as-writes",
        sentence: "the IOMMU lets a device write what it may read",
        caught_by: &["I1"],
    },
];

#[derive(Clone, Copy, Debug)]
enum Event {
    Offer(u8, u8),
    Begin(u8, Ask),
    Step,
    /// Management maps a frame that is nobody's for the device.
    Program(u8),
    /// The guest stores to a page.
    Store(u8),
    /// The device reads a place.
    Read(usize),
    /// The device copies what it must not know to another place.
    Copy(usize, usize),
    /// The device issues a write.
    Post(usize),
    /// The write lands.
    Land,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Offer(frame, gfn) => write!(f, "offer f{frame} 0:{gfn}"),
            Self::Begin(gfn, ask) => write!(f, "begin 0:{gfn} {ask}"),
            Self::Step => f.write_str("step"),
            Self::Program(frame) => write!(f, "program the device for f{frame}"),
            Self::Store(gfn) => write!(f, "guest store 0:{gfn}"),
            Self::Read(from) => write!(f, "device read {}", name(*from)),
            Self::Copy(from, to) => write!(f, "device copy {} {}", name(*from), name(*to)),
            Self::Post(to) => write!(f, "device write {}", name(*to)),
            Self::Land => f.write_str("the write lands"),
        }
    }
}

fn name(place: usize) -> String {
    if place == REPLICA { "r0".into() } else { format!("f{place}") }
}

/// What only the checker knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ghost {
    /// What its owner would read.
    latest: Bytes,
    /// What the owner lets the management side do.
    consent: Option<Perm>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    core: Core,
    machine: Machine,
    ghosts: [Ghost; PAGES as usize],
}

/// What an event led to, beside its state.
#[derive(Debug, Default)]
struct Noted {
    reached: Vec<&'static str>,
}

struct Dma {
    flaw: Option<Flaw>,
}

fn study(flaw: Option<Flaw>, wanted: Wanted) -> Found {
    explore(&Dma { flaw }, wanted)
}

fn page(gfn: u8) -> PageRef {
    PageRef { vm: 0, gfn }
}

fn frames() -> impl Iterator<Item = u8> {
    (0..FRAMES).map(small)
}

impl Default for State {
    fn default() -> Self {
        let ghost = Ghost { latest: Bytes::ZERO, consent: None };
        let mut state = Self {
            core: Core::default(),
            machine: Machine::new(),
            ghosts: [ghost; PAGES as usize],
        };
        state.core.launch();
        state
    }
}

impl State {
    fn open_to(&self, place: usize) -> Option<u8> {
        (0..PAGES).find(|gfn| {
            let own = self.core.frame(page(*gfn)).map(usize::from) == Some(place);
            own && self.ghosts[usize::from(*gfn)].consent == Some(Perm::ReadWrite)
        })
    }

    /// The device's bytes arrive; the owner who lets it write will find them.
    fn arrived(&mut self, place: usize) {
        if let Some(gfn) = self.open_to(place) {
            self.ghosts[usize::from(gfn)].latest = self.machine.memory[place];
        }
    }

    fn store(&mut self, gfn: u8) {
        let Some(frame) = self.machine.guest[usize::from(gfn)] else { return };
        let ghost = &mut self.ghosts[usize::from(gfn)];
        let secret = ghost.consent.is_none();
        let plain = if secret { Plain::Secret(gfn) } else { Plain::Shared(gfn) };
        ghost.latest = Bytes::Plain(plain);
        self.machine.memory[usize::from(frame)] = ghost.latest;
    }

    fn begin(&mut self, gfn: u8, ask: Ask) {
        if !self.core.begin(page(gfn), ask) {
            return;
        }
        let ghost = &mut self.ghosts[usize::from(gfn)];
        if let Ask::Share(perm, _) = ask {
            // What its owner opens is shown.
            ghost.consent = Some(perm);
            ghost.latest = ghost.latest.declassified();
            if let Some(frame) = self.core.frame(page(gfn)) {
                let held = &mut self.machine.memory[usize::from(frame)];
                *held = held.declassified();
            }
        } else if matches!(ask, Ask::Accept(_)) {
            ghost.latest = Bytes::ZERO;
        }
    }

    fn step(&mut self, flaw: Option<Flaw>, noted: &mut Noted) {
        let mut host = Host { machine: &mut self.machine, flaw, landed: None };
        let done = self.core.step(&mut host);
        if let Some(place) = host.landed {
            noted.reached.push(LANDED_IN_FENCE);
            self.arrived(usize::from(place));
        }
        let Some((flight, state)) = done else { return };
        let ghost = &mut self.ghosts[usize::from(flight.page.gfn)];
        if state.terms().is_none() {
            ghost.consent = None;
        }
        if state == PageState::Free {
            ghost.latest = Bytes::ZERO;
        }
    }

    /// The device looks a place up.
    fn device(&mut self, place: usize, perm: Perm, flaw: Option<Flaw>, noted: &mut Noted) -> bool {
        let found = self.machine.translate(place, perm, flaw);
        if !found {
            noted.reached.push(REFUSED);
        } else if self.machine.iommu[place].is_none() {
            noted.reached.push(OLD_TRANSLATION);
        }
        if found && perm == Perm::ReadWrite && self.open_to(place).is_some() {
            noted.reached.push(OPEN_WRITTEN);
        }
        if found && matches!(self.machine.memory[place], Bytes::Sealed(_)) && place != REPLICA {
            noted.reached.push(SEALED_READ);
        }
        found
    }

    fn happen(&mut self, event: Event, flaw: Option<Flaw>, noted: &mut Noted) {
        match event {
            Event::Offer(frame, gfn) => {
                let remembered = self.machine.remembered(usize::from(frame)).is_some();
                if self.core.offer(frame, page(gfn)) && remembered {
                    noted.reached.push(DONATED_AFTER_DMA);
                }
            }
            Event::Begin(gfn, ask) => self.begin(gfn, ask),
            Event::Step => self.step(flaw, noted),
            Event::Program(frame) => {
                self.machine.iommu[usize::from(frame)] = Some(Entry::NOBODYS);
            }
            Event::Store(gfn) => self.store(gfn),
            Event::Read(from) => _ = self.device(from, Perm::Read, flaw, noted),
            Event::Copy(from, to) => {
                if self.device(from, Perm::Read, flaw, noted)
                    && self.device(to, Perm::ReadWrite, flaw, noted)
                {
                    self.machine.memory[to] = self.machine.memory[from];
                    self.arrived(to);
                }
            }
            Event::Post(to) => {
                if self.device(to, Perm::ReadWrite, flaw, noted) {
                    self.machine.posted = Some(small(to));
                }
            }
            Event::Land => {
                if let Some(place) = self.machine.posted.take() {
                    self.machine.memory[usize::from(place)] = Bytes::PUBLIC;
                    self.arrived(usize::from(place));
                }
            }
        }
    }
}

impl Model for Dma {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State::default()
    }

    fn events(&self, state: &State) -> Vec<Event> {
        let glance = state.core.glance();
        let mut events: Vec<Event> = Vec::new();
        for gfn in 0..PAGES {
            if glance.runs[0] && state.machine.guest[usize::from(gfn)].is_some() {
                events.push(Event::Store(gfn));
            }
            if state.core.flight.is_none() {
                events.extend(asks(state, gfn).map(|ask| Event::Begin(gfn, ask)));
            }
        }
        for frame in frames() {
            if glance.owners[usize::from(frame)] == Ownership::Free {
                events.extend((0..PAGES).map(|gfn| Event::Offer(frame, gfn)));
                events.push(Event::Program(frame));
            }
        }
        if state.core.flight.is_some() {
            events.push(Event::Step);
        }
        match state.machine.posted {
            Some(_) => events.push(Event::Land),
            None => events.extend((0..PLACES).map(Event::Post)),
        }
        events.extend((0..PLACES).map(Event::Read));
        // What it may know it can as well make up.
        let secrets = (0..PLACES).filter(|from| state.machine.memory[*from].is_secret());
        events.extend(secrets.flat_map(|from| {
            let others = (0..PLACES).filter(move |to| *to != from);
            others.map(move |to| Event::Copy(from, to))
        }));
        events
    }

    fn apply(&self, state: &State, event: Event) -> After<State> {
        let (mut state, mut noted) = (*state, Noted::default());
        state.happen(event, self.flaw, &mut noted);
        After { broken: broken(&state), reached: noted.reached, state }
    }
}

/// What can be asked about a page within bounds.
fn asks(state: &State, gfn: u8) -> impl Iterator<Item = Ask> {
    let fresh = state.core.version(page(gfn)) < VERSIONS;
    let burning = [
        Ask::Map(Perm::Read),
        Ask::Seal,
        Ask::Share(Perm::Read, Term::Never),
        Ask::Share(Perm::ReadWrite, Term::Never),
    ];
    let quiet = [Ask::Unmap, Ask::Touch, Ask::Unshare, Ask::Destroy];
    let accepts = frames().map(Ask::Accept);
    burning.into_iter().filter(move |_| fresh).chain(quiet).chain(accepts)
}

/// The ids of what does not hold.
fn broken(state: &State) -> Vec<&'static str> {
    let glance = state.core.glance();
    let machine = &state.machine;
    let secret = |place: usize| machine.memory[place].is_secret();
    let quiet = |gfn: &u8| {
        matches!(glance.states[usize::from(*gfn)], PageState::Private | PageState::Replica)
    };
    let mut broken = Vec::new();
    if (0..PLACES).any(|place| machine.device_reaches(place) && secret(place)) {
        broken.push("C1");
    }
    let frame = |gfn: u8| state.core.frame(page(gfn)).map(usize::from);
    if (0..PAGES).filter(quiet).filter_map(frame).any(|place| machine.device_reaches(place)) {
        broken.push("C2");
    }
    if (0..PLACES).any(|place| is_nobodys(&glance, machine, place) && secret(place)) {
        broken.push("C8");
    }
    let latest = |gfn: u8| state.ghosts[usize::from(gfn)].latest;
    let finds = |gfn: u8, place: usize| machine.memory[place] == latest(gfn);
    let guest = |gfn: u8| Some((gfn, usize::from(machine.guest[usize::from(gfn)]?)));
    if glance.runs[0] && !(0..PAGES).filter_map(guest).all(|(gfn, place)| finds(gfn, place)) {
        broken.push("I1");
    }
    let own = |gfn: u8| Some((gfn, frame(gfn)?));
    if !(0..PAGES).filter(quiet).filter_map(own).all(|(gfn, place)| finds(gfn, place)) {
        broken.push("I5");
    }
    broken
}

/// Whether no page owns a place, or is about to.
fn is_nobodys(glance: &Glance, machine: &Machine, place: usize) -> bool {
    if place == REPLICA {
        return machine.replica_of.is_none();
    }
    matches!(glance.owners[place], Ownership::Free | Ownership::Offered(..))
}
