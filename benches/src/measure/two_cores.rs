//! Two threads, each on memory of its own: what the second core adds.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use view_core::PAGE_SIZE;
use view_core::suite::Landing;

use super::alone::{LIST, TURN};
use super::area::{Area, Rotation};
use super::rounds::{Dice, median};
use crate::candidate::Candidate;

const TRIALS_MIN: usize = 5;

/// What the second core adds, by the clock on the wall.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// Whose.
    pub name: &'static str,
    /// Both threads together, as a multiple of one alone: the median of the trials' ratios.
    pub times: f64,
    /// One alone, in GB/s.
    pub one_gbps: f64,
    /// Both together, in GB/s.
    pub two_gbps: f64,
}

/// From when to when each thread worked, in the order of turns.
type Log = Vec<Option<(Instant, Instant)>>;

/// One trial of a candidate is two turns, one after the other: one thread works alone, the first
/// and the second in turn, and then both work. Empty where a process has only one CPU.
///
/// Each thread has a field and an area of `pages` pages of its own, and its own CPU.
pub fn two_cores(
    field: fn() -> Vec<Box<dyn Candidate>>,
    pages: usize,
    budget: Duration,
) -> Vec<Scaling> {
    let allowed = sched_getaffinity(None).expect("a thread may ask where it runs");
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    let (Some(one), Some(other)) = (cpus.next(), cpus.next()) else { return vec![] };
    let pace = Pace::new();
    let [first, second] = std::thread::scope(|scope| {
        [(0, one), (1, other)]
            .map(|(id, cpu)| {
                let pace = &pace;
                scope.spawn(move || {
                    pin(cpu);
                    turns(id, pace, field(), pages, budget)
                })
            })
            .map(|thread| thread.join().expect("no candidate panics"))
    });
    let names: Vec<_> = field().iter().map(|candidate| candidate.name()).collect();
    (0..).zip(names).map(|(index, name)| scaling(name, index, &first, &second)).collect()
}

fn pin(cpu: usize) {
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).expect("a CPU that is allowed");
}

/// Where the two wait for each other, awake.
struct Pace {
    arrived: AtomicUsize,
    over: AtomicBool,
    /// One of them panicked, and will not come any more.
    broken: AtomicBool,
}

/// Tells the other thread when this one panics.
struct Alarm<'p>(&'p Pace);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::Release);
        }
    }
}

impl Pace {
    const fn new() -> Self {
        let (over, broken) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { arrived: AtomicUsize::new(0), over, broken }
    }

    /// Returns once both have come here as often as this thread.
    fn meet(&self, meetings: &mut usize) {
        *meetings += 1;
        self.arrived.fetch_add(1, Ordering::AcqRel);
        let mut spins = 0_u32;
        while self.arrived.load(Ordering::Acquire) < 2 * *meetings {
            spins += 1;
            // Somebody else may have the other one's CPU.
            if spins.is_multiple_of(4096) {
                std::thread::yield_now();
            }
            assert!(!self.broken.load(Ordering::Acquire), "the other thread panicked");
            core::hint::spin_loop();
        }
    }
}

/// One thread's part. Both know the order: candidate by candidate, one alone and then both.
fn turns(
    id: usize,
    pace: &Pace,
    mut field: Vec<Box<dyn Candidate>>,
    pages: usize,
    budget: Duration,
) -> Vec<Log> {
    let _alarm = Alarm(pace);
    let mut dice = Dice::new(0x5eed_0002);
    let mut area = Area::new(pages);
    let mut parts = Rotation::new(&area, TURN, &mut dice);
    let mut logs = vec![vec![]; field.len()];
    let mut meetings = 0;
    pace.meet(&mut meetings);
    let begun = Instant::now();
    for trial in 0.. {
        if id == 0 && trial >= TRIALS_MIN && begun.elapsed() >= budget {
            pace.over.store(true, Ordering::Release);
        }
        pace.meet(&mut meetings);
        if pace.over.load(Ordering::Acquire) {
            break;
        }
        for index in dice.order(field.len()) {
            for works in [trial % 2 == id, true] {
                let candidate = &mut *field[index];
                let part = parts.part();
                pace.meet(&mut meetings);
                let start = Instant::now();
                if works {
                    area.run(candidate, part.clone(), LIST, Landing::Cold);
                }
                let end = Instant::now();
                pace.meet(&mut meetings);
                logs[index].push(works.then_some((start, end)));
                if works {
                    area.check(candidate, part.end - 1);
                }
            }
        }
    }
    logs
}

fn scaling(name: &'static str, index: usize, first: &[Log], second: &[Log]) -> Scaling {
    let spans = first[index].iter().zip(&second[index]).map(|(first, second)| {
        let start = [first, second].into_iter().flatten().map(|span| span.0).min();
        let end = [first, second].into_iter().flatten().map(|span| span.1).max();
        start.zip(end).map_or(0.0, |(start, end)| (end - start).as_secs_f64())
    });
    let spans: Vec<f64> = spans.collect();
    let trials = spans.as_chunks::<2>().0;
    let gbps = (TURN * PAGE_SIZE) as f64 / 1e9;
    Scaling {
        name,
        times: median(trials.iter().map(|[one, both]| 2.0 * one / both).collect()),
        one_gbps: gbps / median(trials.iter().map(|[one, _]| *one).collect()),
        two_gbps: 2.0 * gbps / median(trials.iter().map(|[_, both]| *both).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_threads_work_and_every_trial_counts() {
        let found = two_cores(crate::ours, TURN, Duration::ZERO);
        for scaling in &found {
            assert!(scaling.times > 0.1 && scaling.times < 10.0, "{scaling:?}");
        }
        assert!(found.is_empty() || found.len() == crate::ours().len());
    }
}
