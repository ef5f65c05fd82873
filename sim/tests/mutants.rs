//! Every mutant is caught by every invariant that says so, and every invariant catches one.

use std::collections::BTreeSet;

use sim::config::Config;
use sim::explore::{Hunt, explore};
use sim::invariant::INVARIANTS;
use sim::mutant::{Entry, MUTANTS};
use sim::report::without_mutant;

#[test]
fn every_mutant_is_caught_by_each_invariant_that_its_row_names() {
    for Entry { mutant, name, config, caught_by, .. } in MUTANTS {
        let config = Config::named(config).expect("a published configuration");
        assert!(!caught_by.is_empty(), "{name} survives");
        for id in *caught_by {
            let hunt = Hunt::wrong(config, *mutant, Some(id));
            let found = explore(&hunt, |_, _| {}).violation;
            let found = found.unwrap_or_else(|| panic!("{name} is not caught by {id}"));
            assert_eq!(found.broken, [*id]);
        }
    }
}

#[test]
fn every_invariant_catches_some_mutant() {
    let caught_by: BTreeSet<&str> =
        MUTANTS.iter().flat_map(|entry| entry.caught_by.iter().copied()).collect();
    assert_eq!(without_mutant(&caught_by), [""; 0], "what never fails says nothing");
    for id in caught_by {
        assert!(INVARIANTS.iter().any(|invariant| invariant.id == id), "{id} is no invariant");
    }
}

#[test]
fn names_of_mutants_and_invariants_are_used_once() {
    let names: BTreeSet<&str> = MUTANTS.iter().map(|entry| entry.name).collect();
    assert_eq!(names.len(), MUTANTS.len());
    let ids: BTreeSet<&str> = INVARIANTS.iter().map(|invariant| invariant.id).collect();
    assert_eq!(ids.len(), INVARIANTS.len());
}
