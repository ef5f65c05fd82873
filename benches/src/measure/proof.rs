//! That everyone does what it says, before anything is timed.

use view_core::suite::Landing;

use super::alone::Field;
use super::area::Area;
use crate::candidate::{Outcome, same};

/// Lists that are not round.
const PAGES: usize = 83;

/// Shows that each page comes back, and that with one bit changed it does not. Twins give the same
/// bits; those that are not here are passed over.
///
/// # Panics
/// If anyone does otherwise.
pub fn prove(field: &mut Field, twins: &[(&str, &str)]) {
    let mut area = Area::new(PAGES);
    let mut results = vec![];
    for candidate in field.iter_mut().map(|candidate| &mut **candidate) {
        for landing in [Landing::Hot, Landing::Cold] {
            area.run(candidate, 0..PAGES, PAGES, landing);
            (0..PAGES).for_each(|at| area.check(candidate, at));
        }
        let outcome = area.outcome(candidate.takes(), PAGES / 2);
        let mut changed = outcome.to.clone();
        changed.bytes_mut()[1234] ^= 4;
        let unseen = candidate.right(Outcome { to: &changed, ..outcome });
        assert!(!unseen, "{} does not see a changed bit", candidate.name());
        results.push((candidate.name(), area.written()));
    }
    let of = |name: &str| results.iter().find(|(known, _)| *known == name);
    for (one, other) in twins {
        let (Some((_, (a, a_tags))), Some((_, (b, b_tags)))) = (of(one), of(other)) else {
            continue;
        };
        let equal = a.iter().zip(b).all(|(a, b)| same(a, b)) && a_tags == b_tags;
        assert!(equal, "{one} and {other} give different bits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_does_what_it_says() {
        prove(&mut crate::ours(), &[("siv-cmac-512-seal", "siv-cmac-512-portable")]);
    }

    #[test]
    #[cfg(feature = "peers")]
    fn peers_do_what_they_say_and_agree() {
        let mut field = crate::ours();
        field.extend(crate::peers());
        prove(&mut field, crate::TWINS);
    }

    #[test]
    #[should_panic(expected = "memcpy and naive-ctr-cmac give different bits")]
    fn those_that_differ_are_not_twins() {
        prove(&mut crate::ours(), &[("memcpy", "naive-ctr-cmac")]);
    }
}
