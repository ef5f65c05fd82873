//! States under other names.

use crate::bytes::{PAGE_BITS, SEALED};
use crate::event::Ask;
use crate::machine::{CPUS, FRAMES, PAGES, PLACES, REPLICAS, VM_PAGES, VMS};
use crate::state::{NONE, PageRow, State};

/// New names of pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// The new number of each VM.
    vms: [u8; VMS],
    /// The new place of each page in arrays.
    pages: [u8; PAGES],
    same: bool,
}

/// The place in arrays of the page that a term of sealed bytes names.
pub(crate) const fn page_of(term: u32) -> usize {
    (term >> 30 & 1) as usize * VM_PAGES + (term >> 28 & 3) as usize
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(NONE)
}

impl Names {
    /// VMs and their pages in this order: `orders[0]` is of the VM that comes first.
    pub(crate) fn new(order: [usize; VMS], orders: [[usize; VM_PAGES]; VMS]) -> Self {
        let (mut vms, mut pages) = ([0; VMS], [0; PAGES]);
        for (new_vm, (old_vm, order)) in order.into_iter().zip(orders).enumerate() {
            vms[old_vm] = byte(new_vm);
            for (new, old) in order.into_iter().enumerate() {
                pages[old_vm * VM_PAGES + old] = byte(new_vm * VM_PAGES + new);
            }
        }
        let same = pages.iter().enumerate().all(|(old, new)| byte(old) == *new);
        Self { vms, pages, same }
    }

    /// Renames pages and VMs.
    pub(crate) fn rename(&self, state: &mut State) {
        if self.same {
            return;
        }
        let (pages, vms) = (state.pages, state.vms);
        for (old, to) in pages.iter().zip(self.pages) {
            state.pages[usize::from(to)] = PageRow {
                handed: self.term(old.handed),
                latest: self.term(old.latest),
                tag: self.term(old.tag),
                ..*old
            };
        }
        for (old, to) in vms.iter().zip(self.vms) {
            state.vms[usize::from(to)] = *old;
        }
        let page = |page: u8| self.pages[usize::from(page)];
        for (place, row) in state.places.iter_mut().enumerate() {
            row.memory = self.term(row.memory);
            row.of = match row.of {
                0 => 0,
                owner if place < FRAMES => owner & 3 | page(owner >> 2) << 2,
                of => 1 + page(of - 1),
            };
        }
        let known = &mut state.known[..usize::from(state.seals)];
        known.iter_mut().for_each(|term| *term = self.term(*term));
        known.sort_unstable();
        for flight in &mut state.flights {
            let plans = usize::from(flight.plans);
            flight.pages[..plans].iter_mut().for_each(|of| *of = page(*of));
            flight.answers = flight.answers.map(|answer| self.term(answer));
        }
    }

    fn term(&self, term: u32) -> u32 {
        if term & SEALED == 0 {
            return term;
        }
        let page = usize::from(self.pages[page_of(term)]);
        term & !PAGE_BITS | ((page / VM_PAGES) as u32) << 30 | ((page % VM_PAGES) as u32) << 28
    }
}

/// Sorts frames by what they hold and by who refers to them; in how many ways that could have been
/// done.
pub(crate) fn sort_frames(state: &mut State, frames: usize) -> u64 {
    if frames < 2 {
        return 1;
    }
    let mut keys: [(u128, u8); FRAMES] =
        std::array::from_fn(|frame| (u128::from(state.places[frame].word()) << 64, byte(frame)));
    let keys = &mut keys[..frames];
    sort(keys);
    if keys.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        let refers = refers(state);
        keys.iter_mut().for_each(|(key, frame)| *key |= u128::from(refers[usize::from(*frame)]));
        sort(keys);
    }
    if keys.iter().enumerate().any(|(new, (_, old))| byte(new) != *old) {
        let mut places: [u8; PLACES] = std::array::from_fn(byte);
        for (new, (_, old)) in keys.iter().enumerate() {
            places[usize::from(*old)] = byte(new);
        }
        move_places(state, places);
    }
    let mut ways = 1;
    let mut run = 1;
    for pair in keys.windows(2) {
        run = if pair[0].0 == pair[1].0 { run + 1 } else { 1 };
        ways *= run;
    }
    ways
}

/// Few, and nearly in order.
fn sort(keys: &mut [(u128, u8)]) {
    for end in 1..keys.len() {
        for at in (0..end).rev() {
            if keys[at] <= keys[at + 1] {
                break;
            }
            keys.swap(at, at + 1);
        }
    }
}

/// Sorts the places of the pool.
pub(crate) fn sort_replicas(state: &mut State) {
    let key = |place: usize| (state.places[place].of, state.places[place].word());
    if key(FRAMES) > key(FRAMES + 1) {
        let mut places: [u8; PLACES] = std::array::from_fn(byte);
        places.swap(FRAMES, FRAMES + 1);
        move_places(state, places);
    }
}

const _: () = assert!(REPLICAS == 2);

/// Who refers to a frame, in bits. With what its place says of it, that is everything that is true
/// of it, once pages have names.
pub(crate) fn refers(state: &State) -> [u64; FRAMES] {
    let mut refers = [0; FRAMES];
    let mut refer = |frame: u8, bit: usize| {
        if let Some(word) = refers.get_mut(usize::from(frame)) {
            *word |= 1_u64 << bit;
        }
    };
    for (at, row) in state.pages.iter().enumerate() {
        let [first, second] = row.tlb;
        refer(row.frame, at);
        for (kind, code) in [row.guest_table, row.first_frame, first, second].iter().enumerate() {
            refer(code.wrapping_sub(1), (kind + 1) * 8 + at);
        }
    }
    for (number, flight) in state.flights.iter().enumerate() {
        for (plan, ask) in flight.asks.iter().take(flight.plans.into()).enumerate() {
            refer(names_frame(*ask).unwrap_or(NONE), 40 + 4 * number + plan);
        }
    }
    refers
}

const _: () = assert!(PAGES <= 8 && CPUS == 2);

/// The frame that an ask is about.
const fn names_frame(ask: [u8; 2]) -> Option<u8> {
    if let Ask::Accept(frame) | Ask::PageIn(frame) = Ask::from_packed(ask) {
        Some(frame)
    } else {
        None
    }
}

/// Moves frames and replicas: `places` has the new place of each.
fn move_places(state: &mut State, places: [u8; PLACES]) {
    let old = state.places;
    for (row, to) in old.iter().zip(places) {
        state.places[usize::from(to)] = *row;
    }
    let code = |code: u8| code.checked_sub(1).map_or(0, |at| 1 + places[usize::from(at)]);
    let frame = |frame: u8| if frame == NONE { NONE } else { places[usize::from(frame)] };
    for row in &mut state.pages {
        row.guest_table = code(row.guest_table);
        row.first_frame = code(row.first_frame);
        row.tlb = row.tlb.map(code);
        row.frame = frame(row.frame);
    }
    for flight in &mut state.flights {
        for ask in flight.asks.iter_mut().take(flight.plans.into()) {
            if let Some(of) = names_frame(*ask) {
                ask[1] = frame(of);
            }
        }
    }
}
