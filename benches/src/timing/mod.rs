//! Whether time tells secrets apart: two classes of inputs, timed in random order, and a statistic
//! of how surely their times differ (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant
//! time?", DATE 2017).
//!
//! It can show that time depends on a secret, and never that it does not. Written here and not
//! taken from a crate: `dudect-bencher` prints numbers and fails for none, and brings a parser of
//! arguments that nobody maintains any more.

mod checks;
mod welch;

use std::time::{Duration, Instant};

pub use checks::checks;
use welch::t_max;

use crate::measure::Dice;

/// From this |t| on, times differ. Without a difference |t| passes 5 about once in a million, but
/// here the largest of a hundred tests counts, and neighbours are noisy: the authors of the method
/// draw the line at 10. What does depend on a secret goes on growing with the number of samples.
pub const T_MAX: f64 = 10.0;

/// How often a check may be noisy before it counts.
pub const TRIES: usize = 3;

/// Fewer samples of a class than this say nothing.
const SAMPLES_MIN: usize = 1000;

/// Two classes of inputs, and something that is done to them.
pub struct Check {
    /// What is done.
    pub name: String,
    /// Whether it depends on the class on purpose, to show that this would be noticed.
    pub leaks: bool,
    /// Makes some inputs of both classes ready, then times one after the other.
    batch: Box<dyn FnMut(&mut Batch<'_>)>,
}

/// Where a check puts what it measured, and gets its dice from.
pub(crate) struct Batch<'b> {
    dice: &'b mut Dice,
    samples: &'b mut Vec<(Class, f64)>,
}

/// Which of the two classes an input is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    One,
    Other,
}

/// What was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// The largest |t|.
    pub t: f64,
    /// How many samples there are of both classes together.
    pub samples: usize,
    /// How many times it was tried.
    pub tries: usize,
}

impl Check {
    fn new(name: String, batch: impl FnMut(&mut Batch<'_>) + 'static) -> Self {
        Self { name, leaks: false, batch: Box::new(batch) }
    }

    /// Measures for so long, and again if what is found is not what is due: noise does not last.
    pub fn run(&mut self, budget: Duration, dice: &mut Dice) -> Found {
        let mut found = Found { t: f64::INFINITY, samples: 0, tries: 0 };
        while found.tries < TRIES && !self.passes(&found) {
            let samples = self.sample(budget, dice);
            found = Found { t: t_max(&samples), samples: samples.len(), tries: found.tries + 1 };
        }
        found
    }

    /// Whether what was found is what is due.
    pub fn passes(&self, found: &Found) -> bool {
        found.samples >= 2 * SAMPLES_MIN && (found.t > T_MAX) == self.leaks
    }

    fn sample(&mut self, budget: Duration, dice: &mut Dice) -> Vec<(Class, f64)> {
        let mut samples = vec![];
        (self.batch)(&mut Batch { dice, samples: &mut samples });
        samples.clear(); // that was to warm up
        let start = Instant::now();
        while start.elapsed() < budget || samples.len() < 4 * SAMPLES_MIN {
            (self.batch)(&mut Batch { dice, samples: &mut samples });
        }
        samples
    }
}

impl core::fmt::Debug for Check {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Check").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Batch<'_> {
    /// Either, as often as the other.
    const fn class(&mut self) -> Class {
        if self.dice.below(2) == 0 { Class::One } else { Class::Other }
    }

    /// Does something to an input of a class and notes how long it took.
    fn time(&mut self, class: Class, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        self.samples.push((class, start.elapsed().as_nanos() as f64));
    }
}

#[cfg(test)]
mod tests {
    use core::hint::black_box;

    use super::*;

    fn counts(one: u32, other: u32) -> Check {
        Check::new("counts".into(), move |batch| {
            for _ in 0..100 {
                let class = batch.class();
                let times = if class == Class::One { one } else { other };
                batch.time(class, || (0..times).for_each(|n| _ = black_box(n)));
            }
        })
    }

    #[test]
    fn what_takes_longer_for_one_class_is_noticed_and_what_does_not_is_not() {
        let mut dice = Dice::new(5);
        let mut run = |mut check: Check| {
            let found = check.run(Duration::from_millis(50), &mut dice);
            (check.passes(&found), found)
        };
        let (passes, found) = run(counts(1000, 1000));
        assert!(passes, "{found:?}");
        let (passes, found) = run(counts(1000, 1200));
        assert!(!passes && found.tries == TRIES, "{found:?}");
        let (passes, found) = run(Check { leaks: true, ..counts(1000, 1200) });
        assert!(passes && found.tries == 1, "{found:?}");
        let (passes, found) = run(Check { leaks: true, ..counts(1000, 1000) });
        assert!(!passes, "a control that finds nothing fails: {found:?}");
    }
}
