//! Every state that can be reached within the bounds, breadth first: the first counterexample is
//! a shortest one.
//!
//! A state is kept as its digest and the event that led to it; to go on from it is to play its
//! trace again.

use std::collections::BTreeSet;

use crate::config::Config;
use crate::event::Event;
use crate::invariant;
use crate::mutant::Mutant;
use crate::sometimes::SOMETIMES;
use crate::world::{World, play};

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// States that differ.
    pub distinct_states: u64,
    /// Events that were tried in them.
    pub transitions: u64,
    /// What does not hold, with the shortest trace; exploration ends there.
    pub violation: Option<Violation>,
    /// The `sometimes` properties that were met.
    pub reached: BTreeSet<&'static str>,
    /// Whether the bound on states was hit before everything was seen.
    pub cut: bool,
}

/// A counterexample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The ids of what does not hold.
    pub broken: Vec<&'static str>,
    /// The events that lead there from the configuration's start.
    pub trace: Vec<Event>,
}

/// What to look for, and how long.
#[derive(Clone, Copy, Debug)]
pub struct Hunt<'a> {
    /// The bounds of the world.
    pub config: &'a Config,
    /// What is wrong with it.
    pub mutant: Option<Mutant>,
    /// Only this invariant; all if none is named.
    pub only: Option<&'a str>,
    /// How many states at most.
    pub states_max: u64,
}

impl<'a> Hunt<'a> {
    /// The sound machine against every invariant, to the end.
    pub const fn sound(config: &'a Config) -> Self {
        Self { config, mutant: None, only: None, states_max: u64::MAX }
    }
}

struct Node {
    parent: u32,
    event: Event,
}

/// Explores. `progress` hears of states and transitions now and then.
pub fn explore(hunt: &Hunt<'_>, mut progress: impl FnMut(u64, u64)) -> Outcome {
    let setup = hunt.config.setup();
    let mut outcome = Outcome { distinct_states: 1, ..Outcome::default() };
    let mut seen = BTreeSet::new();
    let mut nodes: Vec<Node> = Vec::new();
    let start = setup.iter().copied();
    let visit_start = |world: &mut World<'_>| visit(world, hunt.only, &mut outcome.reached);
    let (digest, broken) = play(hunt.config, hunt.mutant, start, visit_start);
    if !broken.is_empty() {
        outcome.violation = Some(Violation { broken, trace: Vec::new() });
        return outcome;
    }
    seen.insert(digest);
    let mut trace = setup.clone();
    let mut next = 0;
    loop {
        let events = play(hunt.config, hunt.mutant, trace.iter().copied(), |world| world.enabled());
        let parent = next;
        for event in events {
            outcome.transitions += 1;
            let played = trace.iter().copied().chain([event]);
            let visit = |world: &mut World<'_>| visit(world, hunt.only, &mut outcome.reached);
            let (digest, broken) = play(hunt.config, hunt.mutant, played, visit);
            if !broken.is_empty() {
                let mut trace = trace.split_off(setup.len());
                trace.push(event);
                outcome.violation = Some(Violation { broken, trace });
                return outcome;
            }
            if seen.insert(digest) {
                outcome.distinct_states += 1;
                nodes.push(Node { parent, event });
            }
        }
        if outcome.distinct_states >= hunt.states_max {
            outcome.cut = true;
            return outcome;
        }
        if next.is_multiple_of(4096) {
            progress(outcome.distinct_states, outcome.transitions);
        }
        // Node `n` is the state that `nodes[n - 1]` leads to; node 0 is the start.
        next += 1;
        if usize::try_from(next).unwrap_or(usize::MAX) > nodes.len() {
            return outcome;
        }
        trace.truncate(setup.len());
        lead_to(&nodes, next, &mut trace);
    }
}

fn visit(
    world: &World<'_>,
    only: Option<&str>,
    reached: &mut BTreeSet<&'static str>,
) -> (u128, Vec<&'static str>) {
    for (name, holds) in SOMETIMES {
        if !reached.contains(name) && holds(world) {
            reached.insert(name);
        }
    }
    (world.digest(), invariant::broken(world, only).collect())
}

fn lead_to(nodes: &[Node], mut at: u32, trace: &mut Vec<Event>) {
    let start = trace.len();
    while let Some(node) = at.checked_sub(1).and_then(|index| nodes.get(index as usize)) {
        trace.push(node.event);
        at = node.parent;
    }
    trace[start..].reverse();
}
