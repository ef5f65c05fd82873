//! What a running guest and whoever manages it do to its pages while an image is made.

use std::fmt;

use view_core::whitelist::Doorbell;
use view_core::{PageState, Perm, Request};

use super::guest::{Guest, pages};

/// One of these, to one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// The guest stores.
    Store(u8),
    /// The guest opens the page: to read or to write, until it closes it or until the first unmap.
    Share(u8, Perm, bool),
    /// The guest closes it.
    Unshare(u8),
    /// The guest has checkpoints leave it out, or take it in again.
    Exclude(u8, bool),
    /// The management side writes to an open page; nobody is told.
    Write(u8),
    /// The management side maps a sealed replica.
    Map(u8),
}

/// What the management side writes: no guest stores so often.
const WRITTEN: u8 = 0x80;

impl Act {
    /// What can be done to a guest that runs, or stands still.
    pub(super) fn all(guest: &Guest, runs: bool) -> Vec<Self> {
        let mut acts = Vec::new();
        for page in pages() {
            let state = guest.state(page);
            let open = state.terms().is_some();
            acts.extend(guest.writable(page).then_some(Self::Write(page)));
            if !runs {
                continue;
            }
            acts.push(Self::Store(page));
            acts.push(Self::Exclude(page, !guest.excluded(page)));
            if open {
                acts.push(Self::Unshare(page));
            } else {
                acts.push(Self::Share(page, Perm::Read, true));
                acts.push(Self::Share(page, Perm::ReadWrite, false));
            }
            acts.extend((state == PageState::Private).then_some(Self::Map(page)));
        }
        acts
    }

    /// Does it.
    pub(super) fn apply(self, guest: &mut Guest) {
        match self {
            Self::Store(page) => guest.store(page),
            Self::Share(page, perm, limited) => {
                let expiry = if limited { u64::MAX } else { 0 };
                guest.share(page, u64::from(perm.code()), expiry);
            }
            Self::Unshare(page) => {
                guest.call(page, Doorbell::UNSHARE);
            }
            Self::Exclude(page, true) => {
                guest.call(page, Doorbell::EXCLUDE);
            }
            Self::Exclude(page, false) => {
                guest.call(page, Doorbell::INCLUDE);
            }
            Self::Write(page) => guest.memory[usize::from(page)] ^= WRITTEN,
            Self::Map(page) => {
                guest.request(page, Request::Map(Perm::Read));
            }
        }
    }

    /// To which page.
    pub(super) const fn page(self) -> u8 {
        match self {
            Self::Store(page)
            | Self::Share(page, ..)
            | Self::Unshare(page)
            | Self::Exclude(page, _)
            | Self::Write(page)
            | Self::Map(page) => page,
        }
    }

    /// Whether it changes what an image has to say of the page beside its bytes.
    pub(super) const fn changes_terms(self) -> bool {
        matches!(self, Self::Share(..) | Self::Unshare(_) | Self::Exclude(..))
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(page) => write!(f, "guest stores to page {page}"),
            Self::Share(page, perm, limited) => {
                let until = if *limited { " until the first unmap" } else { "" };
                write!(f, "guest opens page {page}, {perm:?}{until}")
            }
            Self::Unshare(page) => write!(f, "guest closes page {page}"),
            Self::Exclude(page, true) => write!(f, "guest excludes page {page}"),
            Self::Exclude(page, false) => write!(f, "guest includes page {page}"),
            Self::Write(page) => write!(f, "management writes to page {page}"),
            Self::Map(page) => write!(f, "management maps page {page}"),
        }
    }
}
