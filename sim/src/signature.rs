//! What can be said of a page without naming any: equal for pages that renaming exchanges.

use crate::bytes::{PAGE_BITS, SEALED};
use crate::machine::{FRAMES, PAGES, VM_PAGES, VMS};
use crate::rename::page_of;
use crate::state::{NONE, PageRow, PlaceRow, State, VmRow};

const NAMELESS: u32 = !PAGE_BITS;

/// A running hash; not for enemies.
#[derive(Clone, Copy)]
struct Mix(u64);

impl Mix {
    const fn word(&mut self, word: u64) {
        let product = (self.0 ^ word) as u128 * 0x9e37_79b9_7f4a_7c15_u128;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }
}

/// What can be said of pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Described {
    /// One number a page.
    pub(crate) signatures: [[u64; VM_PAGES]; VMS],
    /// Pages that nothing was ever done to: whichever order they are in, the state is the same.
    pub(crate) untouched: [[bool; VM_PAGES]; VMS],
}

impl Described {
    pub(crate) fn of(state: &State) -> Self {
        let blank = blank(state);
        Self { signatures: signatures(state, &blank), untouched: untouched_of(state, &blank) }
    }

    /// One number a VM.
    pub(crate) fn of_vm(&self, state: &State, vm: usize) -> u64 {
        let VmRow { building, replicas, stopped, launched } = state.vms[vm];
        let words = u32::from_le_bytes([building, replicas, stopped, launched]);
        let sum = |sum: u64, page: &u64| sum.wrapping_add(page.rotate_left(7));
        let mut mix = Mix(self.signatures[vm].iter().fold(0, sum));
        mix.word(u64::from(words));
        mix.0
    }
}

fn signatures(state: &State, blank: &[bool; PAGES]) -> [[u64; VM_PAGES]; VMS] {
    let own = |at: usize| if blank[at] { 0 } else { of_page(&state.pages[at], at) };
    let mut pages: [u64; PAGES] = std::array::from_fn(own);
    let mut add = |page: usize, mix: Mix| pages[page] = pages[page].wrapping_add(mix.0);
    // Sums, because what they are over has no order.
    for term in &state.known[..usize::from(state.seals)] {
        let mut mix = Mix(u64::from(*term & NAMELESS));
        mix.word(0x6b6e);
        add(page_of(*term), mix);
    }
    for (place, row) in state.places.iter().enumerate() {
        let (role, page) = if place < FRAMES {
            (row.of & 3, row.of.checked_sub(1).map(|_| row.of >> 2))
        } else {
            (4, row.of.checked_sub(1))
        };
        if let Some(page) = page.map(usize::from) {
            let own = usize::from(state.pages[page].frame) == place;
            let mut mix = Mix(u64::from(role) << 1 | u64::from(own));
            mix.word(of_place(row, page));
            add(page, mix);
        }
    }
    for (number, flight) in state.flights.iter().enumerate() {
        for plan in 0..usize::from(flight.plans) {
            let place = number << 8 | plan << 4 | usize::from(flight.steps) << 16;
            let mut mix = Mix(place as u64);
            mix.word(u64::from(flight.asks[plan][0]));
            add(usize::from(flight.pages[plan]), mix);
        }
    }
    std::array::from_fn(|vm| std::array::from_fn(|page| pages[vm * VM_PAGES + page]))
}

/// Pages that nothing was ever done to.
pub(crate) fn untouched(state: &State) -> [[bool; VM_PAGES]; VMS] {
    untouched_of(state, &blank(state))
}

fn blank(state: &State) -> [bool; PAGES] {
    state.pages.map(|row| row == PageRow::BLANK)
}

fn untouched_of(state: &State, blank: &[bool; PAGES]) -> [[bool; VM_PAGES]; VMS] {
    let mut named = 0_u32;
    for term in &state.known[..usize::from(state.seals)] {
        named |= 1 << page_of(*term);
    }
    for row in state.places[..FRAMES].iter().filter(|row| row.of != 0) {
        named |= 1 << (row.of >> 2);
    }
    for of in state.places[FRAMES..].iter().filter_map(|row| row.of.checked_sub(1)) {
        named |= 1 << of;
    }
    for flight in &state.flights {
        for page in flight.pages.iter().take(flight.plans.into()) {
            named |= 1 << page;
        }
    }
    std::array::from_fn(|vm| {
        std::array::from_fn(|page| {
            let at = vm * VM_PAGES + page;
            named >> at & 1 == 0 && blank[at]
        })
    })
}

/// What a page's own fields say.
fn of_page(row: &PageRow, at: usize) -> u64 {
    let mut mix = Mix(u64::from(row.row) << 32 | u64::from(told(row.tag, at)));
    let reach = |code: u8| reach(row.frame, code);
    let [first, second] = row.tlb.map(reach);
    let bytes = [
        row.version,
        row.ghosts,
        row.highest,
        row.terms,
        u8::from(row.frame == NONE),
        reach(row.guest_table),
        // CPUs may swap: what both have, and how much.
        first ^ second,
        first + second,
    ];
    mix.word(u64::from_le_bytes(bytes));
    mix.word(u64::from(told(row.handed, at)) << 32 | u64::from(told(row.latest, at)));
    mix.0
}

/// Where a mapping of a page leads: nowhere, to its own frame, elsewhere.
fn reach(frame: u8, code: u8) -> u8 {
    match code.checked_sub(1) {
        None => 0,
        Some(place) if place == frame => 1,
        Some(_) => 2,
    }
}

/// What a frame or a replica of a page is.
fn of_place(row: &PlaceRow, page: usize) -> u64 {
    let [first, second] = row.tlb;
    let rights = [row.host_table, first ^ second, first + second, 0];
    u64::from(told(row.memory, page)) << 32 | u64::from(u32::from_le_bytes(rights))
}

/// A term as a page sees it: of itself, of another page of its VM, of another VM's.
fn told(term: u32, at: usize) -> u32 {
    if term & SEALED == 0 {
        return term;
    }
    let of = page_of(term);
    let relation = match (of == at, of / VM_PAGES == at / VM_PAGES) {
        (true, _) => 1,
        (false, true) => 2,
        (false, false) => 3,
    };
    term & NAMELESS | relation << 28
}
