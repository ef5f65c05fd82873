//! A Xen PV guest's page table that is saved, and loaded again where its pages are in other frames.
//!
//! The core has the tables of pages and frames, and makes both forms. The guest writes what it
//! likes into its table, and the management side hands over canonical forms of its own.

use std::fmt;

use view_core::page_table::{BadEntry, Level, PageNumbers, canonicalise, decanonicalise};
use view_core::{Frame, Gfn, Owner, Page, Slot};

use super::small_vm::{frame, gfn, launched};
use super::{After, Claim, Model, Study, Wrong, explore};

/// The study.
pub(super) const STUDY: Study = Study {
    name: "page-tables",
    purpose: "page tables that hold frames of the host: saved, moved and loaded",
    bounds: "2 VMs, 2 pages in 3 frames, 3 levels, 2 entries of 9 kinds, 1 entry of Xen's",
    claims: &[Claim {
        id: "I10",
        sentence: "A page table that is loaded from its canonical form is what it was: present \
                   entries name the same pages with the same flags, all others are the same bits, \
                   and none names a frame that is not the VM's.",
    }],
    wrongs: &[
        Wrong {
            name: "translates-absent",
            sentence: "entries that are not present are given other numbers too",
            caught_by: &["I10"],
        },
        Wrong {
            name: "clears-absent",
            sentence: "entries that are not present are saved as zeroes",
            caught_by: &["I10"],
        },
        Wrong {
            name: "drops-high-flags",
            sentence: "an entry's flags above the number are lost when it is given another",
            caught_by: &["I10"],
        },
        Wrong {
            name: "believes-numbers",
            sentence: "which frame backs which page is read from a list of the management side",
            caught_by: &["I10"],
        },
        Wrong {
            name: "loads-old-frames",
            sentence: "a table is loaded with the frames that its pages had when it was saved",
            caught_by: &["I10"],
        },
        Wrong {
            name: "takes-superpage",
            sentence: "an entry that maps more than a page is taken for one that maps a page",
            caught_by: &["I10"],
        },
    ],
    reaches: &[
        "a table is loaded into other frames",
        "an entry that is not present comes back",
        "a frame of another VM is refused",
        "a superpage is refused",
        "a page that the VM has not is refused",
    ],
    explore: |wanted| explore(&Machine { wrong: wanted.wrong }, wanted),
};

/// The entries that the guest writes, and the first of those that Xen has for itself in a root.
const ENTRIES: [usize; 2] = [0, 511];
const XENS: usize = 256;
/// The frame of the other VM's only page, and one of Xen's.
const ANOTHERS: u8 = 3;
const XEN_FRAME: u64 = 4;

const PRESENT: u64 = 1;
const NUMBER: u64 = 0x000f_ffff_ffff_f000;
/// Writable, accessed, and what software and NX have above the number.
const FLAGS: u64 = 0x8010_0000_0000_0022;

/// What the guest means by an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    /// Nothing.
    #[default]
    Empty,
    /// Not present: where it swapped a page to, in bits that could be a frame's.
    Swapped(u8),
    /// One of its pages, with no flag or with many.
    Maps(u8, bool),
    /// A frame that is not its own.
    Another,
    /// More than a page at once, from one of its pages on.
    Superpage,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    level: Level,
    /// Which frame each page of the guest is in.
    frames: [u8; 2],
    /// What the guest wrote last.
    meant: [Meaning; 2],
    /// The canonical form, while the guest stands still; the frames then, and whether the
    /// management side put another page's number there.
    saved: Option<([u64; 2], [u8; 2], bool)>,
}

impl Default for State {
    fn default() -> Self {
        Self { level: Level::One, frames: [0, 1], meant: [Meaning::Empty; 2], saved: None }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    IsAt(Level),
    Write(usize, Meaning),
    Save,
    Move(usize, u8),
    Forge(usize),
    Load,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsAt(level) => write!(f, "the table is of level {level:?}"),
            Self::Write(entry, meaning) => write!(f, "entry {} = {meaning:?}", ENTRIES[*entry]),
            Self::Save => f.write_str("the table is saved"),
            Self::Move(page, frame) => write!(f, "page {page} goes to frame {frame}"),
            Self::Forge(entry) => write!(f, "entry {} is handed over forged", ENTRIES[*entry]),
            Self::Load => f.write_str("the table is loaded"),
        }
    }
}

struct Machine {
    wrong: Option<&'static str>,
}

impl Model for Machine {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        State::default()
    }

    fn events(&self, state: &State) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some((_, _, forged)) = state.saved {
            let free = (0..3).find(|frame| !state.frames.contains(frame)).expect("one of three");
            events.extend((0..2).map(|page| Event::Move(page, free)));
            events.extend((0..2).filter(|_| !forged).map(Event::Forge));
            events.push(Event::Load);
            return events;
        }
        if *state == State::default() {
            events.extend([Level::Two, Level::Four].map(Event::IsAt));
        }
        let kinds = [Meaning::Empty, Meaning::Another, Meaning::Superpage];
        let kinds = kinds.into_iter().chain((0..2).map(Meaning::Swapped));
        let maps = (0..4).map(|which| Meaning::Maps(which / 2, which % 2 == 1));
        let kinds: Vec<Meaning> = kinds.chain(maps).collect();
        for entry in 0..2 {
            events.extend(kinds.iter().map(|kind| Event::Write(entry, *kind)));
        }
        events.push(Event::Save);
        events
    }

    fn apply(&self, state: &State, event: Event) -> After<State> {
        let mut after = After { state: state.clone(), ..After::default() };
        match event {
            Event::IsAt(level) => after.state.level = level,
            Event::Write(entry, meaning) => after.state.meant[entry] = meaning,
            Event::Save => self.save(&mut after),
            Event::Move(page, frame) => after.state.frames[page] = frame,
            Event::Forge(entry) => {
                if let Some((entries, _, forged)) = &mut after.state.saved {
                    // The VM has two pages; its third would be the frame that follows theirs.
                    (entries[entry], *forged) = (u64::from(ANOTHERS) << 12 | PRESENT, true);
                }
            }
            Event::Load => self.load(&mut after),
        }
        after
    }
}

/// What the guest wrote, where its pages are in these frames.
fn entry(meaning: Meaning, frames: [u8; 2]) -> u64 {
    let at = |frame: u8| u64::from(frame) << 12;
    match meaning {
        Meaning::Empty => 0,
        Meaning::Swapped(number) => at(number) | 0x5ec0_0000_0000_0040,
        Meaning::Maps(page, flags) => {
            at(frames[usize::from(page)]) | PRESENT | if flags { FLAGS } else { 0 }
        }
        Meaning::Another => at(ANOTHERS) | PRESENT,
        Meaning::Superpage => at(frames[0]) | PRESENT | 0x80,
    }
}

/// A table with these entries, and one of Xen's if it is a root on a host.
fn table(entries: [u64; 2], xens: u64) -> Box<Page> {
    let mut page = Box::new(Page::zeroed());
    let all = ENTRIES.into_iter().zip(entries).chain([(XENS, xens)]);
    all.for_each(|(at, entry)| {
        page.bytes_mut()[at * 8..at * 8 + 8].copy_from_slice(&entry.to_le_bytes());
    });
    page
}

fn word(page: &Page, at: usize) -> u64 {
    u64::from_le_bytes(page.bytes()[at * 8..at * 8 + 8].try_into().expect("eight bytes"))
}

impl Machine {
    fn is(&self, wrong: &str) -> bool {
        self.wrong == Some(wrong)
    }

    fn save(&self, after: &mut After<State>) {
        let State { level, frames, meant, .. } = after.state;
        let xens = if level == Level::Four { XEN_FRAME << 12 | PRESENT } else { 0 };
        let page = table(meant.map(|meaning| entry(meaning, frames)), xens);
        match self.translate(level, frames, &page, true) {
            Ok(canonical) => {
                let entries = ENTRIES.map(|at| word(&canonical, at));
                let wanted = meant.map(|meaning| entry(meaning, [0, 1]));
                let own = !meant.contains(&Meaning::Another);
                let whole = level == Level::One || !meant.contains(&Meaning::Superpage);
                if entries != wanted || !own || !whole || word(&canonical, XENS) != 0 {
                    after.broken.push("I10");
                }
                after.state.saved = Some((entries, frames, false));
            }
            Err(_) if meant.contains(&Meaning::Another) => {
                after.reached.push("a frame of another VM is refused");
            }
            Err(_) => after.reached.push("a superpage is refused"),
        }
    }

    fn load(&self, after: &mut After<State>) {
        let State { level, frames, meant, saved } = after.state.clone();
        let Some((entries, old, forged)) = saved else { return };
        after.state.saved = None;
        let there = if self.is("loads-old-frames") { old } else { frames };
        match self.translate(level, there, &table(entries, 0), false) {
            Ok(loaded) => {
                let wanted = meant.map(|meaning| entry(meaning, frames));
                if ENTRIES.map(|at| word(&loaded, at)) != wanted || forged {
                    after.broken.push("I10");
                }
                if old != frames {
                    after.reached.push("a table is loaded into other frames");
                }
                if meant.iter().any(|meaning| matches!(meaning, Meaning::Swapped(_))) {
                    after.reached.push("an entry that is not present comes back");
                }
            }
            // The guest goes on elsewhere, or not at all: this table is gone.
            Err(_) => {
                after.state.meant = [Meaning::Empty; 2];
                after.reached.push("a page that the VM has not is refused");
            }
        }
    }

    /// The shipped core, or what stands in for it in a machine that is wrong.
    fn translate(
        &self,
        level: Level,
        frames: [u8; 2],
        from: &Page,
        saves: bool,
    ) -> Result<Box<Page>, BadEntry> {
        let (slots, others) = ([const { Slot::new() }; 2], [Slot::new()]);
        let owners = [const { Owner::new() }; 5];
        let vm = launched(0, &frames, (&slots, &owners, &[]), &[]);
        launched(1, &[ANOTHERS], (&others, &owners, &[]), &[]);
        let listed = Listed(frames);
        let mut to = Box::new(Page::zeroed());
        let level = if self.is("takes-superpage") { Level::One } else { level };
        let done = match (self.is("believes-numbers"), saves) {
            (true, true) => canonicalise(&listed, level, from, &mut to),
            (true, false) => decanonicalise(&listed, level, from, &mut to),
            (false, true) => canonicalise(&vm, level, from, &mut to),
            (false, false) => decanonicalise(&vm, level, from, &mut to),
        };
        done?;
        for at in ENTRIES {
            let entry = self.spoil(word(from, at), word(&to, at), &listed, saves);
            to.bytes_mut()[at * 8..at * 8 + 8].copy_from_slice(&entry.to_le_bytes());
        }
        Ok(to)
    }

    /// An entry as a machine that is wrong makes it; otherwise as the core made it.
    fn spoil(&self, from: u64, to: u64, numbers: &Listed, saves: bool) -> u64 {
        let present = from & PRESENT != 0;
        if self.is("drops-high-flags") && present {
            to & (NUMBER | 0xfff)
        } else if self.is("clears-absent") && saves && !present {
            0
        } else if self.is("translates-absent") && !present {
            let number = (from & NUMBER) >> 12;
            let other = if saves {
                numbers.gfn(frame(number)).map(Gfn::number)
            } else {
                numbers.frame(gfn(number)).map(Frame::number)
            };
            from & !NUMBER | other.unwrap_or(number) << 12
        } else {
            to
        }
    }
}

/// A list that the management side wrote: the guest's pages where they are, and each frame that is
/// not theirs as the page with its own number.
struct Listed([u8; 2]);

impl PageNumbers for Listed {
    fn gfn(&self, frame: Frame) -> Option<Gfn> {
        let own = self.0.iter().position(|own| u64::from(*own) == frame.number());
        Some(own.map_or(gfn(frame.number()), |page| gfn(page as u64)))
    }

    fn frame(&self, gfn: Gfn) -> Option<Frame> {
        let own = usize::try_from(gfn.number()).ok().and_then(|page| self.0.get(page));
        Some(own.map_or(frame(gfn.number()), |own| frame((*own).into())))
    }
}
