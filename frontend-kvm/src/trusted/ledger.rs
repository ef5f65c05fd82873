//! Which pages are open, and which have a replica out: so that nobody has to search a gigabyte.

use std::collections::{BTreeMap, BTreeSet};

use view_core::{Gfn, PageState};

/// The pages that stand out, as of their latest commit.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    open: BTreeSet<Gfn>,
    /// Pages with a replica out, by when it was made.
    replicas: BTreeMap<u64, Gfn>,
    made: BTreeMap<Gfn, u64>,
    next: u64,
}

impl Ledger {
    /// Notes what a page is now.
    pub(super) fn note(&mut self, gfn: Gfn, state: PageState) {
        if state.terms().is_some() {
            self.open.insert(gfn);
        } else {
            self.open.remove(&gfn);
        }
        self.forget_replica(gfn);
        if state == PageState::Replica {
            self.replicas.insert(self.next, gfn);
            self.made.insert(gfn, self.next);
            self.next += 1;
        }
    }

    /// The page is not asked to give its replica back any more.
    pub(super) fn forget_replica(&mut self, gfn: Gfn) {
        if let Some(made) = self.made.remove(&gfn) {
            self.replicas.remove(&made);
        }
    }

    /// The page whose replica is the oldest.
    pub(super) fn oldest_replica(&self) -> Option<Gfn> {
        self.replicas.first_key_value().map(|(_, gfn)| *gfn)
    }

    /// The open pages, in order.
    pub(super) fn open(&self) -> impl Iterator<Item = Gfn> {
        self.open.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_one_place_however_often_it_is_mapped() {
        let [a, b] = [1, 2].map(|number| Gfn::new(number).unwrap());
        let mut ledger = Ledger::default();
        ledger.note(a, PageState::Replica);
        ledger.note(b, PageState::Replica);
        ledger.note(a, PageState::Replica);
        assert_eq!(ledger.oldest_replica(), Some(b), "a's is newer now");
        ledger.note(b, PageState::Private);
        assert_eq!(ledger.oldest_replica(), Some(a));
        ledger.note(a, PageState::Private);
        assert_eq!((ledger.oldest_replica(), ledger.made.len()), (None, 0));
    }
}
