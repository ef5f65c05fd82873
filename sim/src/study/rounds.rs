//! An image made in rounds: pages are sealed while the guest runs, what changes meanwhile is
//! marked and sealed again, and what is left is sealed while the guest stands still.

use std::fmt;

use view_core::suite::Stream;

use super::acts::Act;
use super::guest::{Guest, PAGES, Sealed, pages};
use super::kept::Kept;
use super::moment::{Images, Moment};
use super::{After, Claim, Found, Model, Study, Wanted, Wrong};

/// The study of rounds.
pub(super) const ROUNDS: Study = Study {
    name: "rounds",
    purpose: "pages are sealed while their guest runs, and again if they changed",
    bounds: "2 pages, 3 acts of guest and management, as many rounds as change something",
    claims: &[
        Claim {
            id: "L3",
            sentence: "When a guest stands still for the last round, every page that is not to be \
                       sealed again was sealed with the bytes that it has.",
        },
        Claim {
            id: "L4",
            sentence: "When a guest stands still for the last round, every page that is not to be \
                       sealed again was sealed with the terms and the exclusion that it has.",
        },
    ],
    wrongs: &[
        Wrong {
            name: "clears-after-copy",
            sentence: "a page's mark is cleared after the page was sealed, not before",
            caught_by: &["L2", "L3"],
        },
        Wrong {
            name: "trusts-marks-of-open",
            sentence: "an open page is sealed again only if it is marked",
            caught_by: &["L2", "L3"],
        },
        Wrong {
            name: "terms-unmarked",
            sentence: "a change of terms or exclusion does not mark its page",
            caught_by: &["L2", "L4"],
        },
    ],
    reaches: &[
        "a store between clearing and sealing",
        "a page is sealed again because its terms changed",
        "a page is sealed again though nothing marked it",
        "a page needs no last round",
        "an image made in rounds is restored",
    ],
    explore,
};

const ACTS_MAX: u8 = 3;

/// How far the image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Rounds,
    /// The guest stands still.
    Last,
    Kept,
}

/// A guest and what was sealed of it so far.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Saved {
    guest: Guest,
    acts: u8,
    phase: Phase,
    dirty: [bool; PAGES],
    /// Pages whose turn has begun: half of clearing and sealing is done.
    begun: [bool; PAGES],
    sealed: [Option<Sealed>; PAGES],
    /// What is still to be sealed in the last round.
    left: [bool; PAGES],
    moment: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Act(Act),
    Clear(u8),
    Seal(u8),
    Pause,
    SealLast(u8),
    Finish,
    Restore,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Act(act) => act.fmt(f),
            Self::Clear(page) => write!(f, "the mark of page {page} is cleared"),
            Self::Seal(page) => write!(f, "page {page} is sealed"),
            Self::Pause => f.write_str("guest stands still"),
            Self::SealLast(page) => write!(f, "page {page} is sealed for the last time"),
            Self::Finish => f.write_str("the image is kept"),
            Self::Restore => f.write_str("the image is restored"),
        }
    }
}

struct Rounds {
    images: Images,
    wrong: Option<&'static str>,
}

impl Rounds {
    fn is(&self, wrong: &str) -> bool {
        self.wrong == Some(wrong)
    }

    /// Whether a page has to be sealed in the last round: it is marked, or the management side may
    /// have written to it, which nothing marks.
    fn again(&self, saved: &Saved, page: u8) -> bool {
        let open = saved.guest.writable(page) && !self.is("trusts-marks-of-open");
        saved.dirty[usize::from(page)] || open
    }

    /// L3 and L4, of one page.
    fn broken(&self, saved: &Saved, page: u8) -> Vec<&'static str> {
        if self.again(saved, page) {
            return Vec::new();
        }
        let (at, guest) = (usize::from(page), &saved.guest);
        let Some(sealed) = saved.sealed[at] else { return vec!["L3", "L4"] };
        let store = if sealed.excluded { 0 } else { guest.memory[at] };
        let terms = (sealed.state.terms(), sealed.excluded);
        let expected = (guest.state_at_rest(page).terms(), guest.excluded(page));
        let claims = [(sealed.inner == store, "L3"), (terms == expected, "L4")];
        claims.into_iter().filter(|(holds, _)| !holds).map(|(_, id)| id).collect()
    }

    fn act(&self, saved: &mut Saved, act: Act) -> Vec<&'static str> {
        let at = usize::from(act.page());
        saved.acts += 1;
        act.apply(&mut saved.guest);
        let stores = matches!(act, Act::Store(_));
        saved.dirty[at] |= stores || act.changes_terms() && !self.is("terms-unmarked");
        let between = stores && saved.begun[at];
        between.then_some("a store between clearing and sealing").into_iter().collect()
    }

    /// One half of a page's turn; the other one is left, or the turn is over.
    fn turn(saved: &mut Saved, page: u8) {
        let begun = &mut saved.begun[usize::from(page)];
        *begun = !*begun;
    }

    fn pause(&self, saved: &mut Saved) -> (Vec<&'static str>, Vec<&'static str>) {
        saved.phase = Phase::Last;
        saved.moment = Some(Moment::of(&saved.guest));
        let mut broken: Vec<&str> = pages().flat_map(|page| self.broken(saved, page)).collect();
        broken.sort_unstable();
        broken.dedup();
        for page in pages() {
            saved.left[usize::from(page)] = self.again(saved, page);
        }
        let mut reached = Vec::new();
        for (at, sealed) in saved.sealed.iter().enumerate() {
            let page = u8::try_from(at).unwrap_or_default();
            let terms = saved.guest.state_at_rest(page).terms();
            if sealed.is_some_and(|sealed| saved.left[at] && sealed.state.terms() != terms) {
                reached.push("a page is sealed again because its terms changed");
            }
            if saved.left[at] && !saved.dirty[at] {
                reached.push("a page is sealed again though nothing marked it");
            }
            reached.extend((!saved.left[at]).then_some("a page needs no last round"));
        }
        (broken, reached)
    }

    fn restore(&self, saved: &Saved) -> (Vec<&'static str>, Vec<&'static str>) {
        let bodies = saved.sealed.map(|sealed| sealed.expect("every page was sealed"));
        let (cpu, epoch) = (saved.guest.cpu, saved.guest.epoch());
        let restored = self.images.restore(&Kept { bodies, cpu, sequence: 1, epoch }, None);
        let same = saved.moment.iter().zip(&restored).any(|(moment, guest)| moment.is(guest));
        let broken = if same { Vec::new() } else { vec!["L2"] };
        (broken, vec!["an image made in rounds is restored"])
    }
}

impl Model for Rounds {
    type State = Saved;
    type Event = Event;

    fn start(&self) -> Saved {
        let mut guest = Guest::building(1);
        guest.launch();
        let (acts, begun, sealed, left) = Default::default();
        let (dirty, phase, moment) = ([true; PAGES], Phase::Rounds, None);
        Saved { guest, acts, phase, dirty, begun, sealed, left, moment }
    }

    fn events(&self, saved: &Saved) -> Vec<Event> {
        let mut events = Vec::new();
        let runs = saved.phase == Phase::Rounds;
        if saved.acts < ACTS_MAX && saved.phase != Phase::Kept {
            events.extend(Act::all(&saved.guest, runs).into_iter().map(Event::Act));
        }
        let has = |list: [bool; PAGES], page: &u8| list[usize::from(*page)];
        match saved.phase {
            Phase::Rounds => {
                for page in pages() {
                    let late = self.is("clears-after-copy");
                    let halves = [Event::Clear(page), Event::Seal(page)];
                    let half = halves[usize::from(has(saved.begun, &page) != late)];
                    let due = has(saved.begun, &page) || has(saved.dirty, &page);
                    events.extend(due.then_some(half));
                }
                let ready =
                    saved.begun == [false; PAGES] && saved.sealed.iter().all(Option::is_some);
                events.extend(ready.then_some(Event::Pause));
            }
            Phase::Last => {
                let next = pages().find(|page| has(saved.left, page));
                events.push(next.map_or(Event::Finish, Event::SealLast));
            }
            Phase::Kept => events.push(Event::Restore),
        }
        events
    }

    fn apply(&self, saved: &Saved, event: Event) -> After<Saved> {
        let mut state = saved.clone();
        let (mut broken, mut reached) = (Vec::new(), Vec::new());
        match event {
            Event::Act(act) => reached = self.act(&mut state, act),
            Event::Clear(page) => {
                Self::turn(&mut state, page);
                state.dirty[usize::from(page)] = false;
            }
            Event::Seal(page) => {
                Self::turn(&mut state, page);
                state.sealed[usize::from(page)] = state.guest.export(page, Stream::Image);
            }
            Event::Pause => (broken, reached) = self.pause(&mut state),
            Event::SealLast(page) => {
                state.left[usize::from(page)] = false;
                state.sealed[usize::from(page)] = state.guest.export(page, Stream::Image);
                if let (true, Some(moment)) = (state.guest.writable(page), &mut state.moment) {
                    moment.renew(&state.guest, page);
                }
            }
            Event::Finish => state.phase = Phase::Kept,
            Event::Restore => (broken, reached) = self.restore(&state),
        }
        After { state, broken, reached }
    }
}

fn explore(wanted: Wanted) -> Found {
    super::explore(&Rounds { images: Images::default(), wrong: wanted.wrong }, wanted)
}
