//! Two runs of one machine side by side: the same events, other bytes in private. Whoever looks
//! must not be able to tell them apart.
//!
//! No look at one run shows this: that a page changed, that two pages are equal, that a page is
//! blank can be told without a single byte of it. So pairs of states are explored, and after each
//! event what is seen of the two is compared.
//!
//! The runs part in what guests store in private, and nowhere else. At each such store the first
//! run writes something new, and the second the same or whatever [`Product::parts`] offers; or both
//! write what it offers. Every mixture is explored. To look alike is transitive: what holds of such
//! a first run and of any other holds of any two others.
//!
//! What an owner shows may be told, so only runs that show the same are compared: an event that
//! opens a page is tried where both hold the same bytes in it. That is a condition on what owners
//! do, never on what is seen. Two runs that agree in what is ever shown, and in nothing else, are
//! among those explored, with a first run that is new wherever nothing is shown.

pub mod sight;

use std::fmt;

use crate::bytes::{Bytes, Plain};
use crate::config::Config;
use crate::event::{Ask, Event, PageRef};
use crate::mutant::Mutant;
use crate::resume::resume;
use crate::state::State;
use crate::study::{After, Model};
use crate::world::{World, play};
use sight::{Alike, Sight, value};

/// Two runs, how they may differ and who looks at them.
#[derive(Clone, Copy, Debug)]
pub struct Product<'a> {
    /// The bounds of both.
    pub config: &'a Config,
    /// What is wrong with both.
    pub mutant: Option<Mutant>,
    /// What else may be stored in a page of the owner's own than something new.
    pub parts: fn(&World<'_>, PageRef) -> Vec<Plain>,
    /// What is seen of a run.
    pub sees: fn(&World<'_>) -> Sight,
    /// What is broken when the two look different.
    pub claim: &'static str,
}

/// The states of two runs, and which of their sealed pages stand for each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    first: State,
    second: State,
    alike: Alike,
}

/// An event of both runs, and what each stores by it if not something new.
#[derive(Clone, Copy, Debug)]
pub struct Both {
    event: Event,
    writes: [Option<Plain>; 2],
}

impl fmt::Display for Both {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.event.fmt(f)?;
        let [first, second] = self.writes.map(written);
        match self.writes {
            [None, None] => Ok(()),
            [None, Some(_)] => write!(f, " (the other run: {second})"),
            [Some(_), _] => write!(f, " ({first}; the other run: {second})"),
        }
    }
}

/// What a store writes, in words.
fn written(plain: Option<Plain>) -> String {
    match plain {
        None => "something new".to_owned(),
        Some(Plain::Zero) => "zeroes".to_owned(),
        Some(Plain::Public) => "what management writes".to_owned(),
        Some(Plain::Shared(store) | Plain::Secret(store)) => format!("what store {store} wrote"),
    }
}

/// What one run shows and does by an event.
struct Shown {
    state: State,
    sight: Sight,
    seals: Vec<crate::bytes::Seal>,
    /// What each page's owner would read.
    latest: Vec<Plain>,
}

impl Product<'_> {
    fn on<R>(&self, state: &State, then: impl FnOnce(&mut World<'_>) -> R) -> R {
        resume(self.config, self.mutant, state, then)
    }

    fn shown(&self, state: &State, event: Event, writes: Option<Plain>) -> Shown {
        self.on(state, |world| {
            world.writes = writes;
            world.apply(event);
            Shown {
                state: world.state_now(),
                sight: (self.sees)(world),
                seals: world.machine.noted.seals.iter().map(|(seal, _)| *seal).collect(),
                latest: world.config.page_refs().map(|page| latest(world, page)).collect(),
            }
        })
    }

    /// Whether two runs in one state can still part.
    fn can_part(&self, pair: &Pair) -> bool {
        pair.first != pair.second || pair.first.used[0] < self.config.stores
    }
}

/// What the owner of a page would read.
fn latest(world: &World<'_>, page: PageRef) -> Plain {
    match world.ghost(page).latest {
        Bytes::Plain(plain) => value(plain),
        Bytes::Sealed(_) => Plain::Public,
    }
}

/// The page that an event of its owner opens.
const fn opened(event: Event) -> Option<PageRef> {
    if let Event::Begin(_, page, Ask::Share(..)) | Event::Join(_, page, Ask::Share(..)) = event {
        Some(page)
    } else {
        None
    }
}

impl Model for Product<'_> {
    type State = Pair;
    type Event = Both;

    fn start(&self) -> Pair {
        let setup = self.config.setup();
        let first = play(self.config, self.mutant, setup, |world| world.state_now());
        Pair { first, second: first, alike: Alike::default() }
    }

    fn events(&self, pair: &Pair) -> Vec<Both> {
        if !self.can_part(pair) {
            return Vec::new();
        }
        let (enabled, first) = self.on(&pair.first, |world| {
            let pages = world.config.page_refs();
            (world.enabled(), pages.map(|page| latest(world, page)).collect::<Vec<_>>())
        });
        self.on(&pair.second, |world| {
            let differ = |page: PageRef| {
                let at = world.config.page_refs().position(|known| known == page);
                at.is_some_and(|at| first[at] != latest(world, page))
            };
            let mut events = Vec::new();
            for event in enabled {
                if opened(event).is_some_and(differ) {
                    continue;
                }
                events.push(Both { event, writes: [None, None] });
                if let Event::GuestStore(_, page) = event
                    && world.ghost(page).consent.is_none()
                {
                    let others = (self.parts)(world, page).into_iter().map(Some);
                    let writes = others.flat_map(|other| [[None, other], [other, other]]);
                    events.extend(writes.map(|writes| Both { event, writes }));
                }
            }
            events
        })
    }

    fn apply(&self, pair: &Pair, Both { event, writes: [first, second] }: Both) -> After<Pair> {
        let [one, other] = [(&pair.first, first), (&pair.second, second)]
            .map(|(state, writes)| self.shown(state, event, writes));
        let mut alike = pair.alike.clone();
        let mut same = one.seals.len() == other.seals.len();
        for (first, second) in one.seals.iter().zip(&other.seals) {
            same &= alike.learn(*first, *second);
        }
        same &= alike.same(&one.sight, &other.sight);
        let reached = reached(pair, event, &one, &other, &alike);
        After {
            state: Pair { first: one.state, second: other.state, alike },
            broken: if same { Vec::new() } else { vec![self.claim] },
            reached,
        }
    }
}

/// The owners of the two runs hold different bytes.
pub const PARTED: &str = "the two runs hold different bytes in private";
/// Sealed pages were given out whose insides differ.
pub const SEALED_APART: &str = "sealed pages of the two runs differ inside and nowhere else";
/// A page was opened, alike in both, by runs that differ elsewhere.
pub const OPENED_APART: &str = "a page was opened by two runs that differ elsewhere";
/// A store changed a page in the first run and left it as it was in the second.
pub const CHANGED_ONE: &str = "a store changed a page in one run only";

fn reached(
    pair: &Pair,
    event: Event,
    one: &Shown,
    other: &Shown,
    alike: &Alike,
) -> Vec<&'static str> {
    let parted = one.latest != other.latest;
    let stores = matches!(event, Event::GuestStore(..));
    let latest = |state: &State| state.pages.map(|row| row.latest);
    let changed = |before: &State, after: &Shown| latest(before) != latest(&after.state);
    let one_only = stores && changed(&pair.first, one) && !changed(&pair.second, other);
    let opens = opened(event).is_some() && (parted || alike.differ_inside());
    let sealed = !one.seals.is_empty() && alike.differ_inside();
    let all =
        [(parted, PARTED), (sealed, SEALED_APART), (opens, OPENED_APART), (one_only, CHANGED_ONE)];
    all.into_iter().filter_map(|(is, name)| is.then_some(name)).collect()
}
