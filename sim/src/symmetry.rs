//! Pages of a VM, VMs of a size, and frames are interchangeable: what can happen does not depend on
//! their names. So of all states that differ only in names, one is explored.
//!
//! The canonical state of an orbit is the least of those whose pages and VMs are in the order of
//! what can be said of them without names; ties are tried both ways. Once pages are named, a frame
//! is fully described by what it holds and by who refers to it, so sorting frames is exact. The
//! orbit's size follows from how many renamings lead to the canonical state (orbit and stabiliser).
//!
//! Names that no guest and no manager can tell apart are dropped without being counted: which CPU
//! remembers what, which place of the pool holds a replica, on which CPU a lone batch runs.

use std::cmp::Ordering;

use crate::config::Config;
use crate::machine::{CPUS, FRAMES, PAGES, VM_PAGES, VMS};
use crate::mutant::Mutant;
use crate::rename::{Names, sort_frames, sort_replicas};
use crate::signature::{signatures, untouched, vm_signature};
use crate::state::State;

/// Which names of a configuration are interchangeable.
#[derive(Clone, Copy, Debug)]
pub struct Symmetry {
    /// How many pages each VM has; 0 for a VM that is not there.
    pages: [usize; VMS],
    frames: usize,
    /// Pages, VMs and frames are renamed.
    renames: bool,
    /// CPUs are: no platform makes one of them special.
    swaps_cpus: bool,
}

/// A canonical state, and how many states it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Canonical {
    /// The state.
    pub state: State,
    /// The size of its orbit.
    pub represents: u64,
}

impl Symmetry {
    /// What is interchangeable in a configuration; nothing but CPUs and places of the pool if not
    /// `renames`.
    pub fn new(config: &Config, mutant: Option<Mutant>, renames: bool) -> Self {
        let pages = |vm: usize| config.pages.get(vm).map_or(0, |pages| usize::from(*pages));
        Self {
            pages: std::array::from_fn(pages),
            frames: usize::from(config.frames),
            renames,
            swaps_cpus: config.cpus > 1 && mutant != Some(Mutant::FencesOneCpu),
        }
    }

    /// The state that stands for this one.
    pub fn canonical(&self, state: &State) -> Canonical {
        let mut state = *state;
        if self.swaps_cpus && !state.flights[0].is_some() {
            state.flights.swap(0, 1);
        }
        if !self.renames {
            return Canonical { state: self.least(state, false).0, represents: 1 };
        }
        // A page that is alone needs no description.
        let alone = self.pages.iter().sum::<usize>() == 1;
        let signatures = if alone { [[0; VM_PAGES]; VMS] } else { signatures(&state) };
        let untouched = if alone { [[false; VM_PAGES]; VMS] } else { untouched(&state) };
        let mut best: Option<(State, u64)> = None;
        for vms in self.vm_orders(&state, &signatures) {
            let orders = |vm: usize| orders(self.pages[vm], &signatures[vm], &untouched[vm]);
            for first in orders(vms[0]) {
                for second in orders(vms[1]) {
                    let names = Names::new(vms, [first, second]);
                    let (least, ways) = self.least(names.renamed(&state), true);
                    best = Some(match best {
                        Some((found, so_far)) if found == least => (found, so_far + ways),
                        Some((found, so_far)) if found < least => (found, so_far),
                        Some(_) | None => (least, ways),
                    });
                }
            }
        }
        let (state, ways) = best.expect("there is always an order");
        let alike = (0..VMS).map(|vm| {
            untouched[vm][..self.pages[vm]].iter().filter(|untouched| **untouched).count()
        });
        let ways = ways * alike.map(factorial).product::<u64>();
        Canonical { state, represents: self.group() / ways }
    }

    /// How many renamings there are.
    fn group(&self) -> u64 {
        let swaps = if self.pages[0] == self.pages[1] { 2 } else { 1 };
        let pages: u64 = self.pages.iter().map(|pages| factorial(*pages)).product();
        swaps * pages * factorial(self.frames)
    }

    /// VMs in the order of what can be said of them: both ways if that is the same.
    fn vm_orders(
        &self,
        state: &State,
        signatures: &[[u64; VM_PAGES]; VMS],
    ) -> impl Iterator<Item = [usize; VMS]> + use<> {
        let swappable = self.pages[0] == self.pages[1];
        let [first, second] = [0, 1].map(|vm| vm_signature(state.vms[vm], &signatures[vm]));
        let straight = !swappable || first <= second;
        let turned = swappable && second <= first;
        let orders = [(straight, [0, 1]), (turned, [1, 0])];
        orders.into_iter().filter_map(|(fits, order)| fits.then_some(order))
    }

    /// The least state over CPUs, frames and places of the pool, and in how many ways frames lead
    /// to it.
    fn least(&self, mut state: State, frames: bool) -> (State, u64) {
        let sorted = |state: &mut State| {
            sort_replicas(state);
            if frames { sort_frames(state, self.frames) } else { 1 }
        };
        let order = if self.swaps_cpus { cpu_order(&state) } else { Some(Ordering::Less) };
        if order == Some(Ordering::Greater) {
            swap_cpus(&mut state);
        }
        if order.is_some() {
            let ways = sorted(&mut state);
            return (state, ways);
        }
        let mut turned = state;
        swap_cpus(&mut turned);
        let (ways, turned_ways) = (sorted(&mut state), sorted(&mut turned));
        match state.cmp(&turned) {
            Ordering::Less => (state, ways),
            Ordering::Greater => (turned, turned_ways),
            // Frames that swap when CPUs do lead to it in ways of their own.
            Ordering::Equal => (state, ways + turned_ways),
        }
    }
}

/// Which CPU comes first, by what can be said of its memory without naming frames; `Equal` if both
/// remember the same, `None` if nothing tells them apart.
fn cpu_order(state: &State) -> Option<Ordering> {
    let (mut memories, mut alike) = ([0_u64; CPUS], true);
    for (at, row) in state.pages.iter().enumerate() {
        let [first, second] = row.tlb;
        alike &= first == second;
        for (memory, code) in memories.iter_mut().zip(row.tlb) {
            let reach =
                if code == 0 { 0 } else { 1 + u64::from(code == row.frame.wrapping_add(1)) };
            *memory |= reach << (2 * at);
        }
    }
    for row in &state.places {
        let [first, second] = row.tlb;
        alike &= first == second;
        let about = u64::from(row.memory) << 8 | u64::from(row.of);
        for (memory, perm) in memories.iter_mut().zip(row.tlb) {
            // A sum, because frames have no order yet.
            let weight = about.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            *memory = memory.wrapping_add((weight << 12).wrapping_mul(u64::from(perm)));
        }
    }
    let [first, second] = memories;
    match first.cmp(&second) {
        _ if alike => Some(Ordering::Equal),
        Ordering::Equal => None,
        order => Some(order),
    }
}

fn swap_cpus(state: &mut State) {
    state.pages.iter_mut().for_each(|row| row.tlb.swap(0, 1));
    state.places.iter_mut().for_each(|row| row.tlb.swap(0, 1));
}

fn factorial(number: usize) -> u64 {
    (1..=number as u64).product()
}

/// Orders of up to three pages: which page comes first, second, third.
const ORDERS: [[usize; VM_PAGES]; 6] =
    [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]];

/// Orders of a VM's pages in which what can be said of them does not fall; of pages that nothing
/// was ever done to, one order.
fn orders(
    pages: usize,
    signatures: &[u64; VM_PAGES],
    untouched: &[bool; VM_PAGES],
) -> impl Iterator<Item = [usize; VM_PAGES]> + use<> {
    let (signatures, untouched) = (*signatures, *untouched);
    let all = match pages {
        0 | 1 => &ORDERS[..1],
        2 => &ORDERS[..2],
        _ => &ORDERS[..],
    };
    let rises = move |order: &&[usize; VM_PAGES]| {
        order[..pages].windows(2).all(|pair| {
            let [first, second] = [pair[0], pair[1]];
            let turned = untouched[first] && untouched[second] && first > second;
            signatures[first] <= signatures[second] && !turned
        })
    };
    all.iter().filter(rises).copied()
}

const _: () = assert!(PAGES == VMS * VM_PAGES && VMS == 2 && VM_PAGES == 3 && FRAMES == 4);
