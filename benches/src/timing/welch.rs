//! Welch's t: by how many standard errors the means of two classes differ.

use super::Class;

/// At so many places the slowest samples are cut off: they are interrupts, and hide what is small.
const CUTS: usize = 100;

/// One class so far: its count, and the mean and the sum of squared distances from it (Welford).
#[derive(Clone, Copy, Default)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn add(&mut self, time: f64) {
        self.count += 1.0;
        let distance = time - self.mean;
        self.mean += distance / self.count;
        self.squares += distance * (time - self.mean);
    }

    /// The square of the standard error of the mean.
    fn error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

fn t(one: &Moments, other: &Moments) -> f64 {
    // A clock ticks: where all times are the same tick, a difference of the means of less than a
    // thousandth of it is none.
    let error = (one.error() + other.error()).max(1e-6);
    ((one.mean - other.mean) / error.sqrt()).abs()
}

/// The largest |t| over all samples, and over those below each cut.
pub(super) fn t_max(samples: &[(Class, f64)]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(|a, b| a.1.total_cmp(&b.1));
    let cut = |cut: usize| {
        // As the authors cut: densely among the slow, where the tail is.
        let share = 1.0 - 0.5_f64.powf(10.0 * (cut + 1) as f64 / CUTS as f64);
        (share * sorted.len() as f64) as usize
    };
    let mut cuts = (0..CUTS).map(cut).chain([sorted.len()]).peekable();
    let (mut one, mut other) = (Moments::default(), Moments::default());
    let mut max = 0.0_f64;
    for (index, (class, time)) in sorted.iter().enumerate() {
        match class {
            Class::One => one.add(*time),
            Class::Other => other.add(*time),
        }
        // Equal times stay together, or what was cut off would be a matter of the order.
        let next = sorted.get(index + 1).map(|next| next.1);
        while cuts.peek().is_some_and(|cut| *cut <= index + 1) && next != Some(*time) {
            cuts.next();
            if one.count >= 100.0 && other.count >= 100.0 {
                max = max.max(t(&one, &other));
            }
        }
    }
    max
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Dice;

    fn samples(count: usize, shift: f64) -> Vec<(Class, f64)> {
        let mut dice = Dice::new(11);
        let mut noise = move || (0..12).map(|_| dice.below(1000) as f64).sum::<f64>() / 12.0;
        let sample = |index| match index % 2 {
            0 => (Class::One, noise()),
            _ => (Class::Other, noise() + shift),
        };
        (0..count).map(sample).collect()
    }

    #[test]
    fn t_is_what_it_is_by_hand() {
        let of = |times: &[f64]| {
            let mut moments = Moments::default();
            times.iter().for_each(|time| moments.add(*time));
            moments
        };
        // Means 3 and 6, variances 2.5 and 10, five of each: 3 / sqrt(0.5 + 2).
        let (one, other) = (of(&[1.0, 2.0, 3.0, 4.0, 5.0]), of(&[2.0, 4.0, 6.0, 8.0, 10.0]));
        assert!((t(&one, &other) - 3.0 / 2.5_f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn a_shift_is_found_among_noise_and_outliers_and_noise_alone_is_none() {
        assert!(t_max(&samples(100_000, 0.0)) < 5.0);
        assert!(t_max(&samples(100_000, 10.0)) > 15.0);
        // Interrupts, a thousand times as long as what is looked for.
        let mut hidden = samples(100_000, 10.0);
        hidden.iter_mut().step_by(997).for_each(|sample| sample.1 += 1e6);
        assert!(t_max(&hidden) > 10.0);
    }

    #[test]
    fn times_that_are_all_one_tick_do_not_differ() {
        let same: Vec<_> =
            (0..1000).map(|n| (if n % 2 == 0 { Class::One } else { Class::Other }, 20.0)).collect();
        assert!(t_max(&same) < 1.0);
    }
}
