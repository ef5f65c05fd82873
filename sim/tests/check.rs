//! The sound machine keeps every invariant in every published configuration, and something
//! interesting happens in each.

use sim::config::{CONFIGS, Config};
use sim::explore::{Hunt, explore};
use sim::report::Row;
use sim::sometimes::SOMETIMES;
use sim::study::{STUDIES, Wanted};
use sim::trace::Trace;

fn holds(name: &str) {
    let config = Config::named(name).expect("a published configuration");
    let outcome = explore(&Hunt::sound(config), |_, _| {});
    if let Some(violation) = &outcome.violation {
        panic!("{:?} broken:\n{}", violation.broken, Trace::new(config, None, violation));
    }
    let row = Row::of(config, &outcome, 0.0);
    assert!(row.is_fine(), "{row}");
}

#[test]
fn a_vm_is_built_launched_and_ended_in_safety() {
    holds("build");
}

#[test]
fn one_page_keeps_every_invariant() {
    holds("page");
}

#[test]
fn every_term_of_opening_keeps_every_invariant() {
    holds("terms");
}

#[test]
fn replayed_and_forged_pages_are_refused() {
    holds("replay");
}

#[test]
fn a_platform_may_fail_at_any_call() {
    holds("faults");
}

#[test]
fn two_batches_in_flight_keep_every_invariant() {
    holds("pages");
}

#[test]
fn pages_that_swap_frames_keep_every_invariant() {
    holds("swap");
}

#[test]
fn a_batch_of_two_may_be_dropped_or_fail_at_any_step() {
    holds("batch");
}

#[test]
fn two_vms_share_a_host_and_nothing_else() {
    holds("guests");
}

#[test]
fn a_host_may_crash_and_start_again() {
    holds("restart");
}

#[test]
fn every_sometimes_property_is_promised_by_a_configuration_that_every_test_run_explores() {
    let promised: Vec<&str> = CONFIGS
        .iter()
        .filter(|config| !config.deep)
        .flat_map(|config| config.reaches.iter().copied())
        .collect();
    for (name, _) in SOMETIMES {
        assert!(promised.contains(name), "nobody promises that {name}");
    }
    for name in promised {
        assert!(SOMETIMES.iter().any(|(known, _)| *known == name), "{name} is not known");
    }
}

#[test]
#[ignore = "minutes; `cargo run --release -p sim -- check` runs the same"]
fn deep_configurations_keep_every_invariant() {
    CONFIGS.iter().filter(|config| config.deep).for_each(|config| holds(config.name));
}

#[test]
fn one_exploration_is_like_another() {
    let config = Config::named("terms").expect("published");
    let [first, second] = [(); 2].map(|()| explore(&Hunt::sound(config), |_, _| {}));
    assert_eq!(
        (first.distinct_states, first.transitions, first.reached),
        (second.distinct_states, second.transitions, second.reached)
    );
}

#[test]
fn every_claim_holds_in_every_study_and_what_is_promised_happens() {
    for study in STUDIES {
        let row = Row::of_study(study, (study.explore)(Wanted::default()), 0.0);
        assert!(row.is_fine(), "{row}");
    }
}
