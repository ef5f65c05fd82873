//! States under other names.

use crate::bytes::{PAGE_BITS, SEALED};
use crate::event::Ask;
use crate::machine::{CPUS, FRAMES, PAGES, PLACES, REPLICAS, VM_PAGES, VMS};
use crate::state::{NONE, State};

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

    /// The state with its pages renamed.
    pub(crate) fn renamed(&self, state: &State) -> State {
        let mut new = *state;
        if self.same {
            return new;
        }
        for (old, to) in self.pages.iter().enumerate() {
            let to = usize::from(*to);
            new.handed[to] = self.term(state.handed[old]);
            new.latest[to] = self.term(state.latest[old]);
            new.tags[to] = self.term(state.tags[old]);
            new.rows[to] = state.rows[old];
            new.frames[to] = state.frames[old];
            new.versions[to] = state.versions[old];
            new.ghosts[to] = state.ghosts[old];
            new.highest[to] = state.highest[old];
            new.terms[to] = state.terms[old];
            new.guest_table[to] = state.guest_table[old];
            new.first_frame[to] = state.first_frame[old];
            for cpu in 0..CPUS {
                new.tlb_guest[cpu][to] = state.tlb_guest[cpu][old];
            }
        }
        for (old, to) in self.vms.iter().enumerate() {
            let to = usize::from(*to);
            new.building[to] = state.building[old];
            new.replicas[to] = state.replicas[old];
            new.stopped[to] = state.stopped[old];
            new.launched[to] = state.launched[old];
        }
        new.memory = state.memory.map(|term| self.term(term));
        let known = state.known.iter().position(|term| *term == 0).unwrap_or(state.known.len());
        new.known[..known].iter_mut().for_each(|term| *term = self.term(*term));
        new.known[..known].sort_unstable();
        let page = |page: u8| self.pages[usize::from(page)];
        new.owners = state.owners.map(|owner| match owner {
            0 => 0,
            owner => owner & 3 | page(owner >> 2) << 2,
        });
        new.replica_of = state.replica_of.map(|of| of.checked_sub(1).map_or(0, |of| 1 + page(of)));
        for flight in &mut new.flights {
            let plans = usize::from(flight.plans);
            flight.pages[..plans].iter_mut().for_each(|of| *of = page(*of));
            flight.answers = flight.answers.map(|answer| self.term(answer));
        }
        new
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
        std::array::from_fn(|frame| (frame_key(state, frame), byte(frame)));
    let keys = &mut keys[..frames];
    if !keys.is_sorted() {
        keys.sort_unstable();
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

/// Sorts the places of the pool.
pub(crate) fn sort_replicas(state: &mut State) {
    let key = |place: usize| {
        let at = FRAMES + place;
        let tlb: [u8; CPUS] = std::array::from_fn(|cpu| state.tlb_host[cpu][at]);
        (state.replica_of[place], state.memory[at], state.host_table[at], tlb)
    };
    if key(0) > key(1) {
        let mut places: [u8; PLACES] = std::array::from_fn(byte);
        places.swap(FRAMES, FRAMES + 1);
        move_places(state, places);
        state.replica_of.swap(0, 1);
    }
}

const _: () = assert!(REPLICAS == 2);

/// Everything that is true of a frame, once pages have names.
fn frame_key(state: &State, frame: usize) -> u128 {
    let code = byte(frame) + 1;
    let is = |of: u8| of == code;
    let refers = |table: &[u8; PAGES]| bits(table.iter().map(|place| is(*place)));
    let mut key = Key(0);
    key.push(state.memory[frame].into(), 32);
    key.push(u64::from(state.host_table[frame]) << 8 | u64::from(state.owners[frame]), 16);
    for cpu in 0..CPUS {
        key.push(state.tlb_host[cpu][frame].into(), 2);
        key.push(refers(&state.tlb_guest[cpu]), 6);
    }
    key.push(bits(state.frames.iter().map(|of| *of == byte(frame))), 6);
    key.push(refers(&state.guest_table), 6);
    key.push(refers(&state.first_frame), 6);
    for flight in &state.flights {
        let plans = flight.asks.iter().take(flight.plans.into());
        key.push(bits(plans.map(|ask| names_frame(*ask) == Some(byte(frame)))), 2);
    }
    key.0
}

/// Fields side by side.
struct Key(u128);

impl Key {
    const fn push(&mut self, field: u64, width: u32) {
        self.0 = self.0 << width | field as u128;
    }
}

fn bits(flags: impl Iterator<Item = bool>) -> u64 {
    flags.fold(0, |word, flag| word << 1 | u64::from(flag))
}

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
    let old = *state;
    let code = |code: u8| code.checked_sub(1).map_or(0, |at| 1 + places[usize::from(at)]);
    for (from, to) in places.iter().enumerate() {
        let to = usize::from(*to);
        state.memory[to] = old.memory[from];
        state.host_table[to] = old.host_table[from];
        for cpu in 0..CPUS {
            state.tlb_host[cpu][to] = old.tlb_host[cpu][from];
        }
        if from < FRAMES {
            state.owners[to] = old.owners[from];
        }
    }
    state.guest_table = old.guest_table.map(code);
    state.first_frame = old.first_frame.map(code);
    state.tlb_guest = old.tlb_guest.map(|tlb| tlb.map(code));
    let frame = |frame: u8| if frame == NONE { NONE } else { places[usize::from(frame)] };
    state.frames = old.frames.map(frame);
    for flight in &mut state.flights {
        for ask in flight.asks.iter_mut().take(flight.plans.into()) {
            if let Some(of) = names_frame(*ask) {
                ask[1] = frame(of);
            }
        }
    }
}
