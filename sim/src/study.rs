//! Studies: small machines of their own, each around one part of the core, explored breadth first
//! like the page views.
//!
//! The page-view machine keeps tables flat, disks perfect and devices away, so that everything can
//! happen between any two steps. A study looks at one of these closely instead, in the same words:
//! claims, machines that are wrong on purpose, and what must be reached.

mod acts;
mod disk;
mod dma;
mod fooled;
mod guest;
mod image;
mod kept;
mod keys;
mod masks;
mod moment;
mod page_tables;
pub mod registers;
mod rounds;
mod signed;
mod small_vm;
mod snapshot;
mod spine;
mod tables;
mod tree;
mod two_runs;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// A claim that studies check; the page-view machine has its own list.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Its name for ever.
    pub id: &'static str,
    /// What is claimed, word for word as in spec/invariants.md.
    pub sentence: &'static str,
}

/// One thing that is wrong on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Wrong {
    /// Its name in spec/invariants.md and reports.
    pub name: &'static str,
    /// What is wrong.
    pub sentence: &'static str,
    /// Every claim that must catch it by itself.
    pub caught_by: &'static [&'static str],
}

/// What to look for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// The name of what is wrong.
    pub wrong: Option<&'static str>,
    /// Only this claim; all if none is named.
    pub only: Option<&'static str>,
}

/// A study: its bounds, its claims and how it is explored.
#[derive(Clone, Copy, Debug)]
pub struct Study {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// How far it looks.
    pub bounds: &'static str,
    /// What it claims, beside claims that others make too.
    pub claims: &'static [Claim],
    /// How it can be wrong.
    pub wrongs: &'static [Wrong],
    /// What must be reached: a model in which nothing interesting happens proves nothing.
    pub reaches: &'static [&'static str],
    /// Explores it.
    pub explore: fn(Wanted) -> Found,
}

/// Every study.
pub const STUDIES: &[&Study] = &[
    &two_runs::STUDY,
    &keys::STUDY,
    &snapshot::SNAPSHOT,
    &rounds::ROUNDS,
    &image::IMAGE,
    &tree::TREE,
    &disk::DISK,
    &wire::WIRE,
    &masks::STUDY,
    &registers::STUDY,
    &page_tables::STUDY,
    &tables::STUDY,
    &dma::STUDY,
];

impl Study {
    /// The study with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        STUDIES.iter().copied().find(|study| study.name == name)
    }
}

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// States that differ.
    pub distinct_states: u64,
    /// Events that were tried in them.
    pub transitions: u64,
    /// What does not hold, and the shortest way there; exploration ends with it.
    pub violation: Option<(Vec<&'static str>, Vec<String>)>,
    /// What was reached.
    pub reached: BTreeSet<&'static str>,
    /// Whether the bound on states was hit before everything was seen.
    pub cut: bool,
}

/// What an event leads to.
#[derive(Clone, Debug, Default)]
pub struct After<State> {
    /// The state then.
    pub state: State,
    /// The ids of what does not hold then.
    pub broken: Vec<&'static str>,
    /// What was reached by it.
    pub reached: Vec<&'static str>,
}

/// A machine whose states are plain data.
pub trait Model {
    /// A state; equal states have equal futures.
    type State: Clone + Ord;
    /// What can happen.
    type Event: Copy + Display;

    /// Where it starts.
    fn start(&self) -> Self::State;

    /// Everything that can happen in a state.
    fn events(&self, state: &Self::State) -> Vec<Self::Event>;

    /// What becomes of a state, and what does not hold then.
    fn apply(&self, state: &Self::State, event: Self::Event) -> After<Self::State>;
}

/// No study needs more.
const STATES_MAX: usize = 4_000_000;

/// Every state that can be reached, breadth first: the first counterexample is a shortest one.
pub fn explore<M: Model>(model: &M, wanted: Wanted) -> Found {
    let mut found = Found::default();
    let mut seen = BTreeMap::from([(model.start(), 0_usize)]);
    let mut ways: Vec<(usize, Option<M::Event>)> = vec![(0, None)];
    let mut level = vec![(model.start(), 0_usize)];
    while !level.is_empty() {
        let mut next = Vec::new();
        for (state, number) in &level {
            for event in model.events(state) {
                found.transitions += 1;
                let After { state, mut broken, reached } = model.apply(state, event);
                broken.retain(|id| wanted.only.is_none_or(|only| only == *id));
                found.reached.extend(reached);
                if !broken.is_empty() {
                    found.distinct_states = seen.len() as u64;
                    found.violation = Some((broken, trace(&ways, *number, event)));
                    return found;
                }
                if !seen.contains_key(&state) {
                    seen.insert(state.clone(), ways.len());
                    next.push((state, ways.len()));
                    ways.push((*number, Some(event)));
                }
            }
        }
        level = next;
        found.cut = seen.len() > STATES_MAX;
        if found.cut {
            break;
        }
    }
    found.distinct_states = seen.len() as u64;
    found
}

/// The events that lead to a state, and the one after them.
fn trace<Event: Copy + Display>(
    ways: &[(usize, Option<Event>)],
    mut number: usize,
    last: Event,
) -> Vec<String> {
    let mut events = vec![last.to_string()];
    while let (from, Some(event)) = ways[number] {
        events.push(event.to_string());
        number = from;
    }
    events.reverse();
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters to three; they must not both be at the top.
    struct Counters;

    impl Model for Counters {
        type State = (u8, u8);
        type Event = char;

        fn start(&self) -> (u8, u8) {
            (0, 0)
        }

        fn events(&self, &(left, right): &(u8, u8)) -> Vec<char> {
            [(left < 3).then_some('l'), (right < 3).then_some('r')].into_iter().flatten().collect()
        }

        fn apply(&self, &(left, right): &(u8, u8), event: char) -> After<(u8, u8)> {
            let state = if event == 'l' { (left + 1, right) } else { (left, right + 1) };
            let broken = if state == (3, 3) { vec!["top"] } else { Vec::new() };
            let reached = if state.0 == state.1 { vec!["even"] } else { Vec::new() };
            After { state, broken, reached }
        }
    }

    #[test]
    fn the_first_way_to_a_violation_is_a_shortest_one() {
        let found = explore(&Counters, Wanted::default());
        let (broken, trace) = found.violation.expect("the top is reached");
        assert_eq!(broken, ["top"]);
        assert_eq!(trace.concat(), "lllrrr");
        assert!(found.reached.contains("even"));
    }

    #[test]
    fn what_is_not_asked_for_does_not_end_the_search() {
        let found = explore(&Counters, Wanted { wrong: None, only: Some("else") });
        assert!(found.violation.is_none());
        assert_eq!((found.distinct_states, found.transitions), (16, 24));
    }
}
