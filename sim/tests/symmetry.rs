//! One state stands for all that differ from it in names only, and says for how many.

use sim::config::Config;
use sim::event::Event;
use sim::explore::{Hunt, ORACLE, explore};
use sim::mutant::{MUTANTS, Mutant};
use sim::resume::resume;
use sim::state::State;
use sim::symmetry::Symmetry;
use sim::trace::Trace;
use sim::twins::Twins;
use sim::world::play;

/// Explored with and without names that are interchangeable: the states that are stood for are
/// exactly those that there are.
fn represents_all(name: &str) {
    let config = Config::named(name).expect("published");
    let hunt = Hunt::sound(config);
    let with = explore(&hunt, |_, _| {});
    let without = explore(&Hunt { symmetry: false, ..hunt }, |_, _| {});
    assert!(!with.cut && !without.cut);
    assert_eq!(with.represented_states, without.distinct_states, "{name}");
    assert_eq!(without.represented_states, without.distinct_states);
    assert!(with.distinct_states * 2 < without.distinct_states, "{name}: nothing was saved");
    assert_eq!(with.reached, without.reached);
}

#[test]
fn pages_and_frames_are_interchangeable() {
    represents_all("names");
}

#[test]
fn guests_are_interchangeable() {
    represents_all("names-guests");
}

/// What is explored has names of its own; what is told has those of a run.
#[test]
fn every_counterexample_can_be_played() {
    for entry in MUTANTS {
        let config = Config::named(entry.config).expect("published");
        let hunt = Hunt::wrong(config, entry.mutant, None);
        let found = explore(&hunt, |_, _| {}).violation.expect("every mutant is caught");
        let trace = Trace::new(config, Some(entry), &found);
        assert_eq!(trace.broken(), found.broken, "{}:\n{trace}", entry.name);
        let plain = Hunt { symmetry: false, ..hunt };
        let plain = explore(&plain, |_, _| {}).violation.expect("every mutant is caught");
        assert_eq!(plain.trace.len(), found.trace.len(), "{}: not a shortest one", entry.name);
    }
}

/// A host that makes the core say what no oracle says, against an invariant that does not notice.
#[test]
fn an_oracle_that_disagrees_is_a_counterexample() {
    let config = Config::named("page").expect("published");
    let hunt = Hunt { oracle: true, ..Hunt::wrong(config, Mutant::ForgetsPlan, Some("C3")) };
    let found = explore(&hunt, |_, _| {}).violation.expect("a page that is held for ever");
    assert_eq!(found.broken, [ORACLE]);
    assert_eq!(explore(&Hunt { oracle: false, ..hunt }, |_, _| {}).violation, None);
}

/// What an event leads to has the name of what its first twin leads to, from every state of random
/// walks; and there are twins.
#[test]
fn twins_lead_to_the_same_but_for_names() {
    let mut twins_met = 0;
    for name in ["names", "names-guests", "default"] {
        let config = Config::named(name).expect("published");
        let symmetry = Symmetry::new(config, None, true);
        let after = |state: &State, event: Event| {
            let mut after = resume(config, None, state, |world| {
                world.apply(event);
                world.state_now()
            });
            symmetry.canonise(&mut after);
            after
        };
        let mut dice = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..40 {
            let mut state = play(config, None, config.setup(), |world| world.state_now());
            for _ in 0..60 {
                let twins = Twins::of(&symmetry, &state);
                let events = resume(config, None, &state, |world| world.enabled());
                for event in &events {
                    let first = twins.first(*event);
                    assert!(events.contains(&first), "{name}: {first} is no event, {event} is");
                    assert_eq!(after(&state, first), after(&state, *event), "{name}: {event}");
                    twins_met += u32::from(first != *event);
                }
                dice = dice.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
                let Some(last) = events.len().checked_sub(1) else { break };
                let pick = usize::try_from(dice >> 33).expect("31 bits") % (last + 1);
                state = after(&state, events[pick]);
            }
        }
    }
    assert!(twins_met > 10_000, "{twins_met}");
}
