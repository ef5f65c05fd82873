//! A snapshot of a running guest, as frontend-kvm takes it: stores are watched while the guest
//! runs, at one moment it stands still, and from then on a page is sealed before it changes.

use std::fmt;

use view_core::suite::Stream;

use super::acts::Act;
use super::guest::{Guest, PAGES, Sealed, pages};
use super::kept::Kept;
use super::moment::{Forgets, Images, Moment, SAVE_AND_RESTORE};
use super::{After, Found, Model, Study, Wanted, Wrong};

const fn wrong(name: &'static str, sentence: &'static str) -> Wrong {
    Wrong { name, sentence, caught_by: &["L2"] }
}

/// The study of snapshots.
pub(super) const SNAPSHOT: Study = Study {
    name: "snapshot",
    purpose: "a guest is saved while it runs, its host crashes, and the image is restored",
    bounds: "2 pages, 3 acts of guest and management, 2 images, crashes at any step",
    claims: &[SAVE_AND_RESTORE],
    wrongs: &[
        wrong("forgets-stored", "what was stored to while pages were armed is not armed again"),
        wrong("seals-after-change", "a page is sealed for the image after it changed"),
        wrong("seals-open-later", "open pages wait for their turn, though nobody watches them"),
        wrong("saves-cpu-late", "the CPU is saved when the last page is sealed"),
        wrong("seals-excluded", "the bytes of an excluded page are sealed, not zeroes"),
        wrong("forgets-terms", "a restore opens no page again"),
        wrong("forgets-exclusion", "a restore does not exclude a page again"),
    ],
    reaches: &[
        "a store while pages are armed",
        "a store waits for its page to be sealed",
        "a change of terms waits for its page to be sealed",
        "an open page is sealed at the moment",
        "a guest is restored",
        "an excluded page is restored as zeroes",
        "an open page is open again",
        "a host crashes while an image is made",
        "a restored guest is saved again",
    ],
    explore,
};

const ACTS_MAX: u8 = 3;
const IMAGES_MAX: u8 = 2;

/// How far a snapshot is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Idle,
    Arming,
    Frozen,
}

/// A guest, the snapshot that is being taken of it, and the one that is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Host {
    /// None after a crash.
    guest: Option<Guest>,
    acts: u8,
    phase: Phase,
    /// Stores to these stop first.
    armed: [bool; PAGES],
    /// What was stored to or mapped anew since arming began.
    noted: [bool; PAGES],
    sealed: [Option<Sealed>; PAGES],
    cpu: u8,
    moment: Option<Moment>,
    images: u8,
    kept: Option<(Kept, Moment)>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Act(Act),
    Begin,
    Arm(u8),
    Freeze,
    Seal(u8),
    Finish,
    Crash,
    Restore,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Act(act) => act.fmt(f),
            Self::Begin => f.write_str("snapshot begins"),
            Self::Arm(page) => write!(f, "stores to page {page} are watched"),
            Self::Freeze => f.write_str("the moment"),
            Self::Seal(page) => write!(f, "page {page} is sealed in its turn"),
            Self::Finish => f.write_str("the image is kept"),
            Self::Crash => f.write_str("host crashes"),
            Self::Restore => f.write_str("the image is restored"),
        }
    }
}

struct Snapshots {
    images: Images,
    wrong: Option<&'static str>,
}

impl Snapshots {
    fn is(&self, wrong: &str) -> bool {
        self.wrong == Some(wrong)
    }

    /// Seals a page for the image, once.
    fn secure(&self, host: &mut Host, page: u8) -> bool {
        let at = usize::from(page);
        let (Some(guest), None) = (&mut host.guest, host.sealed[at]) else { return false };
        let mut sealed = guest.export(page, Stream::Image);
        if let (true, Some(sealed)) = (self.is("seals-excluded"), &mut sealed) {
            sealed.inner = guest.memory[at];
        }
        host.sealed[at] = sealed;
        host.armed[at] = false;
        true
    }

    fn act(&self, host: &mut Host, act: Act) -> Vec<&'static str> {
        let (page, at) = (act.page(), usize::from(act.page()));
        let stores = matches!(act, Act::Store(_));
        // Stores are seen where they are watched, changes of terms always, the rest never.
        let seen = act.changes_terms() || stores && host.armed[at];
        let mut reached = Vec::new();
        let late = self.is("seals-after-change");
        if late && let Some(guest) = &mut host.guest {
            act.apply(guest);
        }
        if seen && host.phase == Phase::Arming {
            host.noted[at] = true;
            host.armed[at] = false;
            reached.extend(stores.then_some("a store while pages are armed"));
        }
        if seen && host.phase == Phase::Frozen && self.secure(host, page) {
            reached.push(match stores {
                true => "a store waits for its page to be sealed",
                false => "a change of terms waits for its page to be sealed",
            });
        }
        if let (false, Some(guest)) = (late, &mut host.guest) {
            act.apply(guest);
        }
        reached
    }

    /// What nobody could run between: the CPU is saved, what was noted is armed, and open pages,
    /// to which the management side may write unseen, are sealed.
    fn freeze(&self, host: &mut Host) -> Vec<&'static str> {
        let Some(guest) = &host.guest else { return Vec::new() };
        host.phase = Phase::Frozen;
        host.cpu = guest.cpu;
        host.moment = Some(Moment::of(guest));
        let open = pages().filter(|page| guest.state(*page).terms().is_some());
        let open: Vec<u8> = open.collect();
        if !self.is("forgets-stored") {
            for (armed, noted) in host.armed.iter_mut().zip(host.noted) {
                *armed |= noted;
            }
        }
        if open.is_empty() || self.is("seals-open-later") {
            return Vec::new();
        }
        for page in open {
            self.secure(host, page);
        }
        vec!["an open page is sealed at the moment"]
    }

    fn finish(&self, host: &mut Host) {
        let bodies = host.sealed.map(|sealed| sealed.expect("every page was sealed"));
        let Some(guest) = &host.guest else { return };
        let cpu = if self.is("saves-cpu-late") { guest.cpu } else { host.cpu };
        let (sequence, epoch) = (host.images, guest.epoch());
        host.kept =
            host.moment.take().map(|moment| (Kept { bodies, cpu, sequence, epoch }, moment));
        host.forget_snapshot();
    }

    fn restore(&self, host: &mut Host) -> (Vec<&'static str>, Vec<&'static str>) {
        let Some((kept, moment)) = &host.kept else { return Default::default() };
        let forgets = match self.wrong {
            Some("forgets-terms") => Some(Forgets::Terms),
            Some("forgets-exclusion") => Some(Forgets::Exclusion),
            _ => None,
        };
        host.guest = self.images.restore(kept, forgets);
        let same = host.guest.as_ref().is_some_and(|guest| moment.is(guest));
        let broken = if same { Vec::new() } else { vec!["L2"] };
        let mut reached = vec!["a guest is restored"];
        if kept.bodies.iter().any(|sealed| sealed.excluded) {
            reached.push("an excluded page is restored as zeroes");
        }
        if kept.bodies.iter().any(|sealed| sealed.state.terms().is_some()) {
            reached.push("an open page is open again");
        }
        (broken, reached)
    }
}

impl Host {
    fn forget_snapshot(&mut self) {
        self.phase = Phase::Idle;
        (self.armed, self.noted, self.sealed) = Default::default();
        (self.cpu, self.moment) = (0, None);
    }
}

impl Model for Snapshots {
    type State = Host;
    type Event = Event;

    fn start(&self) -> Host {
        let mut guest = Guest::building(1);
        guest.launch();
        let (acts, armed, noted, sealed) = Default::default();
        let (cpu, moment, images, kept) = Default::default();
        let (guest, phase) = (Some(guest), Phase::Idle);
        Host { guest, acts, phase, armed, noted, sealed, cpu, moment, images, kept }
    }

    fn events(&self, host: &Host) -> Vec<Event> {
        let Some(guest) = &host.guest else {
            return host.kept.iter().map(|_| Event::Restore).collect();
        };
        let mut events = vec![Event::Crash];
        if host.acts < ACTS_MAX {
            events.extend(Act::all(guest, true).into_iter().map(Event::Act));
        }
        let all = |page: &u8| host.armed[usize::from(*page)] || host.noted[usize::from(*page)];
        let waiting = |page: &u8| host.sealed[usize::from(*page)].is_none();
        match host.phase {
            Phase::Idle => events.extend((host.images < IMAGES_MAX).then_some(Event::Begin)),
            Phase::Arming => {
                let next = pages().find(|page| !all(page));
                events.push(next.map_or(Event::Freeze, Event::Arm));
            }
            Phase::Frozen => {
                events.push(pages().find(waiting).map_or(Event::Finish, Event::Seal));
            }
        }
        events
    }

    fn apply(&self, host: &Host, event: Event) -> After<Host> {
        let mut state = host.clone();
        let (mut broken, mut reached) = (Vec::new(), Vec::new());
        match event {
            Event::Act(act) => {
                state.acts += 1;
                reached = self.act(&mut state, act);
            }
            Event::Begin => {
                state.phase = Phase::Arming;
                state.images += 1;
                let again = host.guest.as_ref().is_some_and(|guest| guest.epoch() > 1);
                reached.extend(again.then_some("a restored guest is saved again"));
            }
            Event::Arm(page) => state.armed[usize::from(page)] = true,
            Event::Freeze => reached = self.freeze(&mut state),
            Event::Seal(page) => {
                self.secure(&mut state, page);
            }
            Event::Finish => self.finish(&mut state),
            Event::Crash => {
                let making = host.phase != Phase::Idle;
                reached.extend(making.then_some("a host crashes while an image is made"));
                state.forget_snapshot();
                state.guest = None;
            }
            Event::Restore => (broken, reached) = self.restore(&mut state),
        }
        After { state, broken, reached }
    }
}

fn explore(wanted: Wanted) -> Found {
    super::explore(&Snapshots { images: Images::default(), wrong: wanted.wrong }, wanted)
}
