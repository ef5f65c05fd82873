//! What must hold in every state that can be reached, as data; equal to spec/invariants.md.
//!
//! Some look at the state, some at the event that led to it. Each is paired with at least one
//! mutant that it catches, by test.

use view_core::{PageState, VmNumber};

use crate::bytes::{Bytes, Label};
use crate::facts::{Facts, PageFacts, members};
use crate::machine::{Install, KNOWN, Noted};
use crate::world::{Just, World};

/// A claim with its check.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// Its name for ever.
    pub id: &'static str,
    /// What is claimed, word for word as in spec/invariants.md.
    pub sentence: &'static str,
    holds: Check,
}

/// What an invariant looks at.
#[derive(Clone, Copy, Debug)]
enum Check {
    /// The state alone: once is enough, however often it is reached.
    State(fn(&Facts<'_, '_>) -> bool),
    /// The last event.
    Event(fn(&Happened<'_>) -> bool),
    /// Both.
    Both(fn(&Facts<'_, '_>) -> bool, fn(&Happened<'_>) -> bool),
}

/// What the last event did.
#[derive(Clone, Copy, Debug)]
struct Happened<'a> {
    just: &'a Just,
    noted: &'a Noted,
}

impl<'a> Happened<'a> {
    const fn of(world: &'a World<'_>) -> Self {
        Self { just: &world.just, noted: &world.machine.noted }
    }

    /// Whether there is nothing that an invariant could look at.
    const fn is_nothing(&self) -> bool {
        let seen = self.just.exposed || self.just.ran_stopped;
        !seen && self.noted.seals.is_empty() && self.noted.installs.is_empty()
    }
}

/// Whether states are looked at, or only events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// A state that was never seen before, and the event that led to it.
    AtState,
    /// Only the event: the state was seen before.
    AtEvent,
}

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "C1",
        sentence: "No frame or replica that the management side reaches, by table or by what a CPU \
                   remembers, holds bytes that an owner stored in private.",
        holds: Check::State(|facts| facts.host_reaches & facts.secrets == 0),
    },
    Invariant {
        id: "C2",
        sentence: "While a page is Private or Replica, the management side reaches its frame \
                   neither by table nor by what a CPU remembers.",
        holds: Check::State(|facts| facts.quiet().all(|page| facts.host_reaches & page.frame == 0)),
    },
    Invariant {
        id: "C3",
        sentence: "When the owner stores to a page that it has closed again, no CPU remembers a \
                   translation of the management side to it.",
        holds: Check::Event(|happened| !happened.just.exposed),
    },
    Invariant {
        id: "C4",
        sentence: "A page is Open only while its owner's own act says so; what the management side \
                   claims opens nothing.",
        holds: Check::State(|facts| {
            facts.pages.iter().all(|page| {
                let allowed = facts.ghost(page).consent;
                let allows = |perm| allowed.is_some_and(|allowed| allowed.allows(perm));
                page.state.terms().is_none_or(|(_, perm, _)| allows(perm))
            })
        }),
    },
    Invariant {
        id: "C6",
        sentence: "Two seals with the same key and the same associated data hold the same bytes.",
        holds: Check::State(|facts| {
            // What was sealed is in the lowest byte.
            let known = &facts.world.machine.known;
            let packed: heapless::Vec<u64, KNOWN> =
                known.iter().map(|seal| Bytes::Sealed(*seal).packed()).collect();
            packed.iter().enumerate().all(|(index, seal)| {
                packed[..index].iter().all(|old| old >> 8 != seal >> 8 || old == seal)
            })
        }),
    },
    Invariant {
        id: "C7",
        sentence: "No two seals that are given out are alike: whether a page changed between two \
                   of them cannot be told.",
        holds: Check::Event(|happened| {
            happened.noted.seals.iter().all(|(_, before)| !before.alike)
        }),
    },
    Invariant {
        id: "C8",
        sentence: "A frame that is nobody's, and a place of the pool that holds no replica, hold \
                   nothing that an owner stored in private.",
        holds: Check::State(|facts| facts.nobodys & facts.secrets == 0),
    },
    Invariant {
        id: "C11",
        sentence: "What a guest that runs reaches, by table or by what a CPU remembers, is never a \
                   frame of another VM.",
        holds: Check::State(|facts| {
            facts.running().all(|page| {
                let others = facts.of_vm.iter().enumerate();
                let others = others.filter(|(vm, _)| *vm != usize::from(page.page.vm));
                others.fold(0, |all, (_, places)| all | places) & page.reaches == 0
            })
        }),
    },
    Invariant {
        id: "I1",
        sentence: "A guest that runs finds in its page, by table or by what a CPU remembers, what \
                   it stored last, or what the management side wrote while it was allowed to.",
        holds: Check::State(|facts| {
            facts.running().all(|page| {
                let latest = facts.ghost(page).latest;
                members(page.reaches).all(|at| facts.world.machine.at(at) == latest)
            })
        }),
    },
    Invariant {
        id: "I2",
        sentence: "What is installed as genuine is exactly what was inside the seal that was \
                   checked.",
        holds: Check::Event(|happened| {
            happened.noted.installs.iter().all(|install| match install.from {
                Bytes::Sealed(seal) => Bytes::Plain(seal.inner) == install.got,
                Bytes::Plain(_) => false,
            })
        }),
    },
    Invariant {
        id: "I3",
        sentence: "Every page that has a frame owns it in the table of frames, and what a guest \
                   that runs reaches for a page is that page's own frame: no frame backs two \
                   pages.",
        holds: Check::State(|facts| {
            facts.pages.iter().all(|page| owns_frame(page) && reaches_own(facts, page))
        }),
    },
    Invariant {
        id: "I5",
        sentence: "While a page is Private or Replica, its frame holds what its owner stored last, \
                   whatever was done to replicas of it.",
        holds: Check::State(|facts| {
            facts.quiet().all(|page| {
                let latest = facts.ghost(page).latest;
                members(page.frame).all(|at| facts.world.machine.at(at) == latest)
            })
        }),
    },
    Invariant {
        id: "I6",
        sentence: "What is installed is what was in the buffer that was checked: sealed bytes are \
                   fetched once.",
        holds: Check::Event(|happened| {
            happened.noted.installs.iter().all(|install| match install.from {
                Bytes::Sealed(seal) => Bytes::Plain(seal.inner) == install.got,
                Bytes::Plain(plain) => Bytes::Plain(plain) == install.got,
            })
        }),
    },
    Invariant {
        id: "I7",
        sentence: "Of a page whose seal is not genuine nothing is installed: its frame holds \
                   zeroes, its guest reaches it no more, and it ends poisoned.",
        holds: Check::State(|facts| {
            let refused =
                facts.world.flights.iter().flatten().filter(|flight| flight.was_refused());
            let pages = refused.flat_map(|flight| &flight.asks).map(|asked| asked.page);
            pages.into_iter().all(|page| {
                facts.world.machine.at(facts.world.frame(page)) == Bytes::ZERO
                    && facts.world.machine.guest_reaches(page).next().is_none()
            })
        }),
    },
    Invariant {
        id: "I9",
        sentence: "No CPU of a VM runs while one of its pages is being built, or after one of them \
                   was poisoned.",
        holds: Check::Event(|happened| !happened.just.ran_stopped),
    },
    Invariant {
        id: "F1",
        sentence: "A sealed page that is accepted has exactly the version that its page's row \
                   names: not an older one, and not a newer one.",
        holds: Check::Event(|happened| {
            installs(happened).all(|(told, own, _)| told.version == own.version)
        }),
    },
    Invariant {
        id: "F2",
        sentence: "In one epoch a page's version never decreases, and no two seals of the page are \
                   made under one version, whatever was dropped, failed or crashed.",
        holds: Check::Both(
            |facts| {
                let version = |page: &PageFacts| facts.world.version(page.page);
                facts.pages.iter().all(|page| version(page) >= facts.ghost(page).highest)
            },
            |happened| happened.noted.seals.iter().all(|(_, before)| !before.version),
        ),
    },
    Invariant {
        id: "F3",
        sentence: "A sealed page is accepted only by the VM, the page, the epoch and the stream \
                   that it was sealed for.",
        holds: Check::Event(|happened| {
            installs(happened).all(|(told, own, _)| Label { version: own.version, ..told } == own)
        }),
    },
    Invariant {
        id: "L1",
        sentence: "A page that is free is gone: its guest reaches nothing for it, by table or by \
                   what a CPU remembers, and it has no replica.",
        holds: Check::State(|facts| {
            let free = |page: &&PageFacts| page.state == PageState::Free && !page.busy;
            facts
                .pages
                .iter()
                .filter(free)
                .all(|page| page.reaches == 0 && facts.world.machine.replica(page.page).is_none())
        }),
    },
    Invariant {
        id: "S1",
        sentence: "When no batch is under way, no page is held.",
        holds: Check::State(|facts| {
            let under_way = facts.world.flights.iter().any(Option::is_some);
            under_way || !facts.pages.iter().any(|page| page.busy)
        }),
    },
    Invariant {
        id: "S2",
        sentence: "After a platform call failed, nobody reaches a page whose steps had begun, by \
                   table or by what a CPU remembers.",
        holds: Check::State(|facts| {
            facts
                .pages
                .iter()
                .filter(|page| facts.ghost(page).closed)
                .all(|page| facts.host_reaches & page.frame == 0 && page.reaches == 0)
        }),
    },
    Invariant {
        id: "S3",
        sentence: "In one epoch a page that was poisoned stays poisoned, its frame is never given \
                   out again, and its VM never runs again.",
        holds: Check::State(|facts| {
            facts
                .pages
                .iter()
                .filter(|page| facts.ghost(page).poisoned)
                .all(|page| page.state == PageState::Poisoned && !page.runs && page.quarantined)
        }),
    },
];

impl Check {
    fn holds(self, facts: &Facts<'_, '_>) -> bool {
        match self {
            Self::State(state) => state(facts),
            Self::Event(event) => event(&Happened::of(facts.world)),
            Self::Both(state, event) => state(facts) && event(&Happened::of(facts.world)),
        }
    }

    fn holds_of_event(self, happened: &Happened<'_>) -> bool {
        match self {
            Self::State(_) => true,
            Self::Event(event) | Self::Both(_, event) => event(happened),
        }
    }
}

/// The ids of what does not hold, in the order of the list.
pub fn broken<'a>(
    world: &'a World<'_>,
    only: Option<&'a str>,
) -> impl Iterator<Item = &'static str> + 'a {
    let facts = Facts::of(world);
    INVARIANTS
        .iter()
        .filter(move |invariant| only.is_none_or(|id| id == invariant.id))
        .filter(move |invariant| !invariant.holds.holds(&facts))
        .map(|invariant| invariant.id)
}

/// The ids of what does not hold; `None` if all do.
pub fn broken_at(world: &World<'_>, only: Option<&str>, looks: Looks) -> Option<Vec<&'static str>> {
    if looks == Looks::AtEvent {
        let happened = Happened::of(world);
        if happened.is_nothing() {
            return None;
        }
        let fails = |invariant: &&Invariant| {
            !invariant.holds.holds_of_event(&happened) && only.is_none_or(|id| id == invariant.id)
        };
        let mut broken = INVARIANTS.iter().filter(fails).map(|invariant| invariant.id).peekable();
        return broken.peek().is_some().then(|| broken.collect());
    }
    let mut broken = broken(world, only).peekable();
    broken.peek().is_some().then(|| broken.collect())
}

/// What a genuine seal said, and what the table said. What was no seal is I2's business.
fn installs<'a>(
    happened: &'a Happened<'_>,
) -> impl Iterator<Item = (Label, Label, &'a Install)> + 'a {
    happened.noted.installs.iter().filter_map(|install| match install.from {
        Bytes::Sealed(seal) => {
            let vm = VmNumber(u16::from(install.page.vm));
            Some((seal.label, Label::new(vm, &install.id), install))
        }
        Bytes::Plain(_) => None,
    })
}

fn owns_frame(page: &PageFacts) -> bool {
    if page.busy {
        return true;
    }
    match page.state {
        PageState::Free | PageState::PagedOut | PageState::Scrubbing => true,
        PageState::Poisoned => page.quarantined,
        PageState::Building
        | PageState::Private
        | PageState::Replica
        | PageState::Sealed
        | PageState::Open { .. } => page.owns_frame,
    }
}

/// What a guest that runs reaches is its page's own frame.
fn reaches_own(facts: &Facts<'_, '_>, page: &PageFacts) -> bool {
    !page.runs || page.reaches & !facts.of_page(page.page) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_can_be_wrong_with_an_event_that_did_nothing() {
        let (just, noted) = (Just::default(), Noted::default());
        let happened = Happened { just: &just, noted: &noted };
        assert!(happened.is_nothing());
        assert!(INVARIANTS.iter().all(|invariant| invariant.holds.holds_of_event(&happened)));
    }
}
