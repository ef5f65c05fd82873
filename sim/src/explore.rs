//! Every state that can be reached within the bounds, breadth first: the first counterexample is
//! a shortest one.
//!
//! Two workers share the work of a block of states, and each owns half of the names that were seen.
//! First both look at their states, and ahead: what every event leads to, canonical and not yet
//! seen by anybody. Then each takes in what belongs to its half, in the order of the block. So what
//! is found, and in which order, does not depend on which worker was faster.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use crate::config::Config;
use crate::diamonds::{Diamonds, Origin};
use crate::event::Event;
use crate::fingerprint::{Fingerprint, fingerprint};
use crate::invariant::{self, Looks};
use crate::lockstep::Lockstep;
use crate::mark::Mark;
use crate::mutant::Mutant;
use crate::path;
pub use crate::shard::WORKERS;
use crate::shard::{Found, Shard, Waiting, Way, shard_of, way_of};
use crate::sometimes::{SOMETIMES, Sometimes};
use crate::symmetry::Symmetry;
use crate::twins::Twins;
use crate::world::{World, play, roam};

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// States that differ in more than names.
    pub distinct_states: u64,
    /// States that differ at all, which these stand for.
    pub represented_states: u64,
    /// Events that can happen in them.
    pub transitions: u64,
    /// Those of them that were played; of the others it is known from symmetry, or from another
    /// order of the same events, what comes of them.
    pub played: u64,
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
    /// Whether of two orders of events that do not heed each other one is enough.
    pub one_order: bool,
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
            one_order: true,
            oracle: true,
        }
    }

    /// A wrong machine, against one invariant or all. It may make the core do what no oracle says.
    pub const fn wrong(config: &'a Config, mutant: Mutant, only: Option<&'a str>) -> Self {
        let sound = Self::sound(config);
        Self { mutant: Some(mutant), only, one_order: false, oracle: false, ..sound }
    }

    /// What does not hold after an event of a state, among what looks at this or at more.
    pub(crate) fn broken(
        &self,
        oracle: &Lockstep,
        event: Event,
        world: &World<'_>,
    ) -> Option<Vec<&'static str>> {
        let broken = invariant::broken_at(world, self.only, Looks::AtState);
        let agrees = || !self.oracle || { *oracle }.follow(event, world).is_ok();
        broken.or_else(|| (!agrees()).then(|| vec![ORACLE]))
    }
}

/// How many states are looked ahead from at once.
const BLOCK: usize = 1 << 14;

/// How many of them a worker takes in a row: what is near costs alike.
const ROW: usize = 16;

/// One worker: what it found ahead of its part of a block, and what it keeps from block to block.
#[derive(Debug)]
struct Worker {
    /// What can happen in a state.
    events: Vec<Event>,
    /// What the last events led to, not named yet.
    next: Vec<Found>,
    found: [Vec<Found>; WORKERS],
    transitions: u64,
    played: u64,
    reached: BTreeSet<&'static str>,
    /// A state in which something does not hold.
    broken_state: Option<Broken>,
    /// An event after which something does not hold: one step farther than the states.
    broken_event: Option<Broken>,
    /// Names that it met lately; most are met again soon.
    recent: Vec<Fingerprint>,
}

/// What does not hold.
#[derive(Clone, Debug)]
struct Broken {
    /// The place in the block of the state where that was seen.
    at: u32,
    /// What led there last.
    way: Way,
    ids: Vec<&'static str>,
}

/// How many states are named together.
const NEXT: usize = 64;

/// What fits the second cache of most CPUs.
const RECENT: usize = 1 << 13;

impl Worker {
    fn new() -> Self {
        Self {
            events: Vec::new(),
            next: Vec::new(),
            found: Default::default(),
            transitions: 0,
            played: 0,
            reached: BTreeSet::new(),
            broken_state: None,
            broken_event: None,
            recent: vec![0; RECENT],
        }
    }

    /// Whether a name was met lately; from now on it was.
    fn met(&mut self, name: Fingerprint) -> bool {
        let place = &mut self.recent[(name >> 64) as usize % RECENT];
        std::mem::replace(place, name) == name
    }
}

/// Explores. `progress` hears of states and transitions now and then.
pub fn explore(hunt: &Hunt<'_>, mut progress: impl FnMut(u64, u64)) -> Outcome {
    let search = Search::new(hunt);
    let mut outcome = Outcome::default();
    let mut shards: [Shard; WORKERS] = Default::default();
    let mut workers: [Worker; WORKERS] = std::array::from_fn(|_| Worker::new());
    let mut promises = Promises::new(hunt.config);
    let start = search.start(&mut promises, &mut outcome.reached);
    shards[shard_of(start.name)].take(shard_of(start.name), &start);
    let mut level: [Vec<Waiting>; WORKERS] = Default::default();
    while outcome.violation.is_none() && !outcome.cut {
        // Swapped, so that memory is asked for once.
        for (shard, part) in shards.iter_mut().zip(&mut level) {
            part.clear();
            std::mem::swap(&mut shard.waiting, part);
        }
        if level.iter().all(Vec::is_empty) {
            break;
        }
        let waiting: usize = level.iter().map(|part| size_of_val(part.as_slice())).sum();
        for block in level.iter().flat_map(|part| part.chunks(BLOCK)) {
            search.block(block, &mut shards, &mut workers, &promises);
            for worker in &mut workers {
                outcome.transitions += std::mem::take(&mut worker.transitions);
                outcome.played += std::mem::take(&mut worker.played);
                promises.0.retain(|(name, _)| !worker.reached.contains(name));
                outcome.reached.append(&mut worker.reached);
            }
            let states = shards.iter().map(|shard| shard.ways.len() as u64).sum();
            let bytes: usize = shards.iter().map(Shard::bytes).sum();
            let bytes = bytes + waiting;
            outcome.distinct_states = states;
            outcome.cut = states >= hunt.states_max || bytes > hunt.memory_max;
            progress(states, outcome.transitions);
            // After an event that broke something, only states that are as near are looked at.
            if workers.iter().any(|worker| worker.broken_state.is_some()) || outcome.cut {
                break;
            }
        }
        outcome.violation = search.violation(&shards, &workers);
        outcome.depth += u32::from(shards.iter().any(|shard| !shard.waiting.is_empty()));
    }
    outcome.distinct_states = shards.iter().map(|shard| shard.ways.len() as u64).sum();
    outcome.represented_states = shards.iter().map(|shard| shard.represented).sum();
    outcome
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

    fn start(&self, promises: &mut Promises, reached: &mut BTreeSet<&'static str>) -> Found {
        let Hunt { config, mutant, .. } = *self.hunt;
        play(config, mutant, config.setup(), |world| {
            promises.note(world, reached);
            let mut state = world.state_now();
            let represents = self.symmetry.canonise(&mut state);
            Found { name: fingerprint(&state), represents, ..Found::unnamed(&state) }
        })
    }

    /// Goes on from every state of a block.
    fn block(
        &self,
        block: &[Waiting],
        shards: &mut [Shard; WORKERS],
        workers: &mut [Worker; WORKERS],
        promises: &Promises,
    ) {
        let late = workers.iter().any(|worker| worker.broken_event.is_some());
        let (seen, rows) = (&*shards, &AtomicUsize::new(0));
        thread::scope(|scope| {
            for worker in workers.iter_mut() {
                scope.spawn(move || self.look(block, rows, seen, promises, worker, late));
            }
        });
        let workers = &*workers;
        thread::scope(|scope| {
            for (number, shard) in shards.iter_mut().enumerate() {
                scope.spawn(move || {
                    let asked = workers.iter().flat_map(|worker| &worker.found[number]);
                    black_box(asked.fold(0, |asked, found| asked ^ shard.seen.ask(found.name)));
                    let [first, second] = workers;
                    let mut second = second.found[number].iter().peekable();
                    for found in &first.found[number] {
                        while let Some(other) = second.next_if(|other| other.at < found.at) {
                            shard.take(number, other);
                        }
                        shard.take(number, found);
                    }
                    second.for_each(|found| shard.take(number, found));
                });
            }
        });
    }

    /// Looks at the next row of states that nobody has taken, again and again, and at what every
    /// event of them leads to.
    fn look(
        &self,
        block: &[Waiting],
        rows: &AtomicUsize,
        shards: &[Shard; WORKERS],
        promises: &Promises,
        worker: &mut Worker,
        late: bool,
    ) {
        let mut promises = promises.clone();
        worker.found.iter_mut().for_each(Vec::clear);
        roam(self.hunt.config, self.hunt.mutant, |world| {
            let mine = std::iter::repeat_with(|| rows.fetch_add(1, Relaxed));
            let mine = mine.map_while(|row| Some((row * ROW, block.chunks(ROW).nth(row)?)));
            let states = mine.flat_map(|(first, row)| (first..).zip(row));
            for (at, waiting) in states {
                let at = u32::try_from(at).unwrap_or(u32::MAX);
                let mark = world.mark_at(&waiting.state);
                if let Some(ids) = invariant::broken_at(world, self.hunt.only, Looks::AtState) {
                    worker.broken_state =
                        Some(Broken { at, way: way_of(shards, waiting.number), ids });
                    break;
                }
                if !late && worker.broken_event.is_none() {
                    self.look_ahead((at, waiting), &mark, world, &mut promises, worker);
                }
                if worker.next.len() >= NEXT {
                    self.name_next(worker, shards);
                }
            }
        });
        self.name_next(worker, shards);
    }

    /// What every event of a state leads to.
    fn look_ahead(
        &self,
        (place, waiting): (u32, &Waiting),
        mark: &Mark,
        world: &mut World<'_>,
        promises: &mut Promises,
        worker: &mut Worker,
    ) {
        let oracle = Lockstep::of(self.hunt.config, &mark.state);
        let twins = Twins::of(&self.symmetry, &mark.state);
        let origin = if self.hunt.one_order { waiting.origin } else { Origin::OTHER };
        let diamonds = Diamonds::of(origin, &mark.state);
        let mut events = std::mem::take(&mut worker.events);
        events.clear();
        world.list_enabled(&mut events);
        for (event, at) in events.iter().copied().zip(0..) {
            worker.transitions += 1;
            if diamonds.found_elsewhere(event) || twins.first(event) != event {
                continue;
            }
            worker.played += 1;
            world.apply(event);
            promises.note(world, &mut worker.reached);
            let way = Way { from: waiting.number, event: at };
            let fine = invariant::broken_at(world, self.hunt.only, Looks::AtEvent).is_none();
            let agrees = || oracle.follow_from(event, world, mark).is_ok();
            if !fine || self.hunt.oracle && !agrees() {
                let broken = self.hunt.broken(&oracle, event, world);
                worker.broken_event = broken.map(|ids| Broken { at: place, way, ids });
                return;
            }
            worker.next.push(Found { at: place, way, ..Found::unnamed(&mark.state) });
            if let Some(found) = worker.next.last_mut() {
                world.take_after(mark, event, &mut found.state);
                found.origin = Origin::of(event, &found.state);
            }
            world.back(mark, event);
        }
        worker.events = events;
    }

    /// Names what events led to, one thing at a time for all, so that the code for it stays near.
    fn name_next(&self, worker: &mut Worker, shards: &[Shard; WORKERS]) {
        let mut next = std::mem::take(&mut worker.next);
        for found in &mut next {
            found.represents = self.symmetry.canonise(&mut found.state);
        }
        for found in &mut next {
            found.name = fingerprint(&found.state);
        }
        let ask = |found: &Found| shards[shard_of(found.name)].seen.ask(found.name);
        black_box(next.iter().fold(0, |asked, found| asked ^ ask(found)));
        for found in &next {
            let shard = shard_of(found.name);
            if !worker.met(found.name) && !shards[shard].seen.contains(found.name) {
                worker.found[shard].push(*found);
            }
        }
        next.clear();
        worker.next = next;
    }

    /// The nearest that does not hold: in a state, or else after an event of one.
    fn violation(
        &self,
        shards: &[Shard; WORKERS],
        workers: &[Worker; WORKERS],
    ) -> Option<Violation> {
        let first = |broken: fn(&Worker) -> Option<&Broken>| {
            workers.iter().filter_map(broken).min_by_key(|broken| broken.at)
        };
        let event = || first(|worker| worker.broken_event.as_ref());
        let Broken { way, ids, .. } =
            first(|worker| worker.broken_state.as_ref()).or_else(event)?;
        let ways = |number| way_of(shards, number);
        let trace = path::trace(self.hunt, &self.symmetry, ways, *way, ids);
        Some(Violation { broken: ids.clone(), trace })
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
