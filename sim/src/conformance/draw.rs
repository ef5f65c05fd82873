//! Traces that nobody thought of, drawn from a seed: one seed is one trace.

use view_core::Perm;
use view_core::suite::Stream;

use super::trace::is_told;
use crate::config::{Config, PAGE};
use crate::event::{Ask, Event, PageRef, Phys, Term};
use crate::swarm::draw::Dice;
use crate::world::{World, play};

const ASKS: &[Ask] = &[
    Ask::Map(Perm::Read),
    Ask::Map(Perm::ReadWrite),
    Ask::Unmap,
    Ask::Export(Stream::View),
    Ask::Export(Stream::Image),
    Ask::Seal,
    Ask::PageOut,
    Ask::PageIn(0),
    Ask::Destroy,
    Ask::Accept(0),
    Ask::Launch,
    Ask::Touch,
    Ask::Share(Perm::Read, Term::Never),
    Ask::Share(Perm::ReadWrite, Term::Never),
    Ask::Share(Perm::Read, Term::Once),
    Ask::Unshare,
    Ask::Exclude(true),
    Ask::Exclude(false),
];

/// What pages go through that are swapped.
const PAGING: &[Ask] = &[Ask::Map(Perm::Read), Ask::Seal, Ask::PageOut, Ask::PageIn(0), Ask::Touch];

/// What pages go through that are opened and closed.
const SHARING: &[Ask] = &[
    Ask::Map(Perm::Read),
    Ask::Map(Perm::ReadWrite),
    Ask::Unmap,
    Ask::Share(Perm::Read, Term::Never),
    Ask::Share(Perm::ReadWrite, Term::Never),
    Ask::Share(Perm::ReadWrite, Term::Once),
    Ask::Unshare,
];

/// Two pages, three frames and one replica; some ten of these asks a trace.
const DRAWN: Config = Config {
    name: "drawn",
    purpose: "traces that are drawn and go through every platform",
    pages: &[2],
    frames: 3,
    versions: 6,
    raw: false,
    drops: 0,
    asks: ASKS,
    reaches: &[],
    ..PAGE
};

/// The bounds that belong to a seed. Few of them let a batch be dropped or fail: a VM stops then.
pub fn bounds(seed: u64) -> Config {
    Config {
        batches: if seed.is_multiple_of(2) { 1 } else { 2 },
        plans: if seed.is_multiple_of(3) { 2 } else { 1 },
        drops: u8::from(seed % 8 == 1),
        faults: u8::from(seed % 8 == 3),
        launched: seed % 8 != 5,
        asks: match seed % 5 {
            0 => PAGING,
            1 => SHARING,
            _ => ASKS,
        },
        ..DRAWN
    }
}

/// The trace of a seed.
pub fn drawn(seed: u64, events: usize) -> Vec<Event> {
    let config = bounds(seed);
    let mut dice = Dice::new(seed);
    play(&config, None, config.setup(), |world| {
        let mut trace = Vec::new();
        while trace.len() < events
            && let Some(event) = next(world, &mut dice)
        {
            world.apply(event);
            trace.push(event);
        }
        trace
    })
}

/// Steps more often than not: batches are what changes things. Where sealed bytes can be handed
/// over, they often are; half of the rest is looks and stores.
fn next(world: &World<'_>, dice: &mut Dice) -> Option<Event> {
    let pages: Vec<PageRef> = world.config.page_refs().collect();
    let page = dice.pick(&pages)?;
    let place = dice.pick(&Phys::all().collect::<Vec<_>>())?;
    let enabled: Vec<Event> = world.enabled().into_iter().filter(|event| is_told(*event)).collect();
    let (steps, others): (Vec<Event>, Vec<Event>) =
        enabled.into_iter().partition(|event| matches!(event, Event::Step(_)));
    let handed = |event: &Event| matches!(event, Event::Hand(..));
    let handed: Vec<Event> = others.iter().copied().filter(handed).collect();
    if dice.one_in(6) && !handed.is_empty() {
        return dice.pick(&handed);
    }
    match dice.below(12) {
        0 => Some(Event::GuestLoad(1, page)),
        1 if world.used[0] < STORES_MAX => Some(Event::GuestStore(1, page)),
        2 => Some(Event::ManageLoad(1, place)),
        3 => Some(Event::ManageStore(1, place)),
        4..=9 if !steps.is_empty() => dice.pick(&steps),
        _ => dice.pick(&others).or(Some(Event::GuestLoad(1, page))),
    }
}

/// As many stores as have names in the model.
const STORES_MAX: u8 = 40;
