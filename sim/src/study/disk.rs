//! An image on a disk that writes in its own order, loses what was not flushed when the power
//! goes, tears a write in two, and may come back as it was long ago.

use std::fmt;

use super::fooled::{self, Fooled};
use super::kept::{self, Image, Kept, Opened, PARTS, TRAILER, three};
use super::{After, Found, Model, Study, Wanted, Wrong};

/// The study of disks.
pub(super) const DISK: Study = Study {
    name: "disk",
    purpose: "power goes while an image is written, and any part of it may have reached the disk",
    bounds: "an image of 2 pages in 9 sectors, into a new file or over an older image; one crash",
    claims: &[],
    wrongs: &[
        Wrong {
            name: "torn-root",
            sentence: "a reader takes an image whose trailer was written in part, or not at all",
            caught_by: &["F6"],
        },
        Wrong {
            name: "tells-before-flush",
            sentence: "the root is told before the disk has the image",
            caught_by: &["L2"],
        },
    ],
    reaches: &[
        "the image survives",
        "the image is lost",
        "the older image survives",
        "a mixture is refused",
        "an older file is refused",
    ],
    explore,
};

/// Header and trailer are torn in two; a tear in another part is one in its bytes all the same.
const SECTORS: usize = PARTS + 2;

/// What is in a sector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Sector {
    /// Given to the file and never written.
    #[default]
    Zeroes,
    Older,
    Newest,
}

/// The disk, what it still has in its cache, and who knows what.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Disk {
    sectors: [Sector; SECTORS],
    /// How many sectors were written. None but the first `flushed` is sure to be there.
    written: usize,
    flushed: usize,
    /// Whether the owner knows the newest image's root.
    told: bool,
    /// What was in the file before, once a snapshot began.
    before: Option<Sector>,
    crashed: bool,
    /// Whether an older state of the disk came back.
    reverted: bool,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A snapshot begins: over the older image, or in a new file.
    Begin {
        over: bool,
    },
    Write,
    Flush,
    Tell,
    /// The power goes; of what was not flushed, the sectors of this set got there.
    Crash(u16),
    /// The disk comes back with the older image.
    Revert,
    Restore {
        pinned: bool,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { over: true } => f.write_str("an image is written over the older one"),
            Self::Begin { over: false } => f.write_str("an image is written to a new file"),
            Self::Write => f.write_str("write"),
            Self::Flush => f.write_str("flush"),
            Self::Tell => f.write_str("the owner is told the root"),
            Self::Crash(kept) => write!(f, "crash; of the last writes {kept:b} are kept"),
            Self::Revert => f.write_str("the disk is as it was before"),
            Self::Restore { pinned: true } => f.write_str("restore of the root that was told"),
            Self::Restore { pinned: false } => f.write_str("restore of whatever is there"),
        }
    }
}

struct Machine {
    /// Older and newest.
    images: Vec<Image>,
    opened: Vec<Opened>,
    wrong: Option<&'static str>,
}

impl Machine {
    fn new(wrong: Option<&'static str>) -> Self {
        let images: Vec<Image> = three().iter().take(2).map(Kept::image).collect();
        let open = |image: &Image| kept::read(&image.file(), Some(image.root)).expect("genuine");
        Self { opened: images.iter().map(open).collect(), images, wrong }
    }

    /// The file in its parts.
    fn parts(&self, disk: &Disk) -> Vec<Vec<u8>> {
        let bytes = |part: usize, sector: Sector| match sector {
            Sector::Zeroes => vec![0; self.images[0].parts[part].len()],
            Sector::Older => self.images[0].parts[part].clone(),
            Sector::Newest => self.images[1].parts[part].clone(),
        };
        let mut sectors = disk.sectors.iter().copied();
        let mut next = || sectors.next().unwrap_or_default();
        let part = |part| {
            let mut front = bytes(part, next());
            if part == 0 || part == TRAILER {
                let half = front.len() / 2;
                front.truncate(half);
                front.extend(&bytes(part, next())[half..]);
            }
            front
        };
        (0..PARTS).map(part).collect()
    }

    fn restore(&self, disk: &Disk, pinned: bool) -> (Vec<&'static str>, Vec<&'static str>) {
        let parts = self.parts(disk);
        let slices: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let fooled = (self.wrong == Some("torn-root")).then_some(Fooled::TornRoot);
        let pin = pinned.then(|| self.images[1].root);
        let verdict = fooled::read(fooled, &self.images, &slices, pin).ok();
        let whole = |sector: Sector| disk.sectors == [sector; SECTORS];
        let mut broken = Vec::new();
        let sealed = [Sector::Older, Sector::Newest].map(whole);
        let mut genuine = sealed.iter().zip(&self.opened).filter(|(there, _)| **there);
        let expected = genuine.next().map(|(_, opened)| opened);
        let older = expected == self.opened.first();
        if verdict.as_ref() != expected.filter(|_| !(pinned && older)) {
            broken.push("F6");
        }
        // A disk that lies about its past keeps no promise; nobody is told a lie by it.
        if disk.told && !disk.reverted && verdict.as_ref() != Some(&self.opened[1]) {
            broken.push("L2");
        }
        let name = match (verdict, disk.told) {
            (Some(_), true) => "the image survives",
            (Some(_), false) if older && disk.crashed => "the older image survives",
            (None, _) if older => "an older file is refused",
            (None, _) if sealed == [false; 2] && disk.sectors.contains(&Sector::Zeroes) => {
                "the image is lost"
            }
            (None, _) => "a mixture is refused",
            (Some(_), false) => return (broken, Vec::new()),
        };
        (broken, vec![name])
    }
}

impl Model for Machine {
    type State = Disk;
    type Event = Event;

    fn start(&self) -> Disk {
        Disk { sectors: [Sector::Older; SECTORS], ..Disk::default() }
    }

    fn events(&self, disk: &Disk) -> Vec<Event> {
        let mut events = vec![Event::Restore { pinned: false }];
        events.extend(disk.told.then_some(Event::Restore { pinned: true }));
        events.extend((disk.told && !disk.reverted).then_some(Event::Revert));
        if disk.crashed {
            return events;
        }
        if disk.before.is_none() {
            events.extend([true, false].map(|over| Event::Begin { over }));
            return events;
        }
        events.extend((disk.written < SECTORS).then_some(Event::Write));
        events.extend((disk.flushed < disk.written).then_some(Event::Flush));
        let early = self.wrong == Some("tells-before-flush");
        let safe = if early { disk.written } else { disk.flushed };
        events.extend((safe == SECTORS && !disk.told).then_some(Event::Tell));
        if !disk.reverted {
            let open = disk.written - disk.flushed;
            events.extend((0..1_u16 << open).map(Event::Crash));
        }
        events
    }

    fn apply(&self, disk: &Disk, event: Event) -> After<Disk> {
        let mut state = disk.clone();
        match event {
            Event::Begin { over } => {
                let before = if over { Sector::Older } else { Sector::Zeroes };
                (state.before, state.sectors) = (Some(before), [before; SECTORS]);
            }
            Event::Write => {
                state.sectors[disk.written] = Sector::Newest;
                state.written += 1;
            }
            Event::Flush => state.flushed = disk.written,
            Event::Tell => state.told = true,
            Event::Crash(kept) => {
                state.crashed = true;
                let before = disk.before.unwrap_or_default();
                let cached = state.sectors[disk.flushed..disk.written].iter_mut().enumerate();
                cached.filter(|(at, _)| kept >> at & 1 == 0).for_each(|(_, lost)| *lost = before);
            }
            Event::Revert => {
                state.sectors = [Sector::Older; SECTORS];
                state.reverted = true;
            }
            Event::Restore { pinned } => {
                let (broken, reached) = self.restore(disk, pinned);
                return After { state, broken, reached };
            }
        }
        After { state, ..After::default() }
    }
}

fn explore(wanted: Wanted) -> Found {
    super::explore(&Machine::new(wanted.wrong), wanted)
}
