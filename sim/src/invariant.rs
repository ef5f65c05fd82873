//! What must hold in every state that can be reached, as data; equal to spec/invariants.md.
//!
//! Some look at the state, some at the event that led to it. Each is paired with at least one
//! mutant that it catches, by test.

use view_core::{Ownership, PageState, VmNumber};

use crate::bytes::{Bytes, Label};
use crate::event::{PageRef, Phys};
use crate::host::gfn;
use crate::machine::Install;
use crate::world::World;

/// A claim with its check.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// Its name for ever.
    pub id: &'static str,
    /// What is claimed, word for word as in spec/invariants.md.
    pub sentence: &'static str,
    /// Whether it holds after the last event.
    pub holds: fn(&World<'_>) -> bool,
    /// What it looks at.
    pub looks: Looks,
}

/// What an invariant looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Looks {
    /// The state alone: once is enough, however often it is reached.
    AtState,
    /// The last event, too.
    AtEvent,
}

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "C1",
        sentence: "No frame or replica that the management side reaches, by table or by what a CPU \
                   remembers, holds bytes that an owner stored in private.",
        holds: |world| {
            !Phys::all().any(|at| world.machine.host_reaches(at) && is_secret(world, at))
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "C2",
        sentence: "While a page is Private or Replica, the management side reaches its frame \
                   neither by table nor by what a CPU remembers.",
        holds: |world| {
            owned_quietly(world).all(|page| !world.machine.host_reaches(world.frame(page)))
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "C3",
        sentence: "When the owner stores to a page that it has closed again, no CPU remembers a \
                   translation of the management side to it.",
        holds: |world| !world.just.exposed,
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "C4",
        sentence: "A page is Open only while its owner's own act says so; what the management side \
                   claims opens nothing.",
        holds: |world| {
            pages(world).all(|page| {
                let allowed = world.ghost(page).consent;
                world
                    .state(page)
                    .terms()
                    .is_none_or(|(_, perm, _)| allowed.is_some_and(|allowed| allowed.allows(perm)))
            })
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "C6",
        sentence: "Two seals with the same key and the same associated data hold the same bytes.",
        holds: |world| {
            let known = &world.machine.known;
            known.iter().enumerate().all(|(index, seal)| {
                known[..index].iter().all(|old| {
                    (old.label, old.terms) != (seal.label, seal.terms) || old.inner == seal.inner
                })
            })
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "C7",
        sentence: "No two seals that are given out are alike: whether a page changed between two \
                   of them cannot be told.",
        holds: |world| world.machine.noted.seals.iter().all(|(_, before)| !before.alike),
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "C8",
        sentence: "A frame that is nobody's, and a place of the pool that holds no replica, hold \
                   nothing that an owner stored in private.",
        holds: |world| !Phys::all().any(|at| is_nobodys(world, at) && is_secret(world, at)),
        looks: Looks::AtState,
    },
    Invariant {
        id: "C11",
        sentence: "What a guest that runs reaches, by table or by what a CPU remembers, is never a \
                   frame of another VM.",
        holds: |world| {
            pages(world).filter(|page| world.vm(page.vm).runnable().is_ok()).all(|page| {
                let others = |at| match owner_of(world, at) {
                    Some(Ownership::Owned(vm, _)) => vm.0 != u16::from(page.vm),
                    Some(_) | None => false,
                };
                !world.machine.guest_reaches(page).any(others)
            })
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "I1",
        sentence: "A guest that runs finds in its page, by table or by what a CPU remembers, what \
                   it stored last, or what the management side wrote while it was allowed to.",
        holds: |world| {
            pages(world).filter(|page| world.vm(page.vm).runnable().is_ok()).all(|page| {
                let latest = world.ghost(page).latest;
                world.machine.guest_reaches(page).all(|at| world.machine.at(at) == latest)
            })
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "I2",
        sentence: "What is installed as genuine is exactly what was inside the seal that was \
                   checked.",
        holds: |world| {
            world.machine.noted.installs.iter().all(|install| match install.from {
                Bytes::Sealed(seal) => Bytes::Plain(seal.inner) == install.got,
                Bytes::Plain(_) => false,
            })
        },
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "I3",
        sentence: "Every page that has a frame owns it in the table of frames, and what a guest \
                   that runs reaches for a page is that page's own frame: no frame backs two \
                   pages.",
        holds: |world| pages(world).all(|page| owns_frame(world, page) && reaches_own(world, page)),
        looks: Looks::AtState,
    },
    Invariant {
        id: "I5",
        sentence: "While a page is Private or Replica, its frame holds what its owner stored last, \
                   whatever was done to replicas of it.",
        holds: |world| {
            owned_quietly(world)
                .all(|page| world.machine.at(world.frame(page)) == world.ghost(page).latest)
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "I6",
        sentence: "What is installed is what was in the buffer that was checked: sealed bytes are \
                   fetched once.",
        holds: |world| {
            world.machine.noted.installs.iter().all(|install| match install.from {
                Bytes::Sealed(seal) => Bytes::Plain(seal.inner) == install.got,
                Bytes::Plain(plain) => Bytes::Plain(plain) == install.got,
            })
        },
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "I7",
        sentence: "Of a page whose seal is not genuine nothing is installed: its frame holds \
                   zeroes, its guest reaches it no more, and it ends poisoned.",
        holds: |world| {
            let refused = world.flights.iter().flatten().filter(|flight| flight.was_refused());
            let pages = refused.flat_map(|flight| &flight.asks).map(|asked| asked.page);
            pages.into_iter().all(|page| {
                world.machine.at(world.frame(page)) == Bytes::ZERO
                    && world.machine.guest_reaches(page).next().is_none()
            })
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "I9",
        sentence: "No CPU of a VM runs while one of its pages is being built, or after one of them \
                   was poisoned.",
        holds: |world| !world.just.ran_stopped,
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "F1",
        sentence: "A sealed page that is accepted has exactly the version that its page's row \
                   names: not an older one, and not a newer one.",
        holds: |world| installs(world).all(|(told, own, _)| told.version == own.version),
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "F2",
        sentence: "In one epoch a page's version never decreases, and no two seals of the page are \
                   made under one version, whatever was dropped, failed or crashed.",
        holds: |world| {
            let fresh = world.machine.noted.seals.iter().all(|(_, before)| !before.version);
            fresh && pages(world).all(|page| world.version(page) >= world.ghost(page).highest)
        },
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "F3",
        sentence: "A sealed page is accepted only by the VM, the page, the epoch and the stream \
                   that it was sealed for.",
        holds: |world| {
            installs(world).all(|(told, own, _)| Label { version: own.version, ..told } == own)
        },
        looks: Looks::AtEvent,
    },
    Invariant {
        id: "L1",
        sentence: "A page that is free is gone: its guest reaches nothing for it, by table or by \
                   what a CPU remembers, and it has no replica.",
        holds: |world| {
            let free =
                |page: &PageRef| world.state(*page) == PageState::Free && !world.is_busy(*page);
            pages(world).filter(free).all(|page| {
                world.machine.guest_reaches(page).next().is_none()
                    && world.machine.replica(page).is_none()
            })
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "S1",
        sentence: "When no batch is under way, no page is held.",
        holds: |world| {
            world.flights.iter().any(Option::is_some) || !pages(world).any(|at| world.is_busy(at))
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "S2",
        sentence: "After a platform call failed, nobody reaches a page whose steps had begun, by \
                   table or by what a CPU remembers.",
        holds: |world| {
            pages(world).filter(|page| world.ghost(*page).closed).all(|page| {
                !world.machine.host_reaches(world.frame(page))
                    && world.machine.guest_reaches(page).next().is_none()
            })
        },
        looks: Looks::AtState,
    },
    Invariant {
        id: "S3",
        sentence: "In one epoch a page that was poisoned stays poisoned, its frame is never given \
                   out again, and its VM never runs again.",
        holds: |world| {
            pages(world).filter(|page| world.ghost(*page).poisoned).all(|page| {
                world.state(page) == PageState::Poisoned
                    && world.vm(page.vm).runnable().is_err()
                    && !is_owned_anew(world, page)
            })
        },
        looks: Looks::AtState,
    },
];

/// The ids of what does not hold, in the order of the list.
pub fn broken<'a>(
    world: &'a World<'_>,
    only: Option<&'a str>,
) -> impl Iterator<Item = &'static str> + 'a {
    INVARIANTS
        .iter()
        .filter(move |invariant| only.is_none_or(|id| id == invariant.id))
        .filter(|invariant| !(invariant.holds)(world))
        .map(|invariant| invariant.id)
}

/// The ids of what does not hold, among those that look at this or at more; `None` if all do.
pub fn broken_at(world: &World<'_>, only: Option<&str>, looks: Looks) -> Option<Vec<&'static str>> {
    let asked = |invariant: &&Invariant| {
        invariant.looks >= looks && only.is_none_or(|id| id == invariant.id)
    };
    let fails = |invariant: &&Invariant| !(invariant.holds)(world);
    INVARIANTS.iter().filter(asked).any(|invariant| fails(&invariant)).then(|| {
        let broken = INVARIANTS.iter().filter(asked).filter(fails);
        broken.map(|invariant| invariant.id).collect()
    })
}

fn pages(world: &World<'_>) -> impl Iterator<Item = PageRef> + use<> {
    world.config.page_refs()
}

fn is_secret(world: &World<'_>, place: Phys) -> bool {
    world.machine.at(place).is_secret()
}

/// Pages that are the owner's alone. A page whose steps are under way shows another state.
fn owned_quietly<'a>(world: &'a World<'_>) -> impl Iterator<Item = PageRef> + 'a {
    pages(world)
        .filter(|page| matches!(world.state(*page), PageState::Private | PageState::Replica))
}

/// What a genuine seal said, and what the table said. What was no seal is I2's business.
fn installs<'a>(world: &'a World<'_>) -> impl Iterator<Item = (Label, Label, &'a Install)> + 'a {
    world.machine.noted.installs.iter().filter_map(|install| match install.from {
        Bytes::Sealed(seal) => {
            let vm = VmNumber(u16::from(install.page.vm));
            Some((seal.label, Label::new(vm, &install.id), install))
        }
        Bytes::Plain(_) => None,
    })
}

fn owner_of(world: &World<'_>, place: Phys) -> Option<Ownership> {
    match place {
        Phys::Frame(number) => Some(world.ownership(number)),
        Phys::Replica(_) => None,
    }
}

/// Whether no page owns a place, or is about to.
fn is_nobodys(world: &World<'_>, place: Phys) -> bool {
    match place {
        Phys::Frame(number) if number < world.config.frames => {
            matches!(world.ownership(number), Ownership::Free | Ownership::Offered(..))
        }
        Phys::Frame(_) => false,
        Phys::Replica(number) => world.machine.replica_of[usize::from(number)].is_none(),
    }
}

fn owns_frame(world: &World<'_>, page: PageRef) -> bool {
    let (vm, number) = (VmNumber(u16::from(page.vm)), gfn(page));
    if world.is_busy(page) {
        return true;
    }
    let owner = || owner_of(world, world.frame(page));
    match world.state(page) {
        PageState::Free | PageState::PagedOut | PageState::Scrubbing => true,
        PageState::Poisoned => owner() == Some(Ownership::Quarantined(vm, number)),
        PageState::Building
        | PageState::Private
        | PageState::Replica
        | PageState::Sealed
        | PageState::Open { .. } => owner() == Some(Ownership::Owned(vm, number)),
    }
}

fn reaches_own(world: &World<'_>, page: PageRef) -> bool {
    let own = Ownership::Owned(VmNumber(u16::from(page.vm)), gfn(page));
    world.vm(page.vm).runnable().is_err()
        || world.machine.guest_reaches(page).all(|at| owner_of(world, at) == Some(own))
}

/// Whether the frame of a poisoned page is free, offered or owned.
fn is_owned_anew(world: &World<'_>, page: PageRef) -> bool {
    !matches!(owner_of(world, world.frame(page)), Some(Ownership::Quarantined(..)))
}
