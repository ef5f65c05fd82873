//! Every state that can be reached within the bounds, breadth first: the first counterexample is
//! a shortest one.
//!
//! Two workers share the work of a block of states, and each owns half of the names that were seen.
//! First both look ahead: what every event leads to, canonical, checked, and not yet seen by
//! anybody. Then each takes in what belongs to its half, in the order of the block. So what is
//! found, and in which order, does not depend on which worker was faster.

use std::collections::BTreeSet;
use std::thread;

use crate::config::Config;
use crate::event::Event;
use crate::fingerprint::{Fingerprint, fingerprint};
use crate::invariant::{self, Looks};
use crate::lockstep::Lockstep;
use crate::mutant::Mutant;
use crate::path;
use crate::seen::Seen;
use crate::sometimes::{SOMETIMES, Sometimes};
use crate::state::State;
use crate::symmetry::{Canonical, Symmetry};
use crate::world::{World, play, roam};

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// States that differ in more than names.
    pub distinct_states: u64,
    /// States that differ at all, which these stand for.
    pub represented_states: u64,
    /// Events that were tried in them.
    pub transitions: u64,
    /// What does not hold, with the shortest trace; exploration ends there.
    pub violation: Option<Violation>,
    /// The `sometimes` properties that were met.
    pub reached: BTreeSet<&'static str>,
    /// How many events the longest shortest trace has.
    pub depth: u32,
    /// Whether a bound on states or memory was hit before everything was seen.
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
    /// How many bytes at most, for names, ways and states that wait.
    pub memory_max: usize,
    /// Whether one state stands for all that differ in names only.
    pub symmetry: bool,
    /// Whether the oracle of spec goes along, and must agree.
    pub oracle: bool,
}

/// What is broken when the oracle of spec does not agree with the core.
pub const ORACLE: &str = "oracle";

/// What fits the smallest machine that this should run on.
const MEMORY_MAX: usize = 4 << 30;

impl<'a> Hunt<'a> {
    /// The sound machine against every invariant, to the end.
    pub const fn sound(config: &'a Config) -> Self {
        Self {
            config,
            mutant: None,
            only: None,
            states_max: u64::MAX,
            memory_max: MEMORY_MAX,
            symmetry: true,
            oracle: true,
        }
    }

    /// A wrong machine, against one invariant or all. It may make the core do what no oracle says.
    pub const fn wrong(config: &'a Config, mutant: Mutant, only: Option<&'a str>) -> Self {
        Self { mutant: Some(mutant), only, oracle: false, ..Self::sound(config) }
    }

    /// What does not hold after an event of a state, among what looks at this or at more.
    pub(crate) fn broken(
        &self,
        oracle: &Lockstep,
        event: Event,
        world: &World<'_>,
        looks: Looks,
    ) -> Option<Vec<&'static str>> {
        let broken = invariant::broken_at(world, self.only, looks);
        let agrees = || !self.oracle || { *oracle }.follow(event, world).is_ok();
        broken.or_else(|| (!agrees()).then(|| vec![ORACLE]))
    }
}

/// How many workers there are, and how many halves of the names that were seen.
pub const WORKERS: usize = 2;

/// How many states are looked ahead from at once.
const BLOCK: usize = 4096;

/// How a state was first reached: from which, by which of its events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) from: u32,
    pub(crate) event: u16,
}

impl Way {
    /// The start's: there is no such event.
    const START: Self = Self { from: 0, event: u16::MAX };

    pub(crate) const fn is_start(self) -> bool {
        self.event == u16::MAX
    }
}

/// A state that waits to be gone on from.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    number: u32,
    state: State,
}

/// What one event leads to, not seen before.
#[derive(Clone, Copy, Debug)]
struct Found {
    name: Fingerprint,
    way: Way,
    represents: u64,
    state: State,
}

/// What one worker owns: the names whose lowest bits are its number.
#[derive(Debug, Default)]
struct Shard {
    seen: Seen,
    ways: Vec<Way>,
    waiting: Vec<Waiting>,
    represented: u64,
}

/// What one worker found ahead of its part of a block.
#[derive(Debug, Default)]
struct Ahead {
    found: [Vec<Found>; WORKERS],
    /// What the events of one state lead to.
    next: Vec<Found>,
    transitions: u64,
    reached: BTreeSet<&'static str>,
    broken: Option<(Way, Vec<&'static str>)>,
}

/// Explores. `progress` hears of states and transitions now and then.
pub fn explore(hunt: &Hunt<'_>, mut progress: impl FnMut(u64, u64)) -> Outcome {
    let search = Search::new(hunt);
    let mut outcome = Outcome::default();
    let mut shards: [Shard; WORKERS] = Default::default();
    let mut promises = Promises::new(hunt.config);
    let (first, broken) = search.start(&mut promises, &mut outcome.reached);
    if !broken.is_empty() {
        outcome.violation = Some(Violation { broken, trace: Vec::new() });
    }
    let start = Found { name: fingerprint(&first.state), ..first };
    shards[shard_of(start.name)].take(shard_of(start.name), &start);
    while outcome.violation.is_none() && !outcome.cut {
        let level: Vec<Waiting> =
            shards.iter_mut().flat_map(|shard| std::mem::take(&mut shard.waiting)).collect();
        if level.is_empty() {
            break;
        }
        for block in level.chunks(BLOCK) {
            search.block(block, &mut shards, &mut promises, &mut outcome);
            let states = shards.iter().map(|shard| shard.ways.len() as u64).sum();
            let bytes: usize = shards.iter().map(Shard::bytes).sum();
            let bytes = bytes + size_of_val(level.as_slice());
            outcome.distinct_states = states;
            outcome.cut = states >= hunt.states_max || bytes > hunt.memory_max;
            progress(states, outcome.transitions);
            if outcome.violation.is_some() || outcome.cut {
                break;
            }
        }
        outcome.depth += u32::from(shards.iter().any(|shard| !shard.waiting.is_empty()));
    }
    outcome.distinct_states = shards.iter().map(|shard| shard.ways.len() as u64).sum();
    outcome.represented_states = shards.iter().map(|shard| shard.represented).sum();
    outcome
}

const fn shard_of(name: Fingerprint) -> usize {
    name as usize % WORKERS
}

impl Shard {
    /// Takes in a state, if it is new.
    fn take(&mut self, shard: usize, found: &Found) {
        if self.seen.insert(found.name) {
            let number = self.ways.len() * WORKERS + shard;
            let number = u32::try_from(number).expect("memory ends before numbers do");
            self.ways.push(found.way);
            self.represented += found.represents;
            self.waiting.push(Waiting { number, state: found.state });
        }
    }

    fn bytes(&self) -> usize {
        self.seen.bytes()
            + self.ways.capacity() * size_of::<Way>()
            + self.waiting.capacity() * size_of::<Waiting>()
    }
}

/// What stays the same while exploring.
struct Search<'a> {
    hunt: &'a Hunt<'a>,
    symmetry: Symmetry,
}

impl<'a> Search<'a> {
    fn new(hunt: &'a Hunt<'a>) -> Self {
        let symmetry = Symmetry::new(hunt.config, hunt.mutant, hunt.symmetry);
        Self { hunt, symmetry }
    }

    fn start(
        &self,
        promises: &mut Promises,
        reached: &mut BTreeSet<&'static str>,
    ) -> (Found, Vec<&'static str>) {
        let Hunt { config, mutant, only, .. } = *self.hunt;
        play(config, mutant, config.setup(), |world| {
            promises.note(world, reached);
            let canonical = self.symmetry.canonical(world.state_now());
            let found = Found {
                name: 0,
                way: Way::START,
                represents: canonical.represents,
                state: canonical.state,
            };
            (found, invariant::broken(world, only).collect())
        })
    }

    /// Goes on from every state of a block.
    fn block(
        &self,
        block: &[Waiting],
        shards: &mut [Shard; WORKERS],
        promises: &mut Promises,
        outcome: &mut Outcome,
    ) {
        let parts = block.chunks(block.len().div_ceil(WORKERS).max(1));
        let seen = &*shards;
        let promised = &*promises;
        let ahead: Vec<Ahead> = thread::scope(|scope| {
            let workers: Vec<_> =
                parts.map(|part| scope.spawn(|| self.look(part, seen, promised))).collect();
            workers.into_iter().map(|worker| worker.join().expect("a worker fell")).collect()
        });
        thread::scope(|scope| {
            for (number, shard) in shards.iter_mut().enumerate() {
                let found = ahead.iter().flat_map(move |ahead| &ahead.found[number]);
                scope.spawn(move || found.for_each(|found| shard.take(number, found)));
            }
        });
        for ahead in ahead {
            outcome.transitions += ahead.transitions;
            promises.0.retain(|(name, _)| !ahead.reached.contains(name));
            outcome.reached.extend(ahead.reached);
            if let (None, Some((way, broken))) = (&outcome.violation, ahead.broken) {
                let ways = |number: u32| {
                    let number = number as usize;
                    shards[number % WORKERS].ways[number / WORKERS]
                };
                let trace = path::trace(self.hunt, &self.symmetry, ways, way, &broken);
                outcome.violation = Some(Violation { broken, trace });
            }
        }
    }

    /// What every event of these states leads to.
    fn look(&self, part: &[Waiting], shards: &[Shard; WORKERS], promises: &Promises) -> Ahead {
        let Hunt { config, mutant, .. } = *self.hunt;
        let (mut ahead, mut promises) = (Ahead::default(), promises.clone());
        roam(config, mutant, |world| {
            for waiting in part {
                self.look_from(waiting, shards, world, &mut promises, &mut ahead);
                if ahead.broken.is_some() {
                    break;
                }
            }
        });
        ahead
    }

    /// What every event of a state leads to: first its name, then, if it is new, more.
    fn look_from(
        &self,
        waiting: &Waiting,
        shards: &[Shard; WORKERS],
        world: &mut World<'_>,
        promises: &mut Promises,
        ahead: &mut Ahead,
    ) {
        let mark = world.mark_at(&waiting.state);
        let oracle = Lockstep::of(self.hunt.config, &waiting.state);
        let events = world.enabled();
        ahead.next.clear();
        for (event, at) in events.iter().zip(0..) {
            ahead.transitions += 1;
            let way = Way { from: waiting.number, event: at };
            world.apply(*event);
            promises.note(world, &mut ahead.reached);
            if self.hunt.broken(&oracle, *event, world, Looks::AtEvent).is_some() {
                let broken = self.hunt.broken(&oracle, *event, world, Looks::AtState);
                ahead.broken = broken.map(|broken| (way, broken));
                return;
            }
            let state = world.state_after(&mark, *event);
            world.back(&mark, *event);
            if state != mark.state {
                let Canonical { state, represents } = self.symmetry.canonical(state);
                let name = fingerprint(&state);
                ahead.next.push(Found { name, way, represents, state });
            }
        }
        // Looked up together, so that the waits for memory overlap.
        ahead.next.retain(|found| !shards[shard_of(found.name)].seen.contains(found.name));
        for found in std::mem::take(&mut ahead.next) {
            let event = events[usize::from(found.way.event)];
            world.apply(event);
            if let Some(broken) = self.hunt.broken(&oracle, event, world, Looks::AtState) {
                ahead.broken = Some((found.way, broken));
                return;
            }
            world.back(&mark, event);
            ahead.found[shard_of(found.name)].push(found);
        }
    }
}

/// The `sometimes` properties that a configuration promises and that were not met so far.
#[derive(Clone, Debug)]
struct Promises(Vec<Sometimes>);

impl Promises {
    fn new(config: &Config) -> Self {
        let promised = |(name, _): &&Sometimes| config.reaches.contains(name);
        Self(SOMETIMES.iter().filter(promised).copied().collect())
    }

    /// Notes which of them the last event met.
    fn note(&mut self, world: &World<'_>, reached: &mut BTreeSet<&'static str>) {
        self.0.retain(|(name, holds)| !(holds(world) && reached.insert(name)));
    }
}
