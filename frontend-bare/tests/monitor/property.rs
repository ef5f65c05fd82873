//! Random hypervisors and guests: whatever they do, what must be true is true after each step.

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::step::steps;
use crate::world::World;

/// Everything that has to come up for the property to say anything.
const INTERESTING: &[&str] = &[
    "launch",
    "read back",
    "guest left at a page",
    "registers",
    "forged",
    "foreign",
    "changed",
    "event",
    "given up",
    "ended",
    "share",
    "unshare",
    "record",
    "moved",
    "not entered",
    "entered before launch",
    "operand refused",
    "page read",
    "page written",
    "spy",
    "shut down",
];

#[test]
fn no_hypervisor_finds_a_secret_or_changes_a_guest() {
    let config = Config { failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    let counts = RefCell::new(&mut seen);
    let played = TestRunner::new_with_rng(config, rng).run(&steps(), |steps| {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        for (what, count) in &world.seen {
            *counts.borrow_mut().entry(what).or_default() += count;
        }
        Ok(())
    });
    if let Err(error) = played {
        panic!("{error}");
    }
    let missing: Vec<_> = INTERESTING.iter().filter(|what| !seen.contains_key(**what)).collect();
    assert!(missing.is_empty(), "{missing:?} never came up: {seen:?}");
}
