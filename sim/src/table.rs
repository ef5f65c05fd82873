//! The table of states as at a blackboard: what a page becomes, or that the ask is refused.
//!
//! A second, independent copy of what the core decides, without steps. Tests hold it against the
//! core and against spec/states.md.

use view_core::suite::Stream;
use view_core::{MaskId, PageState, Perm};

use crate::event::{Ask, Term};

/// The states that rest in the table, in the order of spec/states.md. `Open` stands for all of its
/// terms, as [`name`] does.
pub const STATES: [&str; 8] =
    ["Free", "Building", "Private", "Replica", "Sealed", "PagedOut", "Open", "Poisoned"];

/// A state's name in spec/states.md.
pub const fn name(state: PageState) -> &'static str {
    match state {
        PageState::Free => "Free",
        PageState::Building => "Building",
        PageState::Private => "Private",
        PageState::Replica => "Replica",
        PageState::Sealed => "Sealed",
        PageState::PagedOut => "PagedOut",
        PageState::Open { .. } => "Open",
        PageState::Scrubbing => "Scrubbing",
        PageState::Poisoned => "Poisoned",
    }
}

/// An ask's name in spec/states.md.
pub const fn event_name(ask: Ask) -> &'static str {
    match ask {
        Ask::Map(Perm::Read) => "Map(Read)",
        Ask::Map(Perm::ReadWrite) => "Map(ReadWrite)",
        Ask::Unmap => "Unmap",
        Ask::Export(Stream::Image) => "Export(Image)",
        Ask::Export(Stream::View | Stream::Resident) => "Export(View)",
        Ask::Seal => "Seal",
        Ask::PageOut => "PageOut",
        Ask::PageIn(_) => "PageIn",
        Ask::Destroy => "Destroy",
        Ask::Accept(_) => "Accept",
        Ask::Launch => "Launch",
        Ask::Touch => "Touch",
        Ask::Share(..) => "Share",
        Ask::Unshare => "Unshare",
        Ask::Exclude(_) => "Exclude",
    }
}

/// What a page that rests in `state` becomes; `None` if the ask is refused. `once` says that the
/// page was opened until its first unmap, `launched` that its VM is.
pub fn after(state: PageState, ask: Ask, once: bool, launched: bool) -> Option<&'static str> {
    use PageState as S;
    let open_to = |perm: Perm| state.terms().is_some_and(|(_, allowed, _)| allowed.allows(perm));
    let next = match (ask, state) {
        (Ask::Map(_), S::Building) => "Building",
        (Ask::Map(Perm::Read), S::Private | S::Replica) => "Replica",
        (Ask::Map(Perm::Read), S::Sealed) => "Sealed",
        (Ask::Map(perm), S::Open { .. }) if open_to(perm) => "Open",
        (Ask::Unmap, S::Open { .. }) if once => "Private",
        (Ask::Unmap, S::Building | S::Sealed | S::Open { .. }) => name(state),
        (Ask::Unmap, S::Replica) => "Private",
        (Ask::Export(_), S::Private | S::Replica | S::Open { .. }) => name(state),
        (Ask::Seal, S::Private | S::Replica) => "Sealed",
        (Ask::PageOut, S::Private | S::Replica | S::Sealed) => "PagedOut",
        (Ask::PageIn(_), S::PagedOut) => "Sealed",
        (Ask::Destroy, S::Free) => return None,
        (Ask::Destroy, S::Scrubbing | S::Poisoned) => "Poisoned",
        (Ask::Destroy, _) => "Free",
        (Ask::Accept(_), S::Free) if launched => "Private",
        (Ask::Accept(_), S::Free) => "Building",
        (Ask::Launch, S::Building) => "Private",
        (Ask::Touch, S::Sealed) => "Private",
        (Ask::Share(..), S::Private | S::Replica) => "Open",
        (Ask::Unshare, S::Open { .. }) => "Private",
        (Ask::Exclude(_), S::Free | S::Scrubbing | S::Poisoned) => return None,
        (Ask::Exclude(_), _) => name(state),
        _ => return None,
    };
    Some(next)
}

/// Whether the ask uses up a version of a page in this state.
pub const fn burns(state: PageState, ask: Ask) -> bool {
    match ask {
        Ask::Map(_) => matches!(state, PageState::Private | PageState::Replica),
        Ask::PageOut => !matches!(state, PageState::Sealed),
        Ask::Export(_) | Ask::Seal | Ask::Share(..) | Ask::Unshare => true,
        // Closes a page that was open for once.
        Ask::Unmap => matches!(state, PageState::Open { .. }),
        Ask::PageIn(_)
        | Ask::Destroy
        | Ask::Accept(_)
        | Ask::Launch
        | Ask::Touch
        | Ask::Exclude(_) => false,
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
