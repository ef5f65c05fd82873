//! To and fro: one run tries every event of a state and goes back after each, so that what an
//! event does not touch costs nothing.
//!
//! [`World::mark_at`] goes to a state and remembers it, [`World::take_after`] says what an event
//! made of it, [`World::back`] undoes that event. A test holds each against starting anew.

use crate::event::{Event, Phys};
use crate::host::Tables;
use crate::machine::{Machine, PAGES, VMS};
use crate::mutant::Mutant;
use crate::resume::tables;
use crate::state::{State, owner_code, perm_code, place_code};
use crate::world::{Ghost, World};

/// What a run goes back to.
#[derive(Debug)]
pub struct Mark {
    /// The state.
    pub state: State,
    /// The core's tables before the claims of batches under way.
    resting: Tables,
    /// The core's tables as they are.
    pub(crate) tables: Tables,
    machine: Machine,
    ghosts: [Ghost; PAGES],
    first_frame: [Option<Phys>; PAGES],
    launched: [bool; VMS],
}

impl World<'_> {
    /// Goes to a state, to come back to it.
    pub fn mark_at(&mut self, state: &State) -> Mark {
        let resting = tables(state);
        self.go_to_with(state, &resting);
        let flies = self.flights.iter().any(Option::is_some);
        Mark {
            state: *state,
            resting,
            tables: if flies { self.tables() } else { resting },
            machine: self.machine.clone(),
            ghosts: self.ghosts,
            first_frame: self.first_frame,
            launched: self.launched,
        }
    }

    /// The core's tables in the present life.
    pub(crate) fn tables(&self) -> Tables {
        self.storage.tables(self.vms, self.life)
    }

    /// Undoes the only event since the mark.
    pub fn back(&mut self, mark: &Mark, event: Event) {
        match event {
            Event::GuestLoad(cpu, page) => {
                let (cpu, at) = (usize::from(cpu), page.index());
                self.machine.tlbs[cpu].guest[at] = mark.machine.tlbs[cpu].guest[at];
            }
            Event::ManageLoad(cpu, place) => {
                let (cpu, at) = (usize::from(cpu), place.index());
                self.machine.tlbs[cpu].host[at] = mark.machine.tlbs[cpu].host[at];
            }
            Event::Offer(frame, _) | Event::Retract(frame, _) => {
                let frame = usize::from(frame);
                let owner = &self.storage.life(self.life).owners[frame];
                owner.put_word(mark.tables.owners[frame]);
            }
            Event::LaunchVm(vm) => {
                self.vm(vm).put_words(mark.tables.vms[usize::from(vm)]);
                self.launched = mark.launched;
            }
            Event::GuestStore(..)
            | Event::ManageStore(..)
            | Event::ManageMap(_)
            | Event::Hand(..)
            | Event::Tick => self.put_back(mark),
            Event::Begin(cpu, ..) => {
                let cpu = usize::from(cpu);
                // What it holds is given back before the tables are put back.
                self.flights[cpu] = self.flights[cpu].take().filter(|_| mark.state.flies(cpu));
                self.storage.put_now(self.vms, self.life, &mark.tables);
                self.put_back(mark);
            }
            Event::Claim(_)
            | Event::Join(..)
            | Event::Step(_)
            | Event::Fault(..)
            | Event::Drop(_) => {
                self.flights = [None, None];
                self.storage.put_now(self.vms, self.life, &mark.resting);
                self.put_back(mark);
                self.fly(&mark.state);
            }
            Event::Restart => self.go_to(&mark.state),
        }
    }

    /// Everything but tables and batches.
    fn put_back(&mut self, mark: &Mark) {
        self.machine.put_back(&mark.machine);
        self.ghosts = mark.ghosts;
        self.first_frame = mark.first_frame;
        self.launched = mark.launched;
        self.used = mark.state.used;
        (self.ticked, self.flush_due) = mark.state.flags();
    }

    /// Makes of the mark's state the state after the only event since.
    pub fn take_after(&self, mark: &Mark, event: Event, state: &mut State) {
        match event {
            Event::GuestLoad(cpu, page) => self.take_guest_memory(state, cpu, page.index()),
            Event::ManageLoad(cpu, place) => self.take_host_memory(state, cpu, place.index()),
            Event::Offer(frame, _) | Event::Retract(frame, _) => {
                let frame = usize::from(frame);
                let word = self.storage.life(self.life).owners[frame].word();
                // A frame that a batch has reserved is in the state as it was before.
                if word != mark.tables.owners[frame] {
                    state.places[frame].of = owner_code(word);
                }
            }
            Event::LaunchVm(vm) => {
                let row = &mut state.vms[usize::from(vm)];
                row.launched = u8::from(self.launched[usize::from(vm)]);
                // No page is being built or about to be, or it would have been refused.
                row.building |= row.launched << 7;
            }
            Event::GuestStore(cpu, page) if self.mutant != Some(Mutant::FlushesAfterStore) => {
                self.take_guest_memory(state, cpu, page.index());
                self.take_bytes(state);
            }
            Event::ManageStore(cpu, place) => {
                self.take_host_memory(state, cpu, place.index());
                self.take_bytes(state);
            }
            Event::Hand(page, _) => {
                state.pages[page.index()].handed = self.machine.handed[page.index()].term();
            }
            Event::GuestStore(..)
            | Event::ManageMap(_)
            | Event::Claim(_)
            | Event::Begin(..)
            | Event::Join(..)
            | Event::Step(_)
            | Event::Drop(_)
            | Event::Fault(..)
            | Event::Tick
            | Event::Restart => *state = self.state_now(),
        }
    }

    fn take_guest_memory(&self, state: &mut State, cpu: u8, page: usize) {
        let cpu = usize::from(cpu);
        state.pages[page].tlb[cpu] = place_code(self.machine.tlbs[cpu].guest[page]);
    }

    fn take_host_memory(&self, state: &mut State, cpu: u8, place: usize) {
        let cpu = usize::from(cpu);
        state.places[place].tlb[cpu] = perm_code(self.machine.tlbs[cpu].host[place]);
    }

    fn take_bytes(&self, state: &mut State) {
        for (row, bytes) in state.places.iter_mut().zip(self.machine.memory) {
            row.memory = bytes.term();
        }
        for (row, ghost) in state.pages.iter_mut().zip(&self.ghosts) {
            row.latest = ghost.latest.term();
        }
        state.used = self.used;
    }
}

impl Machine {
    /// Everything that outlasts an event.
    fn put_back(&mut self, old: &Self) {
        self.memory = old.memory;
        self.guest_table = old.guest_table;
        self.host_table = old.host_table;
        self.tlbs = old.tlbs;
        self.replica_of = old.replica_of;
        self.handed = old.handed;
        if self.known.len() != old.known.len() {
            self.known.clone_from(&old.known);
        }
    }
}
