//! Translation as hardware does it: own tables of two levels, in memory of whoever runs, walked
//! through nested tables of two levels that the platform under the core writes.
//!
//! The management side and both guests write what they like into their own tables and look; the
//! platform maps, splits large leaves, takes empty tables out, and flushes.

mod check;
mod entry;
mod host;
mod memory;
mod state;

use std::fmt;

use super::spine::{Core, at};
use super::{After, Claim, Found, Model, Study, Wanted, Wrong, explore};
use crate::event::{Ask, PageRef, Term};
use memory::Viewer;
use state::State;
use view_core::{Ownership, PageState, Perm};

/// The study.
pub(super) const STUDY: Study = Study {
    name: "tables",
    purpose: "guest and nested tables of two levels, walked as hardware does, large leaves",
    bounds: "2 VMs, 4 pages, 4 frames, 2 levels of 4 entries, 1 CPU, 1 version, a batch of 1",
    claims: &[Claim {
        id: "I4",
        sentence: "Of a VM that runs, a page's row names the frame of the page's last accept or \
                   page-in, and its guest finds it in no other: nothing else moves a page.",
    }],
    wrongs: WRONGS,
    reaches: &[SPLIT, UNHOOKED, STALE, DENIED, PINNED, OPEN_WRITTEN, MOVED],
    explore: |wanted| {
        let found = WRONGS.iter().position(|wrong| Some(wrong.name) == wanted.wrong);
        study(found.map(|index| FLAWS[index]), wanted)
    },
};

const SPLIT: &str = "a large leaf is split";
const UNHOOKED: &str = "a nested table without entries leaves its root";
const STALE: &str = "a CPU uses what nested tables do not say any more";
const DENIED: &str = "nested tables deny what an own table says";
const PINNED: &str = "a page of a guest is walked as a table";
const OPEN_WRITTEN: &str = "management writes to an open page";
const MOVED: &str = "a page is paged in elsewhere";

/// How often a page's version may be used up before nothing is asked that needs one.
const VERSIONS: u64 = 1;

/// How hardware or platform can be wrong, in the order of [`WRONGS`].
const FLAWS: [Flaw; 8] = [
    Flaw::LastLevel,
    Flaw::RawTables,
    Flaw::MarksUnasked,
    Flaw::SplitKeeps,
    Flaw::GrantsLarge,
    Flaw::KeepsUpper,
    Flaw::KeepsLarge,
    Flaw::FollowsRemap,
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    LastLevel,
    RawTables,
    MarksUnasked,
    SplitKeeps,
    GrantsLarge,
    KeepsUpper,
    KeepsLarge,
    FollowsRemap,
}

const WRONGS: &[Wrong] = &[
    Wrong {
        name: "last-level-only",
        sentence: "whether a page may be written is read from the last entry of an own table alone",
        caught_by: &["I1"],
    },
    Wrong {
        name: "walks-raw",
        sentence: "own tables are read at host addresses, past the nested tables",
        caught_by: &["C1", "C2", "C11", "I1"],
    },
    Wrong {
        name: "marks-unasked",
        sentence: "entries are marked as accessed in frames that the viewer may only read",
        caught_by: &["I1"],
    },
    Wrong {
        name: "split-keeps",
        sentence: "a large leaf is split into entries for all its frames, the withdrawn one too",
        caught_by: &["C1", "C2", "I1"],
    },
    Wrong {
        name: "grants-large",
        sentence: "a page is granted to management by a large leaf, and its neighbours with it",
        caught_by: &["C1", "C2", "I1"],
    },
    Wrong {
        name: "keeps-upper",
        sentence: "the fence flushes translations, not what CPUs remember of upper tables",
        caught_by: &["C1", "C2"],
    },
    Wrong {
        name: "keeps-large",
        sentence: "the fence flushes single pages, not a large leaf that was split since",
        caught_by: &["C1", "C2", "I1"],
    },
    Wrong {
        name: "follows-remap",
        sentence: "the platform moves a guest's page to the frame that management names",
        caught_by: &["C11", "I1", "I3", "I4"],
    },
];

/// How an address is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Load,
    Store,
    /// The page is pinned as a table of its own, and its first entry followed.
    AsTable,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A batch begins. A frame that it needs is offered first.
    Begin(PageRef, Ask),
    Step,
    /// Management has a frame back that is nobody's.
    Give(u8),
    /// Management wants a page to be in another frame.
    Remap(PageRef, u8),
    /// Somebody points an own entry at an address, and looks.
    Look(Viewer, u8, How),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin(page, ask) => write!(f, "begin {page} {ask}"),
            Self::Step => f.write_str("step"),
            Self::Give(frame) => write!(f, "management has f{frame} back"),
            Self::Remap(page, frame) => write!(f, "management remaps {page} to f{frame}"),
            Self::Look(viewer, address, how) => {
                let verb = match how {
                    How::Load => "loads from",
                    How::Store => "stores to",
                    How::AsTable => "walks",
                };
                match viewer {
                    Viewer::Management => write!(f, "management {verb} f{address}"),
                    Viewer::Vm(number) => write!(f, "guest {verb} {number}:{address}"),
                }
            }
        }
    }
}

/// The first guest's pages: its own table, what it works with, and one that is free at first.
const TABLE: PageRef = PageRef { vm: 0, gfn: 0 };
const WORK: PageRef = PageRef { vm: 0, gfn: 1 };
const SPARE: PageRef = PageRef { vm: 0, gfn: 2 };
/// The second guest's own table.
const OTHER: PageRef = PageRef { vm: 1, gfn: 0 };
/// The frames that are offered: one under a large leaf, and one alone under its table.
const OFFERED: [u8; 2] = [0, 4];
/// Where the pages are that both guests have from the start.
const TABLES_FRAME: u8 = 5;
const OTHERS_FRAME: u8 = 6;
const PAGE_REFS: [PageRef; 4] = [TABLE, WORK, SPARE, OTHER];

struct Tables {
    flaw: Option<Flaw>,
}

fn study(flaw: Option<Flaw>, wanted: Wanted) -> Found {
    explore(&Tables { flaw }, wanted)
}

impl Model for Tables {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State::booted()
    }

    fn events(&self, state: &State) -> Vec<Event> {
        let glance = state.core.glance();
        let mut events = LOOKS.to_vec();
        events.push(Event::Remap(WORK, OTHERS_FRAME));
        if state.core.flight.is_some() {
            events.push(Event::Step);
        } else {
            for page in [WORK, SPARE] {
                let state_of = glance.states[at(page)];
                let asks = asks(&state.core, page, state_of);
                events.extend(asks.into_iter().map(|ask| Event::Begin(page, ask)));
            }
        }
        for frame in OFFERED {
            if glance.owners[usize::from(frame)] == Ownership::Free {
                events.push(Event::Give(frame));
            }
        }
        events
    }

    fn apply(&self, before: &State, event: Event) -> After<State> {
        let (mut state, mut noted) = (*before, state::Noted::default());
        state.happen(event, self.flaw, &mut noted);
        // Where nothing changed and nobody looked, everything was checked before.
        let quiet = before == &state && noted.touched.is_none_or(|(_, frames)| frames == 0);
        let broken = if quiet { Vec::new() } else { check::broken(&state, &noted) };
        After { broken, reached: noted.reached, state }
    }
}

/// What can be looked at, and how.
const LOOKS: [Event; 9] = [
    Event::Look(Viewer::Management, 0, How::Load),
    Event::Look(Viewer::Management, 0, How::Store),
    Event::Look(Viewer::Management, 0, How::AsTable),
    Event::Look(Viewer::Management, 4, How::Load),
    Event::Look(Viewer::Management, TABLES_FRAME, How::AsTable),
    Event::Look(Viewer::Vm(0), 1, How::Load),
    Event::Look(Viewer::Vm(0), 1, How::Store),
    Event::Look(Viewer::Vm(0), 1, How::AsTable),
    Event::Look(Viewer::Vm(1), 1, How::AsTable),
];

/// What can be asked about a page within bounds. What the core would refuse is left out, but for
/// frames that are another page's.
fn asks(core: &Core, page: PageRef, state: PageState) -> Vec<Ask> {
    let fresh = core.version(page) < VERSIONS;
    if page != WORK {
        return vec![if state == PageState::Free { Ask::Accept(OFFERED[1]) } else { Ask::Destroy }];
    }
    match state {
        PageState::Free => OFFERED.map(Ask::Accept).to_vec(),
        PageState::Private if fresh => vec![
            Ask::Map(Perm::Read),
            Ask::Share(Perm::Read, Term::Never),
            Ask::Share(Perm::ReadWrite, Term::Never),
            Ask::PageOut,
            Ask::Destroy,
        ],
        PageState::Open { .. } => vec![Ask::Unshare, Ask::Unmap],
        PageState::Replica => vec![Ask::Unmap],
        PageState::Sealed => vec![Ask::Touch],
        PageState::PagedOut => OFFERED.map(Ask::PageIn).to_vec(),
        PageState::Private | PageState::Building | PageState::Scrubbing | PageState::Poisoned => {
            vec![Ask::Destroy]
        }
    }
}
