//! What a guest was at the moment of an image, and what a restore makes of that image.

use std::cell::RefCell;
use std::collections::BTreeMap;

use view_core::PageState;
use view_core::image::ImageError;
use view_core::whitelist::RestoredPage;

use super::Claim;
use super::guest::{Guest, PAGES, pages};
use super::kept::{self, Kept, Opened};

/// What whoever makes images and restores them claims.
pub(super) const SAVE_AND_RESTORE: Claim = Claim {
    id: "L2",
    sentence: "A guest that is restored is the one that was saved: its CPU, and of every page the \
               bytes, the terms and whether it is excluded; excluded pages are zeroes.",
};

/// A guest at one moment, as an image has to have it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    memory: [u8; PAGES],
    states: Vec<PageState>,
    excluded: Vec<bool>,
    cpu: u8,
}

impl Moment {
    /// Now.
    pub(super) fn of(guest: &Guest) -> Self {
        let excluded: Vec<bool> = pages().map(|page| guest.excluded(page)).collect();
        let mut memory = guest.memory;
        memory.iter_mut().zip(&excluded).for_each(|(store, excluded)| {
            *store *= u8::from(!excluded);
        });
        let states = pages().map(|page| guest.state_at_rest(page)).collect();
        Self { memory, states, excluded, cpu: guest.cpu }
    }

    /// Whether a guest is what an image of this moment restores.
    pub(super) fn is(&self, guest: &Guest) -> bool {
        // Its own moment would have zeroes for an excluded page, whatever is in it.
        guest.memory == self.memory && Self::of(guest) == *self
    }

    /// What an image has to have of a page: the management side may write to an open one at any
    /// time, so what counts is what was there when it was sealed.
    pub(super) fn renew(&mut self, guest: &Guest, page: u8) {
        self.memory[usize::from(page)] = Self::of(guest).memory[usize::from(page)];
    }
}

/// What a restore leaves undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forgets {
    Terms,
    Exclusion,
}

/// Images that were written and read before: the same term is the same image.
#[derive(Debug, Default)]
pub(super) struct Images(RefCell<BTreeMap<Kept, Result<Opened, ImageError>>>);

impl Images {
    /// Writes an image, and restores it where it was pinned: the next incarnation, launched.
    pub(super) fn restore(&self, kept: &Kept, forgets: Option<Forgets>) -> Option<Guest> {
        let mut read = self.0.borrow_mut();
        let opened = read.entry(*kept).or_insert_with(|| {
            let image = kept.image();
            kept::read(&image.file(), Some(image.root))
        });
        let opened = opened.as_ref().ok()?;
        let mut guest = Guest::building(opened.header.epoch.0 + 1);
        for (store, (_, opened)) in guest.memory.iter_mut().zip(&opened.pages) {
            *store = *opened;
        }
        guest.launch();
        for (record, _) in &opened.pages {
            let restored = RestoredPage { record: *record };
            if forgets != Some(Forgets::Terms) {
                guest.reopen(&restored);
            }
            if forgets != Some(Forgets::Exclusion) {
                guest.exclude_again(&restored);
            }
        }
        guest.cpu = opened.cpu;
        Some(guest)
    }
}
