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
use crate::signature::Described;
use crate::state::State;

/// Which names of a configuration are interchangeable.
#[derive(Clone, Copy, Debug)]
pub struct Symmetry {
    /// How many pages each VM has; 0 for a VM that is not there.
    pages: [usize; VMS],
    frames: usize,
    /// How many renamings there are.
    group: u64,
    /// Pages, VMs and frames are renamed.
    renames: bool,
    /// CPUs are: no platform makes one of them special.
    swaps_cpus: bool,
}

impl Symmetry {
    /// What is interchangeable in a configuration; nothing but CPUs and places of the pool if not
    /// `renames`.
    pub fn new(config: &Config, mutant: Option<Mutant>, renames: bool) -> Self {
        let pages = |vm: usize| config.pages.get(vm).map_or(0, |pages| usize::from(*pages));
        let (pages, frames) = (std::array::from_fn(pages), usize::from(config.frames));
        let [first, second] = pages;
        let swaps = if first == second { 2 } else { 1 };
        Self {
            pages,
            frames,
            group: swaps * factorial(first) * factorial(second) * factorial(frames),
            renames,
            swaps_cpus: config.cpus > 1 && mutant != Some(Mutant::FencesOneCpu),
        }
    }

    /// Whether pages, VMs and frames are renamed.
    pub(crate) const fn renames(&self) -> bool {
        self.renames
    }

    /// Whether CPUs are.
    pub(crate) const fn swaps_cpus(&self) -> bool {
        self.swaps_cpus
    }

    /// Makes of a state the one that stands for it; how many states that stands for.
    pub fn canonise(&self, state: &mut State) -> u64 {
        if self.swaps_cpus && !state.flights[0].is_some() {
            state.flights.swap(0, 1);
        }
        if !self.renames {
            self.settle(state, false);
            return 1;
        }
        // A page that is alone needs no description.
        if self.pages.iter().sum::<usize>() == 1 {
            return self.group / self.settle(state, true);
        }
        let known = Described::of(state);
        let ways = match self.only_names(state, &known) {
            Some(names) => {
                names.rename(state);
                self.settle(state, true)
            }
            None => self.least(state, &known),
        };
        let alike = (0..VMS).map(|vm| {
            known.untouched[vm][..self.pages[vm]].iter().filter(|untouched| **untouched).count()
        });
        self.group / (ways * alike.map(factorial).product::<u64>())
    }

    /// The names of pages and VMs, if what can be said of them leaves no choice: nearly always.
    fn only_names(&self, state: &State, known: &Described) -> Option<Names> {
        let mut vms = self.vm_orders(state, known);
        let (order, None) = (vms.next()?, vms.next()) else { return None };
        let pages = |vm: usize| only_order(self.pages[vm], known, vm);
        Some(Names::new(order, [pages(order[0])?, pages(order[1])?]))
    }

    /// Makes of the state the least of all orders that fit; in how many ways that can be done.
    fn least(&self, state: &mut State, known: &Described) -> u64 {
        let mut best: Option<(State, u64)> = None;
        for vms in self.vm_orders(state, known) {
            for first in orders(self.pages[vms[0]], known, vms[0]) {
                for second in orders(self.pages[vms[1]], known, vms[1]) {
                    let mut least = *state;
                    Names::new(vms, [first, second]).rename(&mut least);
                    let ways = self.settle(&mut least, true);
                    best = Some(match best {
                        Some((found, so_far)) if found == least => (found, so_far + ways),
                        Some((found, so_far)) if found < least => (found, so_far),
                        Some(_) | None => (least, ways),
                    });
                }
            }
        }
        let (least, ways) = best.expect("there is always an order");
        *state = least;
        ways
    }

    /// VMs in the order of what can be said of them: both ways if that is the same.
    fn vm_orders(
        &self,
        state: &State,
        known: &Described,
    ) -> impl Iterator<Item = [usize; VMS]> + use<> {
        let swappable = self.pages[0] == self.pages[1];
        let signature = |vm| if swappable { known.of_vm(state, vm) } else { vm as u64 };
        let [first, second] = [0, 1].map(signature);
        let orders = [(first <= second, [0, 1]), (second <= first, [1, 0])];
        orders.into_iter().filter_map(|(fits, order)| fits.then_some(order))
    }

    /// Makes of the state the least over CPUs, frames and places of the pool; in how many ways
    /// frames lead to it.
    fn settle(&self, state: &mut State, frames: bool) -> u64 {
        let sort = |state: &mut State| {
            sort_replicas(state);
            if frames { sort_frames(state, self.frames) } else { 1 }
        };
        match if self.swaps_cpus { cpu_order(state) } else { Some(Ordering::Less) } {
            Some(Ordering::Greater) => swap_cpus(state),
            Some(Ordering::Less | Ordering::Equal) => {}
            None => {
                let mut turned = *state;
                swap_cpus(&mut turned);
                let (ways, turned_ways) = (sort(state), sort(&mut turned));
                return match (*state).cmp(&turned) {
                    Ordering::Less => ways,
                    // Frames that swap when CPUs do lead to it in ways of their own.
                    Ordering::Equal => ways + turned_ways,
                    Ordering::Greater => {
                        *state = turned;
                        turned_ways
                    }
                };
            }
        }
        sort(state)
    }
}

/// Which CPU comes first, by what can be said of its memory without naming frames; `Equal` if both
/// remember the same, `None` if nothing tells them apart.
fn cpu_order(state: &State) -> Option<Ordering> {
    let alike = |[first, second]: [u8; CPUS]| first == second;
    if state.pages.iter().all(|row| alike(row.tlb)) && state.places.iter().all(|row| alike(row.tlb))
    {
        return Some(Ordering::Equal);
    }
    let mut memories = [0_u64; CPUS];
    for (at, row) in state.pages.iter().enumerate() {
        for (memory, code) in memories.iter_mut().zip(row.tlb) {
            let own = code == row.frame.wrapping_add(1);
            let reach = if code == 0 { 0 } else { 1 + u64::from(own) };
            *memory |= reach << (2 * at);
        }
    }
    for row in &state.places {
        let about = u64::from(row.memory) << 8 | u64::from(row.of);
        for (memory, perm) in memories.iter_mut().zip(row.tlb) {
            // A sum, because frames have no order yet.
            let weight = about.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            *memory = memory.wrapping_add((weight << 12).wrapping_mul(u64::from(perm)));
        }
    }
    let [first, second] = memories;
    Some(first.cmp(&second)).filter(|order| order.is_ne())
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
    known: &Described,
    vm: usize,
) -> impl Iterator<Item = [usize; VM_PAGES]> + use<> {
    let (signatures, untouched) = (known.signatures[vm], known.untouched[vm]);
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

/// The order of a VM's pages, if only one fits.
fn only_order(pages: usize, known: &Described, vm: usize) -> Option<[usize; VM_PAGES]> {
    let (signatures, untouched) = (&known.signatures[vm], &known.untouched[vm]);
    let mut order = [0, 1, 2];
    // Stable: untouched pages stay in order.
    order[..pages].sort_by_key(|page| signatures[*page]);
    let told_apart = |pair: &[usize]| {
        let [first, second] = [pair[0], pair[1]];
        signatures[first] < signatures[second] || untouched[first] && untouched[second]
    };
    order[..pages].windows(2).all(told_apart).then_some(order)
}

const _: () = assert!(PAGES == VMS * VM_PAGES && VMS == 2 && VM_PAGES == 3 && FRAMES == 4);
