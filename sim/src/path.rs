//! The way to a counterexample, in the names of a run that anybody can play.
//!
//! What was explored are canonical states, each reached by an event of a canonical state. A run has
//! names of its own; at each step the event is found that leads to the same canonical state.

use crate::event::Event;
use crate::explore::Hunt;
use crate::lockstep::Lockstep;
use crate::resume::resume;
use crate::shard::Way;
use crate::state::State;
use crate::symmetry::Symmetry;
use crate::world::{World, play};

/// The events from the start to what does not hold.
pub(crate) fn trace(
    hunt: &Hunt<'_>,
    symmetry: &Symmetry,
    ways: impl Fn(u32) -> Way,
    last: Way,
    broken: &[&str],
) -> Vec<Event> {
    let mut back = Vec::new();
    let mut way = last;
    while !way.is_start() {
        back.push(way.event);
        way = ways(way.from);
    }
    let begin = play(hunt.config, hunt.mutant, hunt.config.setup(), |world| world.state_now());
    let (mut real, mut known) = (begin, canonical(symmetry, begin));
    let mut trace = Vec::new();
    for (left, event) in back.iter().enumerate().rev() {
        if left == 0 {
            let oracle = Lockstep::of(hunt.config, &real);
            let breaks = |event: Event, world: &mut World<'_>| {
                hunt.broken(&oracle, event, world).is_some_and(|ids| ids == broken)
            };
            trace.extend(find(hunt, &real, breaks).map(|(event, _)| event));
            break;
        }
        let (_, next) = after(hunt, &known, usize::from(*event));
        known = canonical(symmetry, next);
        let same =
            |_: Event, world: &mut World<'_>| canonical(symmetry, world.state_now()) == known;
        let (event, state) = find(hunt, &real, same).expect("an event of the same orbit");
        trace.push(event);
        real = state;
    }
    trace
}

fn canonical(symmetry: &Symmetry, mut state: State) -> State {
    symmetry.canonise(&mut state);
    state
}

/// An event of a state by its number.
fn after(hunt: &Hunt<'_>, state: &State, event: usize) -> (Event, State) {
    let events = resume(hunt.config, hunt.mutant, state, |world| world.enabled());
    let event = events[event];
    resume(hunt.config, hunt.mutant, state, |world| {
        world.apply(event);
        (event, world.state_now())
    })
}

/// The first event of a state after which something is so.
fn find(
    hunt: &Hunt<'_>,
    state: &State,
    is: impl Fn(Event, &mut World<'_>) -> bool,
) -> Option<(Event, State)> {
    let events = resume(hunt.config, hunt.mutant, state, |world| world.enabled());
    events.into_iter().find_map(|event| {
        resume(hunt.config, hunt.mutant, state, |world| {
            world.apply(event);
            is(event, world).then(|| (event, world.state_now()))
        })
    })
}
