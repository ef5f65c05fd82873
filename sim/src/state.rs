//! A state as plain data: everything that can make a difference later, and nothing else.
//!
//! A world borrows its tables, so it cannot be copied; a state can. [`World::state_now`] takes
//! one, [`World::go_to`](World::go_to) goes on from it. A batch under way is kept as what was
//! asked, how many steps were taken and what the platform answered: the table is kept as it was
//! before its claims.

use std::cmp::Ordering;

use view_core::Perm;
use zerocopy::{Immutable, IntoBytes};

use crate::bytes::{Bytes, term_of_packed};
use crate::event::{Ask, PageRef, Phys, Term};
use crate::flight::{ANSWERS, Answer, Flight, PLANS};
use crate::machine::{CPUS, KNOWN, PAGES, PLACES, VM_PAGES, VMS};
use crate::world::{Ghost, World};

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

/// What is known of a page.
#[derive(Clone, Copy, Debug, Default, Eq, PartialOrd, Ord, IntoBytes, Immutable)]
#[repr(C)]
pub struct PageRow {
    /// What the management side will hand over, as a [term](Bytes::term).
    pub handed: u32,
    /// What its owner would read.
    pub latest: u32,
    /// The seal whose tag its row holds.
    pub tag: u32,
    /// Its control word without the frame.
    pub row: u32,
    /// The frame of its row; 255 where that means nothing.
    pub frame: u8,
    /// How often it was sealed.
    pub version: u8,
    /// What only the checker knows, in bits.
    pub ghosts: u8,
    /// The highest version that was seen.
    pub highest: u8,
    /// How long it is open, for the core and for the checker.
    pub terms: u8,
    /// The nested table.
    pub guest_table: u8,
    /// Where it was first, for a wrong platform.
    pub first_frame: u8,
    /// What CPUs remember of it.
    pub tlb: [u8; CPUS],
    pub(crate) spare: [u8; 7],
}

/// By their bytes: rows are compared more often than anything else.
impl PartialEq for PageRow {
    fn eq(&self, other: &Self) -> bool {
        let [row, other]: [[u128; 2]; 2] =
            [zerocopy::transmute!(*self), zerocopy::transmute!(*other)];
        (row[0] ^ other[0]) | (row[1] ^ other[1]) == 0
    }
}

impl PageRow {
    /// A page that nothing was ever done to.
    pub(crate) const BLANK: Self = Self {
        handed: Bytes::PUBLIC.term(),
        latest: 0,
        tag: 0,
        row: 0,
        frame: NONE,
        version: 0,
        ghosts: 0,
        highest: 0,
        terms: 0,
        guest_table: 0,
        first_frame: 0,
        tlb: [0; CPUS],
        spare: [0; 7],
    };
}

impl PlaceRow {
    /// The page whose frame or replica it is.
    pub(crate) fn page(self, place: Phys) -> Option<usize> {
        match place {
            Phys::Frame(_) if self.of & 3 == 2 => Some(usize::from(self.of >> 2)),
            Phys::Frame(_) => None,
            Phys::Replica(_) => self.of.checked_sub(1).map(usize::from),
        }
    }

    /// All of it in one number.
    pub(crate) const fn word(self) -> u64 {
        let [first, second] = self.tlb;
        let rights = u32::from_le_bytes([self.host_table, first, second, self.of]);
        (self.memory as u64) << 32 | rights as u64
    }
}

/// What is known of a frame or a place of the pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, IntoBytes, Immutable)]
#[repr(C)]
pub struct PlaceRow {
    /// What it holds, as a [term](Bytes::term).
    pub memory: u32,
    /// The management side's rights.
    pub host_table: u8,
    /// What CPUs remember of these.
    pub tlb: [u8; CPUS],
    /// Role and page of a frame; whose replica it is, plus one.
    pub of: u8,
}

/// What is known of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, IntoBytes, Immutable)]
#[repr(C)]
pub struct VmRow {
    /// Pages being built, and whether it is launched.
    pub building: u8,
    /// Replicas that are out.
    pub replicas: u8,
    /// Whether it was stopped.
    pub stopped: u8,
    /// Whether it was launched, as the checker saw it.
    pub launched: u8,
}

/// A state. Names are numbers: a page by its place in arrays, a place by its own, plus one where 0
/// is for none.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
pub struct State {
    /// Pages.
    pub pages: [PageRow; PAGES],
    /// Frames, then the pool.
    pub places: [PlaceRow; PLACES],
    /// VMs.
    pub vms: [VmRow; VMS],
    /// Batches under way.
    pub flights: [FlightState; CPUS],
    /// Stores, drops, faults and plans so far.
    pub used: [u8; 4],
    /// Whether the clock ticked, and whether a wrong platform owes a flush.
    pub flags: u8,
    /// How often the host has started, less one.
    pub life: u8,
    /// How many seals were ever made.
    pub seals: u8,
    spare: u8,
    /// Them, sorted; zeroes behind them.
    pub known: [u32; KNOWN],
}

/// In the order of bytes: which one it is does not matter, only that there is one.
impl Ord for State {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for State {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for State {}

const ROW_BITS: u64 = (1 << 22) - 1;
const BUSY: u64 = 1 << 4;
pub(crate) const LAUNCHED: u64 = 1 << 63;
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

pub(crate) const fn perm_of(code: u8) -> Option<Perm> {
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

pub(crate) const fn term_of(code: u8) -> Option<Term> {
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

pub(crate) fn place_of(code: u8) -> Option<Phys> {
    Some(Phys::at(usize::from(code.checked_sub(1)?)))
}

impl World<'_> {
    /// The state that the run is in.
    pub fn state_now(&self) -> State {
        let mut state = State {
            pages: std::array::from_fn(|at| self.page_row(at)),
            places: std::array::from_fn(|at| self.place_row(at)),
            vms: std::array::from_fn(|vm| self.vm_row(vm)),
            flights: [FlightState::default(); CPUS],
            used: self.used,
            flags: u8::from(self.ticked) | u8::from(self.flush_due) << 1,
            life: small(self.life),
            seals: small(self.machine.known.len()),
            spare: 0,
            known: [0; KNOWN],
        };
        for (to, seal) in state.known.iter_mut().zip(&self.machine.known) {
            *to = Bytes::Sealed(*seal).term();
        }
        for (to, flight) in state.flights.iter_mut().zip(&self.flights) {
            if let Some(flight) = flight {
                *to = flight.state();
                self.unclaim(&mut state.pages, &mut state.places, &mut state.vms, flight);
            }
        }
        state
    }

    fn page_row(&self, at: usize) -> PageRow {
        let (page, ghost) = (PageRef::at(at), &self.ghosts[at]);
        let mut row = PageRow {
            handed: self.machine.handed[at].term(),
            latest: ghost.latest.term(),
            frame: NONE,
            ghosts: ghost.flags(),
            highest: low(ghost.highest),
            guest_table: place_code(self.machine.guest_table[at]),
            first_frame: place_code(self.first_frame[at]),
            tlb: [0, 1].map(|cpu: usize| place_code(self.machine.tlbs[cpu].guest[at])),
            ..PageRow::default()
        };
        if page.gfn < self.config.pages.get(usize::from(page.vm)).copied().unwrap_or(0) {
            self.take_row(&mut row, page, self.words(page));
        }
        row
    }

    fn place_row(&self, at: usize) -> PlaceRow {
        let of = match Phys::at(at) {
            Phys::Frame(frame) => {
                owner_code(self.storage.life(self.life).owners[usize::from(frame)].word())
            }
            Phys::Replica(place) => {
                let of = self.machine.replica_of[usize::from(place)];
                of.map_or(0, |page| 1 + small(page.index()))
            }
        };
        PlaceRow {
            memory: self.machine.memory[at].term(),
            host_table: perm_code(self.machine.host_table[at]),
            tlb: [0, 1].map(|cpu: usize| perm_code(self.machine.tlbs[cpu].host[at])),
            of,
        }
    }

    fn vm_row(&self, vm: usize) -> VmRow {
        let [building, replicas, stopped] = self.vms[self.life][vm].words();
        VmRow {
            building: low(building & 0x7f) | u8::from(building & LAUNCHED != 0) << 7,
            replicas: low(replicas),
            stopped: u8::from(stopped != 0),
            launched: u8::from(self.launched[vm]),
        }
    }

    /// The core's tables as they were before the claims of a batch under way.
    fn unclaim(
        &self,
        pages: &mut [PageRow; PAGES],
        places: &mut [PlaceRow; PLACES],
        vms: &mut [VmRow; VMS],
        flight: &Flight<'_>,
    ) {
        for asked in &flight.asks {
            self.take_row(&mut pages[asked.page.index()], asked.page, asked.row);
            let vm = &mut vms[usize::from(asked.page.vm)];
            vm.building -= u8::from(asked.building);
            vm.replicas -= u8::from(asked.replica);
            if let Ask::Accept(frame) | Ask::PageIn(frame) = asked.ask {
                let owner = &mut places[usize::from(frame)].of;
                if u64::from(*owner & 3) == ROLE_OWNED {
                    *owner = *owner & !3 | low(ROLE_OFFERED);
                }
            }
        }
    }

    /// A page's row without what means nothing in its state.
    fn take_row(&self, row: &mut PageRow, page: PageRef, words: [u64; 4]) {
        let [control, version, tag, _] = words;
        let (framed, tagged) = match control & 0xf {
            0 => (false, false),
            5 => (false, true),
            4 => (true, true),
            _ => (true, false),
        };
        let (framed, tagged) = if control & BUSY == 0 { (framed, tagged) } else { (true, true) };
        row.row = (control & ROW_BITS) as u32;
        row.frame = if framed { low(control >> 24) } else { NONE };
        row.version = low(version);
        row.tag = if tagged { term_of_packed(tag) } else { 0 };
        let ghost = self.ghost(page);
        let lease = low(version >> 56);
        let open = control & 0xf == 6;
        let lease = if open && lease != NONE { self.lease_term(page.vm, lease) } else { 0 };
        row.terms = lease | term_code(ghost.term) << 2 | perm_code(ghost.consent) << 4;
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

    pub(crate) fn resumed(row: &PageRow) -> Self {
        let flag = |bit: u8| row.ghosts >> bit & 1 != 0;
        Self {
            latest: Bytes::from_term(row.latest),
            consent: perm_of(row.terms >> 4),
            building: flag(3),
            reclaimed: flag(2),
            poisoned: flag(1),
            closed: flag(0),
            highest: u64::from(row.highest),
            term: term_of(row.terms >> 2),
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
                Answer::Tag(tag) => term_of_packed(tag_word(tag)),
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

    pub(crate) fn answer(&self, at: usize) -> Option<Answer> {
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
