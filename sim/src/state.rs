//! A state as plain data: everything that can make a difference later, and nothing else.
//!
//! A world borrows its tables, so it cannot be copied; a state can. [`World::state_now`] takes
//! one, [`resume`] goes on from it. A batch under way is kept as what was asked, how many steps
//! were taken and what the platform answered: the table is kept as it was before its claims, and to
//! go on is to claim, to decide and to take the steps again, from the answers. So the core that is
//! explored is the shipped one, and no plan is ever made by anybody else.

use view_core::Perm;
use zerocopy::{Immutable, IntoBytes};

use crate::bytes::Bytes;
use crate::config::Config;
use crate::event::{Ask, PageRef, Phys, Term};
use crate::flight::{ANSWERS, Answer, Flight, PLANS};
use crate::host::Tables;
use crate::machine::{CPUS, FRAMES, KNOWN, Noted, PAGES, PLACES, REPLICAS, Tlb, VM_PAGES, VMS};
use crate::mutant::Mutant;
use crate::world::{Ghost, Just, World, roam};

/// Where a byte names nothing.
pub(crate) const NONE: u8 = u8::MAX;

/// A batch under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, IntoBytes, Immutable)]
#[repr(C)]
pub struct FlightState {
    /// What the platform answered: tags as terms of sealed bytes, verdicts as 1 and 2.
    pub answers: [u32; ANSWERS],
    /// What was asked, as a code and its detail.
    pub asks: [[u8; 2]; PLANS],
    /// Of which pages.
    pub pages: [u8; PLANS],
    /// How many plans there are.
    pub plans: u8,
    /// How many steps were taken.
    pub steps: u8,
}

/// A state. Names are numbers: a page by its place in arrays, a place by its own, plus one where 0
/// is for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    /// What frames and replicas hold, as [terms](Bytes::term).
    pub memory: [u32; PLACES],
    /// What the management side will hand over.
    pub handed: [u32; PAGES],
    /// What owners would read.
    pub latest: [u32; PAGES],
    /// The seal whose tag a row holds.
    pub tags: [u32; PAGES],
    /// Control words without the frame.
    pub rows: [u32; PAGES],
    /// Every seal ever made, sorted; zeroes behind them.
    pub known: [u32; KNOWN],
    /// Batches under way.
    pub flights: [FlightState; CPUS],
    /// The frames of rows; 255 where they mean nothing.
    pub frames: [u8; PAGES],
    /// How often each page was sealed.
    pub versions: [u8; PAGES],
    /// What only the checker knows, in bits.
    pub ghosts: [u8; PAGES],
    /// The highest version that was seen.
    pub highest: [u8; PAGES],
    /// How long pages are open, for the core and for the checker.
    pub terms: [u8; PAGES],
    /// The nested tables.
    pub guest_table: [u8; PAGES],
    /// Where each page was first, for a wrong platform.
    pub first_frame: [u8; PAGES],
    /// What CPUs remember of guests' pages.
    pub tlb_guest: [[u8; PAGES]; CPUS],
    /// What CPUs remember of the management side's rights.
    pub tlb_host: [[u8; PLACES]; CPUS],
    /// The management side's rights.
    pub host_table: [u8; PLACES],
    /// Roles and pages of frames.
    pub owners: [u8; FRAMES],
    /// Whose replica each place of the pool holds.
    pub replica_of: [u8; REPLICAS],
    /// Pages being built, and whether the VM is launched.
    pub building: [u8; VMS],
    /// Replicas that are out.
    pub replicas: [u8; VMS],
    /// Which VMs were stopped.
    pub stopped: [u8; VMS],
    /// Which VMs were launched, as the checker saw it.
    pub launched: [u8; VMS],
    /// Stores, drops, faults and plans so far.
    pub used: [u8; 4],
    /// Whether the clock ticked, and whether a wrong platform owes a flush.
    pub flags: u8,
    /// How often the host has started, less one.
    pub life: u8,
}

const ROW_BITS: u64 = (1 << 22) - 1;
const BUSY: u64 = 1 << 4;
const LAUNCHED: u64 = 1 << 63;
const ROLE_OFFERED: u64 = 1;
const ROLE_OWNED: u64 = 2;

fn low(word: u64) -> u8 {
    u8::try_from(word & 0xff).unwrap_or(NONE)
}

fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(NONE)
}

pub(crate) const fn perm_code(perm: Option<Perm>) -> u8 {
    match perm {
        None => 0,
        Some(Perm::Read) => 1,
        Some(Perm::ReadWrite) => 2,
    }
}

const fn perm_of(code: u8) -> Option<Perm> {
    match code & 3 {
        0 => None,
        1 => Some(Perm::Read),
        _ => Some(Perm::ReadWrite),
    }
}

const fn term_code(term: Option<Term>) -> u8 {
    match term {
        None => 0,
        Some(Term::Never) => 1,
        Some(Term::Once) => 2,
        Some(Term::Tick) => 3,
    }
}

const fn term_of(code: u8) -> Option<Term> {
    match code & 3 {
        0 => None,
        1 => Some(Term::Never),
        2 => Some(Term::Once),
        _ => Some(Term::Tick),
    }
}

pub(crate) fn place_code(place: Option<Phys>) -> u8 {
    place.map_or(0, |place| 1 + small(place.index()))
}

/// The role and the page of a frame.
pub(crate) fn owner_code(word: u64) -> u8 {
    let page = (word >> 8 & 0xff) * VM_PAGES as u64 + (word >> 24);
    if word & 3 == 0 { 0 } else { low(word & 3) | low(page) << 2 }
}

fn place_of(code: u8) -> Option<Phys> {
    Some(Phys::at(usize::from(code.checked_sub(1)?)))
}

impl World<'_> {
    /// The state that the run is in.
    pub fn state_now(&self) -> State {
        let mut state = State {
            memory: self.machine.memory.map(Bytes::term),
            handed: self.machine.handed.map(Bytes::term),
            latest: self.ghosts.map(|ghost| ghost.latest.term()),
            tags: [0; PAGES],
            rows: [0; PAGES],
            known: [0; KNOWN],
            flights: [FlightState::default(); CPUS],
            frames: [NONE; PAGES],
            versions: [0; PAGES],
            ghosts: self.ghosts.map(|ghost| ghost.flags()),
            highest: self.ghosts.map(|ghost| low(ghost.highest)),
            terms: [0; PAGES],
            guest_table: self.machine.guest_table.map(place_code),
            first_frame: self.first_frame.map(place_code),
            tlb_guest: self.machine.tlbs.map(|tlb| tlb.guest.map(place_code)),
            tlb_host: self.machine.tlbs.map(|tlb| tlb.host.map(perm_code)),
            host_table: self.machine.host_table.map(perm_code),
            owners: [0; FRAMES],
            replica_of: self
                .machine
                .replica_of
                .map(|of| of.map_or(0, |page| 1 + small(page.index()))),
            building: [0; VMS],
            replicas: [0; VMS],
            stopped: [0; VMS],
            launched: self.launched.map(u8::from),
            used: self.used,
            flags: u8::from(self.ticked) | u8::from(self.flush_due) << 1,
            life: small(self.life),
        };
        for (to, seal) in state.known.iter_mut().zip(&self.machine.known) {
            *to = Bytes::Sealed(*seal).term();
        }
        self.take_tables(&mut state);
        for (to, flight) in state.flights.iter_mut().zip(&self.flights) {
            if let Some(flight) = flight {
                *to = flight.state();
            }
        }
        state
    }

    /// The core's tables, as they were before the claims of batches under way.
    fn take_tables(&self, state: &mut State) {
        let life = self.storage.life(self.life);
        for (to, owner) in state.owners.iter_mut().zip(&life.owners) {
            *to = owner_code(owner.word());
        }
        for (vm, _) in self.config.pages.iter().enumerate() {
            let [building, replicas, stopped] = self.vms[self.life][vm].words();
            state.building[vm] = low(building & 0x7f) | u8::from(building & LAUNCHED != 0) << 7;
            state.replicas[vm] = low(replicas);
            state.stopped[vm] = u8::from(stopped != 0);
        }
        for page in self.config.page_refs() {
            self.take_row(state, page, self.words(page));
        }
        for asked in self.flights.iter().flatten().flat_map(|flight| &flight.asks) {
            self.take_row(state, asked.page, asked.row);
            let vm = usize::from(asked.page.vm);
            state.building[vm] -= u8::from(asked.building);
            state.replicas[vm] -= u8::from(asked.replica);
            if let Ask::Accept(frame) | Ask::PageIn(frame) = asked.ask {
                let owner = &mut state.owners[usize::from(frame)];
                if u64::from(*owner & 3) == ROLE_OWNED {
                    *owner = *owner & !3 | low(ROLE_OFFERED);
                }
            }
        }
    }

    /// A page's row without what means nothing in its state.
    fn take_row(&self, state: &mut State, page: PageRef, [control, version, ..]: [u64; 4]) {
        let at = page.index();
        let (framed, tagged) = match control & 0xf {
            0 => (false, false),
            5 => (false, true),
            4 => (true, true),
            _ => (true, false),
        };
        let (framed, tagged) = if control & BUSY == 0 { (framed, tagged) } else { (true, true) };
        state.rows[at] = u32::try_from(control & ROW_BITS).unwrap_or(u32::MAX);
        state.frames[at] = if framed { low(control >> 24) } else { NONE };
        state.versions[at] = low(version);
        let [_, _, tag_low, _] = self.words(page);
        state.tags[at] = if tagged { Bytes::from_packed(tag_low).term() } else { 0 };
        let ghost = self.ghost(page);
        let lease = low(version >> 56);
        let open = control & 0xf == 6;
        let lease = if open && lease != NONE { self.lease_term(page.vm, lease) } else { 0 };
        state.terms[at] = lease | term_code(ghost.term) << 2 | perm_code(ghost.consent) << 4;
    }

    /// How long the core keeps a page open.
    fn lease_term(&self, vm: u8, lease: u8) -> u8 {
        let leases = &self.storage.life(self.life).leases[usize::from(vm)];
        let [_, expiry] = leases[usize::from(lease) % VM_PAGES].words();
        term_code(Some(match expiry {
            u64::MAX => Term::Never,
            1 => Term::Tick,
            _ => Term::Once,
        }))
    }
}

impl Ghost {
    fn flags(&self) -> u8 {
        let flags = [self.building, self.reclaimed, self.poisoned, self.closed];
        flags.into_iter().fold(0, |word, flag| word << 1 | u8::from(flag))
    }

    fn resumed(state: &State, at: usize) -> Self {
        let flag = |bit: u8| state.ghosts[at] >> bit & 1 != 0;
        Self {
            latest: Bytes::from_term(state.latest[at]),
            consent: perm_of(state.terms[at] >> 4),
            building: flag(3),
            reclaimed: flag(2),
            poisoned: flag(1),
            closed: flag(0),
            highest: u64::from(state.highest[at]),
            term: term_of(state.terms[at] >> 2),
        }
    }
}

impl Flight<'_> {
    fn state(&self) -> FlightState {
        let mut state = FlightState {
            plans: small(self.asks.len()),
            steps: self.steps,
            ..FlightState::default()
        };
        for (at, asked) in self.asks.iter().enumerate() {
            state.pages[at] = small(asked.page.index());
            let [code, detail, ..] = asked.ask.packed().to_le_bytes();
            state.asks[at] = [code, detail];
        }
        for (to, answer) in state.answers.iter_mut().zip(&self.answers) {
            *to = match answer {
                Answer::Tag(tag) => Bytes::from_packed(tag_word(tag)).term(),
                Answer::Genuine(genuine) => 1 + u32::from(*genuine),
            };
        }
        state
    }
}

fn tag_word(tag: &[u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *tag;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl FlightState {
    /// Whether there is a batch.
    pub const fn is_some(&self) -> bool {
        self.plans != 0
    }

    fn answer(&self, at: usize) -> Option<Answer> {
        Some(match self.answers[at] {
            0 => return None,
            1 => Answer::Genuine(false),
            2 => Answer::Genuine(true),
            term => Answer::Tag(u128::from(Bytes::from_term(term).packed()).to_le_bytes()),
        })
    }
}

impl State {
    /// Whether a batch is under way on a CPU.
    pub const fn flies(&self, cpu: usize) -> bool {
        self.flights[cpu].is_some()
    }

    /// Whether the clock ticked, and whether a wrong platform owes a flush.
    pub(crate) const fn flags(&self) -> (bool, bool) {
        (self.flags & 1 != 0, self.flags & 2 != 0)
    }
}

/// The core's tables, before the claims of batches under way.
pub(crate) fn tables(state: &State) -> Tables {
    let page = |at: usize| {
        let open = state.rows[at] & 0xf == 6;
        let lease = if open { at % VM_PAGES } else { usize::from(NONE) };
        let frame = if state.frames[at] == NONE { 0 } else { state.frames[at] };
        let control = u64::from(state.rows[at]) | u64::from(frame) << 24;
        let tag = if state.tags[at] == 0 { 0 } else { Bytes::from_term(state.tags[at]).packed() };
        [control, u64::from(state.versions[at]) | (lease as u64) << 56, tag, 0]
    };
    let lease = |at: usize| {
        let expiry = match term_of(state.terms[at]) {
            None => return [0; 2],
            Some(Term::Never) => u64::MAX,
            Some(Term::Once) => u64::MAX - 1,
            Some(Term::Tick) => 1,
        };
        [(at % VM_PAGES) as u64 | 1 << 63, expiry]
    };
    let owner = |frame: usize| {
        let (role, at) = (u64::from(state.owners[frame] & 3), state.owners[frame] >> 2);
        let page = PageRef::at(usize::from(at));
        if role == 0 { 0 } else { role | u64::from(page.vm) << 8 | u64::from(page.gfn) << 24 }
    };
    let vm = |vm: usize| {
        let building = state.building[vm];
        let launched = if building >> 7 != 0 { LAUNCHED } else { 0 };
        let count = u64::from(building & 0x7f);
        [count | launched, u64::from(state.replicas[vm]), u64::from(state.stopped[vm])]
    };
    Tables {
        rows: std::array::from_fn(page),
        leases: std::array::from_fn(lease),
        owners: std::array::from_fn(owner),
        vms: std::array::from_fn(vm),
    }
}

/// Goes on from a state.
pub fn resume<R>(
    config: &Config,
    mutant: Option<Mutant>,
    state: &State,
    then: impl FnOnce(&mut World<'_>) -> R,
) -> R {
    roam(config, mutant, |world| {
        world.go_to(state);
        then(world)
    })
}

impl World<'_> {
    /// Goes on from a state of the same configuration, wherever this run is.
    pub fn go_to(&mut self, state: &State) {
        // What batches hold is given back first: it is overwritten here.
        self.flights = [None, None];
        self.life = usize::from(state.life);
        self.storage.put(self.vms, self.life, &tables(state));
        let machine = &mut self.machine;
        machine.memory = state.memory.map(Bytes::from_term);
        machine.handed = state.handed.map(Bytes::from_term);
        machine.guest_table = state.guest_table.map(place_of);
        machine.host_table = state.host_table.map(perm_of);
        for (cpu, tlb) in machine.tlbs.iter_mut().enumerate() {
            *tlb = Tlb {
                guest: state.tlb_guest[cpu].map(place_of),
                host: state.tlb_host[cpu].map(perm_of),
            };
        }
        machine.replica_of =
            state.replica_of.map(|of| Some(PageRef::at(usize::from(of.checked_sub(1)?))));
        machine.known.clear();
        for term in state.known.into_iter().take_while(|term| *term != 0) {
            if let Bytes::Sealed(seal) = Bytes::from_term(term) {
                machine.known.push(seal).expect("as many as before");
            }
        }
        self.ghosts = std::array::from_fn(|at| Ghost::resumed(state, at));
        self.first_frame = state.first_frame.map(place_of);
        self.launched = state.launched.map(|launched| launched != 0);
        self.used = state.used;
        (self.ticked, self.flush_due) = state.flags();
        self.just = Just::default();
        self.machine.noted = Noted::default();
        self.fly(state);
    }

    /// The batches that were under way.
    pub(crate) fn fly(&mut self, state: &State) {
        for (cpu, flight) in state.flights.iter().enumerate() {
            if flight.is_some() {
                self.fly_again(cpu, flight);
            }
        }
    }

    /// Claims, decides and steps again.
    fn fly_again(&mut self, cpu: usize, flight: &FlightState) {
        let plans = usize::from(flight.plans);
        let asks = flight.pages.iter().zip(&flight.asks).take(plans);
        let asks =
            asks.map(|(page, ask)| (PageRef::at(usize::from(*page)), Ask::from_packed(*ask)));
        let answers = (0..ANSWERS).map_while(|at| flight.answer(at)).collect();
        self.flights[cpu] = Some(self.flown(asks, flight.steps, answers));
    }
}
