//! A page of which only some fields show: `start_info`, by which a Xen guest and its toolstack
//! find each other, and beside what is needed there the guest's command line.
//!
//! The core decides which mask a page is open under, and copies the fields. The machine keeps the
//! copy from one opening to the next, as a frontend with one buffer does.

use std::fmt;

use view_core::mask::XEN_START_INFO;
use view_core::suite::Tag;
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Rule};
use view_core::{
    Copies, Field, Mask, MaskId, OpenStep, Owner, PAGE_SIZE, Page, PageState, Perm, Platform,
    SealStep, Slot, Target, View, What, show_fields,
};

use super::small_vm::{act, gfn, launched};
use super::{After, Claim, Model, Study, Wrong, explore};

/// The study.
pub(super) const STUDY: Study = Study {
    name: "masks",
    purpose: "what shows of a page that is open under a field mask",
    bounds: "1 page of 8 fields, 3 masks, 1 buffer",
    claims: &[Claim {
        id: "C5",
        sentence: "Of an open page the management side sees the fields of the mask that it is \
                   open under, and zeroes elsewhere.",
    }],
    wrongs: &[
        Wrong {
            name: "shows-all-fields",
            sentence: "a page that is open under a mask is mapped whole",
            caught_by: &["C5"],
        },
        Wrong {
            name: "mask-too-wide",
            sentence: "the last field of a mask is eight bytes longer than it should be",
            caught_by: &["C5"],
        },
        Wrong {
            name: "takes-next-mask",
            sentence: "masks are counted from zero, so that the one after is taken",
            caught_by: &["C5"],
        },
        Wrong {
            name: "keeps-copy",
            sentence: "fields are copied over what the buffer showed under another mask",
            caught_by: &["C5"],
        },
    ],
    reaches: &["a field shows", "a field is hidden", "a whole page shows", "nothing shows"],
    explore: |wanted| explore(&Machine { wrong: wanted.wrong }, wanted),
};

/// Name, first byte and length of what the guest stores to, and whether a toolstack needs it: from
/// the layout of `struct start_info`, not from the mask.
const FIELDS: [(&str, usize, usize, bool); 8] = [
    ("magic", 0, 32, false),
    ("nr_pages", 32, 8, true),
    ("store_mfn", 56, 8, true),
    ("store_evtchn", 64, 4, true),
    ("console_evtchn", 80, 4, true),
    ("pt_base", 88, 8, false),
    ("cmd_line", 128, 1024, false),
    ("the end of the page", PAGE_SIZE - 8, 8, false),
];

/// Which fields each mask of the VM is meant to show, in the order of [`MaskId`]s from 1.
const SHOWN: [fn(usize) -> bool; 2] = [|field| FIELDS[field].3, |field| field == 0];

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    /// Which fields the guest stored to.
    stored: [bool; FIELDS.len()],
    /// The mask that the page is open under; 0 is no mask, but the whole page.
    open: Option<u8>,
    /// What the management side has mapped shows these fields.
    shown: [bool; FIELDS.len()],
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Store(usize),
    Share(u8),
    Unshare,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(field) => write!(f, "the guest stores to {}", FIELDS[*field].0),
            Self::Share(mask) => write!(f, "the guest opens the page under mask {mask}"),
            Self::Unshare => f.write_str("the guest closes the page"),
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
        let closed = state.open.is_none();
        let stores = (0..FIELDS.len()).filter(|field| closed && !state.stored[*field]);
        let shares = (0..=2).filter(|_| closed).map(Event::Share);
        let closes = (!closed).then_some(Event::Unshare);
        stores.map(Event::Store).chain(shares).chain(closes).collect()
    }

    fn apply(&self, state: &State, event: Event) -> After<State> {
        let mut after = After { state: state.clone(), ..After::default() };
        match event {
            Event::Store(field) => after.state.stored[field] = true,
            Event::Share(mask) => self.share(mask, &mut after),
            Event::Unshare => (after.state.open, after.reached) = (None, vec!["nothing shows"]),
        }
        after
    }
}

impl Machine {
    /// The guest rings, the core decides, the platform shows, and what shows is looked at.
    fn share(&self, mask: u8, after: &mut After<State>) {
        let wide = [Field::fixed::<32, 20>(), Field::fixed::<56, 12>(), Field::fixed::<72, 20>()];
        let start_info = if self.is("mask-too-wide") { Mask(&wide) } else { XEN_START_INFO };
        let magic = [Field::fixed::<0, 32>()];
        let masks = [start_info, Mask(&magic)];
        let (slots, owners) = ([Slot::new()], [Owner::new()]);
        let leases = [Lease::new()];
        let vm = launched(0, &[0], (&slots, &owners, &leases), &masks);
        let (page, last) = (bytes(&after.state.stored), bytes(&after.state.shown));
        let mut platform = Showing { machine: self, masks: &masks, page, shown: last };
        let mask_word = mask.into();
        let fact =
            DoorbellFact { vm: vm.number(), call: 1, gfn: 0, perm: 1, mask: mask_word, expiry: 0 };
        let proposal = Doorbell.infer(&vm, &fact).expect("a page and a mask of its own");
        act(&vm, gfn(0), proposal.act().1, &mut platform).expect("the page is private");
        after.state.open = match vm.state(gfn(0)) {
            Some(PageState::Open { mask, .. }) => Some(mask.number()),
            _ => None,
        };
        after.state.shown = looks(&platform.shown, mask, after);
    }

    fn is(&self, wrong: &str) -> bool {
        self.wrong == Some(wrong)
    }
}

/// A page with something in each of these fields.
fn bytes(fields: &[bool; FIELDS.len()]) -> Box<Page> {
    let mut page = Box::new(Page::zeroed());
    for ((_, start, len, _), _) in FIELDS.iter().zip(fields).filter(|(_, stored)| **stored) {
        page.bytes_mut()[*start..start + len].fill(0xa5);
    }
    page
}

/// The management side looks at every byte: which fields show, and whether one does that must not.
fn looks(shown: &Page, mask: u8, after: &mut After<State>) -> [bool; FIELDS.len()] {
    let may = |field| mask == 0 || SHOWN[usize::from(mask) - 1](field);
    let shows = |(_, start, len, _): &(&str, usize, usize, bool)| {
        shown.bytes()[*start..start + len].iter().any(|byte| *byte != 0)
    };
    let fields = FIELDS.each_ref().map(shows);
    let of_fields: usize = FIELDS.iter().map(|(_, start, len, _)| count(shown, *start, *len)).sum();
    let nowhere = of_fields != count(shown, 0, PAGE_SIZE);
    if nowhere || (0..FIELDS.len()).any(|field| fields[field] && !may(field)) {
        after.broken.push("C5");
    }
    for (field, shows) in fields.into_iter().enumerate() {
        after.reached.push(match (shows, mask) {
            (true, 0) => "a whole page shows",
            (true, _) => "a field shows",
            (false, _) if after.state.stored[field] => "a field is hidden",
            (false, _) => continue,
        });
    }
    fields
}

/// Bytes that show in a run of a page.
fn count(shown: &Page, start: usize, len: usize) -> usize {
    shown.bytes()[start..start + len].iter().filter(|byte| **byte != 0).count()
}

/// A platform with one page and one buffer.
struct Showing<'m> {
    machine: &'m Machine,
    masks: &'m [Mask<'m>],
    page: Box<Page>,
    shown: Box<Page>,
}

impl Showing<'_> {
    fn show(&mut self, mask: MaskId) {
        let mask = match MaskId::new(mask.number() + 1) {
            Some(next) if self.machine.is("takes-next-mask") => next,
            _ => mask,
        };
        let last = self.shown.clone();
        let _ = show_fields(self.masks, mask, &self.page, &mut self.shown);
        if self.machine.is("keeps-copy") {
            let both = self.shown.bytes_mut().iter_mut().zip(last.bytes());
            both.for_each(|(now, last)| *now |= last);
        }
    }
}

impl Platform for Showing<'_> {
    type Fault = ();

    fn withdraw(&mut self, _: &Target, _: View) -> Result<(), ()> {
        Ok(())
    }

    fn fence(&mut self) -> Result<(), ()> {
        Ok(())
    }

    fn fetch(&mut self, _: &Target) -> Result<(), ()> {
        Ok(())
    }

    fn seal(&mut self, _: &[SealStep], _: &mut [Tag]) -> Result<(), ()> {
        Ok(())
    }

    fn open(&mut self, _: &[OpenStep], _: &mut [bool]) -> Result<(), ()> {
        Ok(())
    }

    fn scrub(&mut self, _: &Target, _: Copies) -> Result<(), ()> {
        Ok(())
    }

    fn grant(&mut self, _: &Target, view: View, what: What, _: Perm) -> Result<(), ()> {
        match (view, what) {
            (View::Management, What::Masked(_)) if self.machine.is("shows-all-fields") => {
                self.shown.clone_from(&self.page);
            }
            (View::Management, What::Masked(mask)) => self.show(mask),
            (View::Management, What::Plain) => self.shown.clone_from(&self.page),
            _ => {}
        }
        Ok(())
    }
}
