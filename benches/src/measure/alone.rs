//! One thread: cold memory, the L2 cache, single pages, and lists of every length.

use core::time::Duration;

use view_core::suite::Landing;

use super::area::{Area, Rotation};
use super::rounds::{Dice, Rounds, thread_time};
use crate::candidate::Candidate;

/// What takes part.
pub type Field = [Box<dyn Candidate>];

/// Pages of a turn: 2 MiB to read and 2 MiB to write.
pub const TURN: usize = 512;

/// Pages of a call, where nothing else is said: what a suite asks for ahead pays in long lists.
pub const LIST: usize = TURN;

/// Pages that stay in a cache of 1 MiB with room to spare: 256 KiB to read and 256 KiB to write.
/// Who opens reads others, 256 KiB more.
pub const L2_PAGES: usize = 64;

/// The lengths of lists that are told apart.
pub const LISTS: [usize; 5] = [1, 8, 16, 64, 512];

/// Each on 2 MiB that no cache has any more, in one list, past the cache where a suite can.
pub fn cold(field: &mut Field, area: &mut Area, budget: Duration, dice: &mut Dice) -> Rounds {
    let mut parts = Rotation::new(area, TURN, dice);
    Rounds::play(names(field), budget, dice, |index, dice| {
        let candidate = &mut *field[index];
        let part = parts.part();
        let start = thread_time();
        area.run(candidate, part.clone(), LIST, Landing::Cold);
        let time = thread_time() - start;
        area.check(candidate, part.end - 1 - dice.below(LIST));
        time / TURN as f64
    })
}

/// Each on the same pages again and again, which are in the cache before its turn begins.
pub fn l2(field: &mut Field, budget: Duration, dice: &mut Dice) -> Rounds {
    const TIMES: usize = 8;
    let mut area = Area::new(L2_PAGES);
    Rounds::play(names(field), budget, dice, |index, dice| {
        let candidate = &mut *field[index];
        let mut run = || area.run(candidate, 0..L2_PAGES, L2_PAGES, Landing::Hot);
        run();
        let start = thread_time();
        (0..TIMES).for_each(|_| run());
        let time = thread_time() - start;
        area.check(candidate, dice.below(L2_PAGES));
        time / (TIMES * L2_PAGES) as f64
    })
}

/// Each on single pages far apart, one a call, of which no cache has any; they are read next, so
/// they are left in the cache. One look at the clock costs as much as a page: 64 calls share one.
pub fn single_page(
    field: &mut Field,
    area: &mut Area,
    budget: Duration,
    dice: &mut Dice,
) -> Rounds {
    const CALLS: usize = 64;
    let mut parts = Rotation::new(area, 1, dice);
    Rounds::play(names(field), budget, dice, |index, _| {
        let candidate = &mut *field[index];
        let pages: [_; CALLS] = core::array::from_fn(|_| parts.part());
        let last = pages[CALLS - 1].start;
        let start = thread_time();
        for page in pages {
            area.run(candidate, page, 1, Landing::Hot);
        }
        let time = thread_time() - start;
        area.check(candidate, last);
        time / CALLS as f64
    })
}

/// As [`cold`], with lists of each of [`LISTS`] at places far apart. Names are those of
/// [`in_lists`].
pub fn by_batch(field: &mut Field, area: &mut Area, budget: Duration, dice: &mut Dice) -> Rounds {
    let mut parts = LISTS.map(|list| Rotation::new(area, list, dice));
    let names: Vec<_> =
        names(field).iter().flat_map(|name| LISTS.map(|list| in_lists(name, list))).collect();
    Rounds::play(names, budget, dice, |index, dice| {
        let (list, parts) = (LISTS[index % LISTS.len()], &mut parts[index % LISTS.len()]);
        let candidate = &mut *field[index / LISTS.len()];
        let places: Vec<_> = (0..TURN / list).map(|_| parts.part()).collect();
        let end = places[places.len() - 1].end;
        let start = thread_time();
        for place in places {
            area.run(candidate, place, list, Landing::Cold);
        }
        let time = thread_time() - start;
        area.check(candidate, end - 1 - dice.below(list));
        time / TURN as f64
    })
}

/// What [`by_batch`] calls a candidate in lists of this length.
pub fn in_lists(name: &str, list: usize) -> String {
    format!("{name}/{list}")
}

pub(super) fn names(field: &Field) -> Vec<String> {
    field.iter().map(|candidate| candidate.name().to_owned()).collect()
}
