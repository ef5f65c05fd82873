//! Every mutant is caught by every invariant that says so, and every invariant catches one.

use std::collections::BTreeSet;

use sim::config::Config;
use sim::explore::{Hunt, explore};
use sim::mutant::{Entry, MUTANTS};
use sim::report::{claims, without_mutant, wrong_machines};
use sim::study::{STUDIES, Wanted, Wrong};

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
fn everything_wrong_in_a_study_is_caught_by_each_claim_that_its_row_names() {
    for study in STUDIES {
        for Wrong { name, caught_by, .. } in study.wrongs {
            assert!(!caught_by.is_empty(), "{name} survives");
            for id in *caught_by {
                let found = (study.explore)(Wanted { wrong: Some(name), only: Some(id) });
                let (broken, _) =
                    found.violation.unwrap_or_else(|| panic!("{name} is not caught by {id}"));
                assert_eq!(broken, [*id]);
            }
        }
    }
}

#[test]
fn every_claim_catches_something_wrong() {
    let caught_by: BTreeSet<&str> =
        wrong_machines().into_iter().flat_map(|(_, _, caught_by)| caught_by).copied().collect();
    assert_eq!(without_mutant(&caught_by), [""; 0], "what never fails says nothing");
    for id in caught_by {
        assert!(claims().iter().any(|claim| claim.id == id), "{id} is no claim");
    }
}

#[test]
fn names_of_wrong_machines_and_claims_are_used_once() {
    let names: BTreeSet<&str> = wrong_machines().into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names.len(), wrong_machines().len());
    let ids: BTreeSet<&str> = claims().into_iter().map(|claim| claim.id).collect();
    assert_eq!(ids.len(), claims().len());
}
