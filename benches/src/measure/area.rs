//! Memory to work on, and an order in which nothing of it stays in the cache.

use core::ops::Range;

use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, Tag};
use view_core::{PAGE_SIZE, Page};

use super::rounds::Dice;
use crate::candidate::{Candidate, LIST_MAX, Outcome, Takes, Work};
use crate::{key, lists, pages};

/// Pages to read and pages to write, all of them touched before anything is timed. Everyone works
/// on the same ones; who opens reads what the default suite made of them.
pub struct Area {
    plain: Vec<Page>,
    sealed: Vec<Page>,
    sealed_tags: Vec<Tag>,
    to: Vec<Page>,
    tags: Vec<Tag>,
}

impl Area {
    /// So many pages of each sort.
    pub fn new(count: usize) -> Self {
        let plain = pages(count);
        let mut sealed = plain.clone();
        let mut sealed_tags = vec![[0; 16]; count];
        let cipher = SivCmac512::new(&key());
        let lists = plain.chunks(LIST_MAX).zip(sealed.chunks_mut(LIST_MAX));
        let tags = sealed_tags.chunks_mut(LIST_MAX);
        for (first, ((from, to), tags)) in (0..).step_by(LIST_MAX).zip(lists.zip(tags)) {
            let work = Work { first, from, to, tags, landing: Landing::Cold };
            lists::seal(&cipher, crate::id, work);
        }
        let (to, tags) = (plain.clone(), sealed_tags.clone());
        Self { plain, sealed, sealed_tags, to, tags }
    }

    /// How many pages it has of each sort.
    pub const fn len(&self) -> usize {
        self.plain.len()
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.plain.is_empty()
    }

    /// Has a candidate work on some pages, in lists of so many.
    pub fn run(
        &mut self,
        candidate: &mut dyn Candidate,
        at: Range<usize>,
        list: usize,
        landing: Landing,
    ) {
        for start in at.clone().step_by(list) {
            let at = start..at.end.min(start + list);
            let (first, to) = (start as u64, &mut self.to[at.clone()]);
            let (from, tags) = match candidate.takes() {
                Takes::Plain => (&self.plain[at.clone()], &mut self.tags[at]),
                Takes::Sealed => (&self.sealed[at.clone()], &mut self.sealed_tags[at]),
            };
            candidate.run(Work { first, from, to, tags, landing });
        }
    }

    /// What became of a page of the last call.
    ///
    /// # Panics
    /// If it is not right.
    pub fn check(&self, candidate: &mut dyn Candidate, at: usize) {
        let outcome = self.outcome(candidate.takes(), at);
        assert!(candidate.right(outcome), "{} did page {at} wrong", candidate.name());
    }

    /// All that was written.
    pub(super) fn written(&self) -> (Vec<Page>, Vec<Tag>) {
        (self.to.clone(), self.tags.clone())
    }

    pub(super) fn outcome(&self, takes: Takes, at: usize) -> Outcome<'_> {
        let (number, to) = (at as u64, &self.to[at]);
        match takes {
            Takes::Plain => Outcome { number, from: &self.plain[at], to, tag: &self.tags[at] },
            Takes::Sealed => {
                Outcome { number, from: &self.sealed[at], to, tag: &self.sealed_tags[at] }
            }
        }
    }
}

impl core::fmt::Debug for Area {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Area({} MiB)", (self.len() * PAGE_SIZE) >> 20)
    }
}

/// Parts of an area of one length, in random order, each of them before any comes again.
#[derive(Clone, Debug)]
pub struct Rotation {
    order: Vec<usize>,
    length: usize,
    next: usize,
}

impl Rotation {
    /// All parts of `length` pages.
    pub fn new(area: &Area, length: usize, dice: &mut Dice) -> Self {
        Self { order: dice.order(area.len() / length), length, next: 0 }
    }

    /// The part whose turn it is.
    pub fn part(&mut self) -> Range<usize> {
        let start = self.order[self.next] * self.length;
        self.next = (self.next + 1) % self.order.len();
        start..start + self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_comes_before_any_comes_again() {
        let area = Area::new(64);
        let mut parts = Rotation::new(&area, 4, &mut Dice::new(3));
        let first: Vec<_> = (0..16).map(|_| parts.part()).collect();
        let second: Vec<_> = (0..16).map(|_| parts.part()).collect();
        assert_eq!(first, second);
        let mut pages: Vec<_> = first.into_iter().flatten().collect();
        pages.sort_unstable();
        assert_eq!(pages, (0..64).collect::<Vec<_>>());
    }
}
