//! What can be said of a page without naming any: equal for pages that renaming exchanges.

use crate::bytes::{Bytes, PAGE_BITS, SEALED};
use crate::machine::{CPUS, FRAMES, PAGES, VM_PAGES, VMS};
use crate::rename::page_of;
use crate::state::{NONE, State};

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

/// One number a page.
pub(crate) fn signatures(state: &State) -> [[u64; VM_PAGES]; VMS] {
    let mut pages: [u64; PAGES] = std::array::from_fn(|at| of_page(state, at));
    // Sums, because what they are over has no order.
    for term in state.known.iter().take_while(|term| **term != 0) {
        let mut mix = Mix(u64::from(*term & NAMELESS));
        mix.word(0x6b6e);
        pages[page_of(*term)] = pages[page_of(*term)].wrapping_add(mix.0);
    }
    for frame in 0..FRAMES {
        if state.owners[frame] != 0 {
            let page = usize::from(state.owners[frame] >> 2);
            let mut mix = Mix(u64::from(state.owners[frame] & 3));
            of_place(&mut mix, state, page, frame);
            pages[page] = pages[page].wrapping_add(mix.0);
        }
    }
    for (place, of) in state.replica_of.iter().enumerate() {
        if let Some(page) = of.checked_sub(1) {
            let mut mix = Mix(0x7265);
            of_place(&mut mix, state, page.into(), FRAMES + place);
            pages[usize::from(page)] = pages[usize::from(page)].wrapping_add(mix.0);
        }
    }
    for (number, flight) in state.flights.iter().enumerate() {
        for plan in 0..usize::from(flight.plans) {
            let page = usize::from(flight.pages[plan]);
            let place = number << 8 | plan << 4 | usize::from(flight.steps) << 16;
            let mut mix = Mix(place as u64);
            mix.word(u64::from(flight.asks[plan][0]));
            pages[page] = pages[page].wrapping_add(mix.0);
        }
    }
    std::array::from_fn(|vm| std::array::from_fn(|page| pages[vm * VM_PAGES + page]))
}

/// Pages that nothing was ever done to: whichever order they are in, the state is the same.
pub(crate) fn untouched(state: &State) -> [[bool; VM_PAGES]; VMS] {
    let mut named = [false; PAGES];
    for term in state.known.iter().take_while(|term| **term != 0) {
        named[page_of(*term)] = true;
    }
    for owner in state.owners.into_iter().filter(|owner| *owner != 0) {
        named[usize::from(owner >> 2)] = true;
    }
    for page in state.replica_of.iter().filter_map(|of| of.checked_sub(1)) {
        named[usize::from(page)] = true;
    }
    for flight in &state.flights {
        for page in flight.pages.iter().take(flight.plans.into()) {
            named[usize::from(*page)] = true;
        }
    }
    let blank = |at: usize| {
        let bytes = [
            state.versions[at],
            state.ghosts[at],
            state.highest[at],
            state.terms[at],
            state.guest_table[at],
            state.first_frame[at],
            !state.frames[at],
        ];
        let words = [state.rows[at], state.tags[at], state.latest[at]];
        bytes == [0; 7]
            && words == [0; 3]
            && state.handed[at] == Bytes::PUBLIC.term()
            && state.tlb_guest.iter().all(|tlb| tlb[at] == 0)
    };
    std::array::from_fn(|vm| {
        std::array::from_fn(|page| {
            let at = vm * VM_PAGES + page;
            !named[at] && blank(at)
        })
    })
}

/// One number a VM.
pub(crate) fn vm_signature(state: &State, vm: usize, pages: &[u64; VM_PAGES]) -> u64 {
    let mut mix = Mix(pages.iter().fold(0, |sum, page| sum.wrapping_add(page.rotate_left(7))));
    let words = [state.building[vm], state.replicas[vm], state.stopped[vm], state.launched[vm]];
    mix.word(u64::from(u32::from_le_bytes(words)));
    mix.0
}

/// What a page's own fields say.
fn of_page(state: &State, at: usize) -> u64 {
    let mut mix = Mix(u64::from(state.rows[at]));
    let bytes = [
        state.versions[at],
        state.ghosts[at],
        state.highest[at],
        state.terms[at],
        u8::from(state.frames[at] == NONE),
        reach(state, at, state.guest_table[at]),
        0,
        0,
    ];
    mix.word(u64::from_le_bytes(bytes));
    mix.word(u64::from(told(state.handed[at], at)) << 32 | u64::from(told(state.latest[at], at)));
    mix.word(u64::from(told(state.tags[at], at)));
    // CPUs may swap, so a sum.
    let remembered = state.tlb_guest.iter().map(|tlb| 1_u64 << (8 * reach(state, at, tlb[at])));
    mix.word(remembered.sum());
    mix.0
}

/// Where a mapping of a page leads: nowhere, to its own frame, elsewhere.
fn reach(state: &State, at: usize, code: u8) -> u8 {
    match code.checked_sub(1) {
        None => 0,
        Some(place) if place == state.frames[at] => 1,
        Some(_) => 2,
    }
}

/// What a frame or a replica of a page is.
fn of_place(mix: &mut Mix, state: &State, page: usize, place: usize) {
    let own = u64::from(state.frames[page] == u8::try_from(place).unwrap_or(NONE));
    let remembered: u64 = (0..CPUS).map(|cpu| 1 << (4 * state.tlb_host[cpu][place])).sum();
    mix.word(u64::from(told(state.memory[place], page)) << 16 | remembered);
    mix.word(u64::from(state.host_table[place]) << 1 | own);
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
