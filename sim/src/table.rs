//! The blackboard of [`spec::life`] in the core's words: what a page becomes, or that the ask is
//! refused. Tests hold it against the core and against spec/states.md.

use spec::life::{self, Rights, State, Stream as To, Until};
use view_core::suite::Stream;
use view_core::{MaskId, PageState, Perm};

use crate::event::{Ask, Term};

/// The states that rest in the table, in the order of spec/states.md. `Open` stands for all of its
/// terms, as [`name`] does.
pub const STATES: [&str; 8] =
    ["Free", "Building", "Private", "Replica", "Sealed", "PagedOut", "Open", "Poisoned"];

/// A state's name in spec/states.md.
pub const fn name(state: PageState) -> &'static str {
    drawn(state, false).name()
}

/// An ask's name in spec/states.md.
pub const fn event_name(ask: Ask) -> &'static str {
    asked(ask).name()
}

/// What a page that rests in `state` becomes; `None` if the ask is refused. `once` says that the
/// page was opened until its first unmap, `launched` that its VM is.
pub fn after(state: PageState, ask: Ask, once: bool, launched: bool) -> Option<&'static str> {
    life::after(drawn(state, once), asked(ask), launched).map(State::name)
}

/// Whether the ask uses up a version of a page in this state; an unmap, if it closes the page.
pub const fn burns(state: PageState, ask: Ask) -> bool {
    life::burns(drawn(state, true), asked(ask))
}

/// The core's state at the blackboard; `once` as for [`after`].
pub const fn drawn(state: PageState, once: bool) -> State {
    match state {
        PageState::Free => State::Free,
        PageState::Building => State::Building,
        PageState::Private => State::Private,
        PageState::Replica => State::Replica,
        PageState::Sealed => State::Sealed,
        PageState::PagedOut => State::PagedOut,
        PageState::Open { perm, .. } => {
            State::Open(rights(perm), if once { Until::FirstUnmap } else { Until::Closed })
        }
        PageState::Scrubbing => State::Scrubbing,
        PageState::Poisoned => State::Poisoned,
    }
}

/// An ask at the blackboard.
pub const fn asked(ask: Ask) -> life::Ask {
    match ask {
        Ask::Map(perm) => life::Ask::Map(rights(perm)),
        Ask::Unmap => life::Ask::Unmap,
        Ask::Export(Stream::Image) => life::Ask::Export(To::Image),
        Ask::Export(Stream::View | Stream::Resident) => life::Ask::Export(To::View),
        Ask::Seal => life::Ask::Seal,
        Ask::PageOut => life::Ask::PageOut,
        Ask::PageIn(frame) => life::Ask::PageIn(frame),
        Ask::Destroy => life::Ask::Destroy,
        Ask::Accept(frame) => life::Ask::Accept(frame),
        Ask::Launch => life::Ask::Launch,
        Ask::Touch => life::Ask::Touch,
        Ask::Share(perm, Term::Once) => life::Ask::Share(rights(perm), Until::FirstUnmap),
        Ask::Share(perm, Term::Never | Term::Tick) => life::Ask::Share(rights(perm), Until::Closed),
        Ask::Unshare => life::Ask::Unshare,
        Ask::Exclude(excluded) => life::Ask::Exclude(excluded),
    }
}

const fn rights(perm: Perm) -> Rights {
    match perm {
        Perm::Read => Rights::Read,
        Perm::ReadWrite => Rights::ReadWrite,
    }
}

/// The words that a guest has in its registers when it rings to open a page.
pub const fn doorbell_words(perm: Perm, term: Term) -> (u64, u64, u64) {
    let perm = match perm {
        Perm::Read => 1,
        Perm::ReadWrite => 3,
    };
    let mask: u64 = MaskId::ALL.number() as u64;
    let expiry = match term {
        Term::Never => 0,
        Term::Once => u64::MAX,
        Term::Tick => 1,
    };
    (perm, mask, expiry)
}
