//! One state stands for all that differ from it in names only, and says for how many.

use sim::config::Config;
use sim::explore::{Hunt, ORACLE, explore};
use sim::mutant::{MUTANTS, Mutant};
use sim::trace::Trace;

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
