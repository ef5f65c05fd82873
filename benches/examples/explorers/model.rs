//! The world of a configuration as stateright asks for it: states, what can happen in each, and
//! what that leads to.
//!
//! States, their names, events and invariants are those of sim's own explorer, and invariants of
//! events are looked at after every event. The oracle of spec, promises and twins stay at home.

use std::cell::RefCell;
use std::hash::{Hash, Hasher};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::config::Config;
use sim::event::Event;
use sim::fingerprint::fingerprint;
use sim::host::Storage;
use sim::invariant::{Looks, broken_at};
use sim::mark::Mark;
use sim::mutant::Mutant;
use sim::resume::resume;
use sim::state::State;
use sim::symmetry::Symmetry;
use sim::world::{World, play};
use stateright::{Model, Property};

/// The one property.
const HOLDS: &str = "every invariant holds";

/// How a model comes to a state, where stateright hands one over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comes {
    /// In a new world each time: what sim offers to everybody.
    Anew,
    /// In a world that stays.
    Stays,
    /// In a world that stays and remembers where it is: the last event is undone, as sim's explorer
    /// does it.
    Back,
}

/// A configuration to explore.
#[derive(Debug)]
pub(crate) struct Explored {
    config: &'static Config,
    mutant: Option<Mutant>,
    /// Only this invariant; all if none is named.
    only: Option<&'static str>,
    symmetry: Symmetry,
    comes: Comes,
    transitions: AtomicU64,
}

/// A state, and whether an event led to it that must not happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reached {
    state: State,
    broken: bool,
}

/// Our own name of the state: no other hash of it is faster.
impl Hash for Reached {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        fingerprint(&self.state).hash(hasher);
        self.broken.hash(hasher);
    }
}

/// A world that stays, and the state that it was last at.
struct Stays {
    world: World<'static>,
    mark: Option<Mark>,
}

thread_local! {
    static STAYS: RefCell<Option<Stays>> = const { RefCell::new(None) };
}

impl Stays {
    /// Its tables are never given back: a checker has two threads.
    fn new(config: &'static Config, mutant: Option<Mutant>) -> Self {
        let storage = Box::leak(Box::new(Storage::new(config)));
        let vms = Box::leak(Box::new(storage.vms(config, mutant)));
        Self { world: World::new(config, mutant, storage, vms), mark: None }
    }

    fn mark_at(&mut self, state: &State) -> (&mut World<'static>, &Mark) {
        let mark = self.mark.take().filter(|mark| mark.state == *state);
        let mark = mark.unwrap_or_else(|| self.world.mark_at(state));
        (&mut self.world, self.mark.insert(mark))
    }
}

impl Explored {
    /// A sound world within a configuration's bounds, with one state for all that differ in names
    /// if `renames`.
    pub(crate) fn new(config: &'static Config, renames: bool, comes: Comes) -> Self {
        let symmetry = Symmetry::new(config, None, renames);
        Self { config, mutant: None, only: None, symmetry, comes, transitions: AtomicU64::new(0) }
    }

    /// How many events were tried.
    pub(crate) fn transitions(&self) -> u64 {
        self.transitions.load(Ordering::Relaxed)
    }

    fn with<R>(&self, then: impl FnOnce(&mut Stays) -> R) -> R {
        STAYS.with_borrow_mut(|stays| {
            let same = |Stays { world, .. }: &Stays| {
                ptr::eq(world.config, self.config) && world.mutant == self.mutant
            };
            let stays = match stays {
                Some(stays) if same(stays) => stays,
                other => other.insert(Stays::new(self.config, self.mutant)),
            };
            then(stays)
        })
    }

    /// Looks at a state.
    fn look<R>(&self, state: &State, then: impl FnOnce(&World<'_>) -> R) -> R {
        self.with(|stays| match self.comes {
            Comes::Anew => resume(self.config, self.mutant, state, |world| then(world)),
            Comes::Stays => {
                stays.world.go_to(state);
                then(&stays.world)
            }
            Comes::Back => then(stays.mark_at(state).0),
        })
    }

    fn holds(&self, reached: &Reached) -> bool {
        let holds = |world: &World<'_>| broken_at(world, self.only, Looks::AtState).is_none();
        !reached.broken && self.look(&reached.state, holds)
    }

    /// Lets an event happen: the state then, and whether it must not have happened.
    fn after(&self, state: &State, event: Event) -> (State, bool) {
        let breaks = |world: &World<'_>| broken_at(world, self.only, Looks::AtEvent).is_some();
        self.with(|stays| match self.comes {
            Comes::Anew => resume(self.config, self.mutant, state, |world| {
                world.apply(event);
                (world.state_now(), breaks(world))
            }),
            Comes::Stays => {
                stays.world.go_to(state);
                stays.world.apply(event);
                (stays.world.state_now(), breaks(&stays.world))
            }
            Comes::Back => {
                let (world, mark) = stays.mark_at(state);
                world.apply(event);
                let (mut after, broken) = (mark.state, breaks(world));
                world.take_after(mark, event, &mut after);
                world.back(mark, event);
                (after, broken)
            }
        })
    }
}

impl Model for Explored {
    type State = Reached;
    type Action = Event;

    fn init_states(&self) -> Vec<Reached> {
        let mut state =
            play(self.config, self.mutant, self.config.setup(), |world| world.state_now());
        self.symmetry.canonise(&mut state);
        vec![Reached { state, broken: false }]
    }

    fn actions(&self, reached: &Reached, events: &mut Vec<Event>) {
        *events = self.look(&reached.state, |world| world.enabled());
    }

    fn next_state(&self, reached: &Reached, event: Event) -> Option<Reached> {
        self.transitions.fetch_add(1, Ordering::Relaxed);
        let (mut state, broken) = self.after(&reached.state, event);
        self.symmetry.canonise(&mut state);
        Some(Reached { state, broken })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(HOLDS, Self::holds)]
    }
}

#[cfg(test)]
mod tests {
    use sim::explore::{Hunt, explore};
    use sim::mutant::MUTANTS;
    use stateright::Checker;

    use super::*;

    /// By a state that does not hold, and by an event. One thread finds a shortest way.
    #[test]
    fn machines_that_are_wrong_are_caught_here_too() {
        for (name, id) in [("skips-scrub", "C8"), ("runs-stopped", "I9")] {
            let wrong = MUTANTS.iter().find(|entry| entry.name == name).expect("a mutant");
            let config = Config::named(wrong.config).expect("published");
            let hunt = Hunt::wrong(config, wrong.mutant, Some(id));
            let shortest = explore(&hunt, |_, _| {}).violation.expect("it is caught").trace.len();
            for comes in [Comes::Anew, Comes::Stays, Comes::Back] {
                let symmetry = Symmetry::new(config, Some(wrong.mutant), true);
                let sound = Explored::new(config, true, comes);
                let model =
                    Explored { mutant: Some(wrong.mutant), only: Some(id), symmetry, ..sound };
                let found = model.checker().spawn_bfs().join().discovery(HOLDS);
                let found = found.expect("it is caught").into_actions().len();
                assert_eq!(found, shortest, "{name}, {comes:?}");
            }
        }
    }
}
