//! Going on from a state: tables, machine and batches become what it says.
//!
//! To go on with a batch is to claim, to decide and to take its steps again, from the platform's
//! answers. So the core that is explored is the shipped one, and no plan is ever made by anybody
//! else.

use crate::bytes::Bytes;
use crate::config::Config;
use crate::event::{Ask, PageRef, Phys, Term};
use crate::flight::ANSWERS;
use crate::host::Tables;
use crate::machine::{Noted, VM_PAGES};
use crate::mutant::Mutant;
use crate::state::{FlightState, LAUNCHED, NONE, State, VmRow, perm_of, place_of, term_of};
use crate::world::{Ghost, Just, World, roam};

/// The core's tables, before the claims of batches under way.
pub(crate) fn tables(state: &State) -> Tables {
    let page = |at: usize| {
        let row = &state.pages[at];
        let open = row.row & 0xf == 6;
        let lease = if open { at % VM_PAGES } else { usize::from(NONE) };
        let frame = if row.frame == NONE { 0 } else { row.frame };
        let control = u64::from(row.row) | u64::from(frame) << 24;
        let tag = if row.tag == 0 { 0 } else { Bytes::from_term(row.tag).packed() };
        [control, u64::from(row.version) | (lease as u64) << 56, tag, 0]
    };
    let lease = |at: usize| {
        let expiry = match term_of(state.pages[at].terms) {
            None => return [0; 2],
            Some(Term::Never) => u64::MAX,
            Some(Term::Once) => u64::MAX - 1,
            Some(Term::Tick) => 1,
        };
        [(at % VM_PAGES) as u64 | 1 << 63, expiry]
    };
    let owner = |frame: usize| {
        let of = state.places[frame].of;
        let (role, at) = (u64::from(of & 3), of >> 2);
        let page = PageRef::at(usize::from(at));
        if role == 0 { 0 } else { role | u64::from(page.vm) << 8 | u64::from(page.gfn) << 24 }
    };
    let vm = |vm: usize| {
        let VmRow { building, replicas, stopped, .. } = state.vms[vm];
        let launched = if building >> 7 != 0 { LAUNCHED } else { 0 };
        let count = u64::from(building & 0x7f);
        [count | launched, u64::from(replicas), u64::from(stopped)]
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
        self.go_to_with(state, &tables(state));
    }

    /// The same, with the tables that are the state's.
    pub(crate) fn go_to_with(&mut self, state: &State, tables: &Tables) {
        // What batches hold is given back first: it is overwritten here.
        self.flights = [None, None];
        self.life = usize::from(state.life);
        self.storage.put(self.vms, self.life, tables);
        for (at, row) in state.pages.iter().enumerate() {
            self.machine.handed[at] = Bytes::from_term(row.handed);
            self.machine.guest_table[at] = place_of(row.guest_table);
            self.first_frame[at] = place_of(row.first_frame);
            for (tlb, code) in self.machine.tlbs.iter_mut().zip(row.tlb) {
                tlb.guest[at] = place_of(code);
            }
            self.ghosts[at] = Ghost::resumed(row);
        }
        for (at, row) in state.places.iter().enumerate() {
            self.machine.memory[at] = Bytes::from_term(row.memory);
            self.machine.host_table[at] = perm_of(row.host_table);
            for (tlb, code) in self.machine.tlbs.iter_mut().zip(row.tlb) {
                tlb.host[at] = perm_of(code);
            }
            if let Phys::Replica(place) = Phys::at(at) {
                let of = row.of.checked_sub(1).map(|of| PageRef::at(usize::from(of)));
                self.machine.replica_of[usize::from(place)] = of;
            }
        }
        self.machine.known.clear();
        for term in &state.known[..usize::from(state.seals)] {
            if let Bytes::Sealed(seal) = Bytes::from_term(*term) {
                self.machine.known.push(seal).expect("as many as before");
            }
        }
        self.launched = state.vms.map(|vm| vm.launched != 0);
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
