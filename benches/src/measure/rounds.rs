//! Rounds: everyone's turn in random order, until the time is up.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use view_core::PAGE_SIZE;

/// However short the time, a median wants a few rounds.
const ROUNDS_MIN: usize = 5;

/// Seconds of CPU time that this thread has had.
pub fn thread_time() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The number in the middle.
///
/// # Panics
/// If there is none.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Random numbers for the order of things, the same in every run (xorshift64*).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// From a seed that is not zero.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`.
    pub const fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        (number % end as u64) as usize
    }

    /// The numbers below `end` in random order.
    pub fn order(&mut self, end: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..end).collect();
        for last in (1..end).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

/// What everyone took, round by round.
#[derive(Clone, Debug)]
pub struct Rounds {
    names: Vec<String>,
    /// Seconds a page: of each name, of each round.
    times: Vec<Vec<f64>>,
}

impl Rounds {
    /// Has everyone take a turn, in an order of its own each round, until the time is up. A turn
    /// is given the index of a name, and returns seconds a page.
    pub fn play(
        names: Vec<String>,
        budget: Duration,
        dice: &mut Dice,
        mut turn: impl FnMut(usize, &mut Dice) -> f64,
    ) -> Self {
        let mut times = vec![vec![]; names.len()];
        let start = Instant::now();
        while !names.is_empty() && (start.elapsed() < budget || times[0].len() < ROUNDS_MIN) {
            for index in dice.order(names.len()) {
                let time = turn(index, dice);
                times[index].push(time);
            }
        }
        Self { names, times }
    }

    /// These rounds, and more of the same names.
    #[must_use]
    pub fn join(mut self, more: Self) -> Self {
        assert_eq!(self.names, more.names, "everyone takes part in every round");
        for (times, more) in self.times.iter_mut().zip(more.times) {
            times.extend(more);
        }
        self
    }

    /// Who took part.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// How many rounds there were.
    pub fn count(&self) -> usize {
        self.times.first().map_or(0, Vec::len)
    }

    /// Seconds a page of each round.
    fn times(&self, name: &str) -> Option<&[f64]> {
        let index = self.names.iter().position(|known| known == name)?;
        Some(&self.times[index])
    }

    /// The median, in microseconds a page.
    pub fn micros(&self, name: &str) -> Option<f64> {
        Some(median(self.times(name)?.to_vec()) * 1e6)
    }

    /// The median, in GB/s.
    pub fn gbps(&self, name: &str) -> Option<f64> {
        Some(PAGE_SIZE as f64 / 1e3 / self.micros(name)?)
    }

    /// How many times as fast one is as the other: the median of the rounds' ratios.
    pub fn times_as_fast(&self, name: &str, other: &str) -> Option<f64> {
        let rounds = self.times(name)?.iter().zip(self.times(other)?);
        Some(median(rounds.map(|(own, other)| other / own).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_one_round_and_an_order_has_everyone_once() {
        let mut dice = Dice::new(7);
        let mut order = dice.order(100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
        // The machine is ten times slower in every other round; one is always twice the other.
        let names = vec!["quick".to_owned(), "slow".to_owned()];
        let mut turns = 0;
        let rounds = Rounds::play(names, Duration::ZERO, &mut dice, |index, _| {
            let noise = if (turns / 2) % 2 == 0 { 1.0 } else { 10.0 };
            turns += 1;
            noise * if index == 0 { 1e-6 } else { 2e-6 }
        });
        assert_eq!(rounds.count(), ROUNDS_MIN);
        assert_eq!(rounds.times_as_fast("quick", "slow"), Some(2.0));
        assert_eq!(rounds.times_as_fast("quick", "nobody"), None);
        assert_eq!(rounds.micros("slow"), Some(2.0));
        assert_eq!(rounds.gbps("quick"), Some(4.096));
        assert_eq!(rounds.clone().join(rounds).count(), 2 * ROUNDS_MIN);
    }

    #[test]
    fn a_thread_has_its_own_clock() {
        let start = thread_time();
        std::thread::sleep(Duration::from_millis(20));
        assert!(thread_time() - start < 0.02);
    }
}
