//! What an attack meets, event by event.

use std::collections::BTreeSet;

use sim::bytes::Bytes;
use sim::event::{Event, PageRef};
use sim::invariant::broken;
use sim::trace::Trace;
use sim::world::{World, roam};
use view_core::{Ownership, PageState};

/// A run, for what it did.
#[derive(Default)]
pub(crate) struct Met {
    /// The numbers of the events at which nothing happened.
    pub(crate) idle: BTreeSet<usize>,
    /// What the last event met that was no idle step.
    pub(crate) last: String,
    /// What did not hold after some event.
    pub(crate) broken: BTreeSet<&'static str>,
}

/// Whoever looked found no translation.
const NO_WAY: &str = "no way";
/// The guest does not run any more.
const STOPPED: &str = "a guest that stopped";

/// Plays a trace on its machine, to the last event whatever breaks.
pub(crate) fn met(trace: &Trace) -> Met {
    roam(trace.config, trace.mutant.map(|entry| entry.mutant), |world| {
        trace.config.setup().into_iter().for_each(|event| world.apply(event));
        let mut met = Met::default();
        for (number, event) in trace.events.iter().enumerate() {
            let before = world.state_now();
            world.apply(*event);
            let changed = world.state_now() != before;
            met.broken.extend(broken(world, None));
            let says = meets(world, *event).or(changed.then(|| "a change".to_owned()));
            if says.is_none() {
                met.idle.insert(number);
            }
            // What was refused has no steps left to take.
            if says.is_some() || !matches!(event, Event::Step(_)) {
                met.last = says.unwrap_or_else(|| "nothing".to_owned());
            }
        }
        met
    })
}

/// What whoever acts is told or finds, if there is a word for it.
fn meets(world: &mut World<'_>, event: Event) -> Option<String> {
    if let Some(refused) = world.just.refused {
        return Some(format!("refused: {refused:?}"));
    }
    match event {
        Event::ManageLoad(cpu, place) => {
            let bytes = world.machine.host_walk(cpu, place).map(|_| world.machine.at(place));
            Some(bytes.map_or(NO_WAY.to_owned(), read))
        }
        Event::ManageStore(..) => {
            let wrote = world.just.wrote.is_some();
            Some(if wrote { "a page to write to" } else { NO_WAY }.to_owned())
        }
        Event::GuestLoad(cpu, page) => guest_reads(world, cpu, page),
        Event::Begin(cpu, page, _) if is_held(world, cpu, page) => {
            Some("a page that is held".to_owned())
        }
        Event::Offer(frame, _) => {
            let owned = matches!(world.ownership(frame), Ownership::Owned(..));
            owned.then(|| "a frame that is owned".to_owned())
        }
        Event::Step(_) => {
            let poisoned = |(_, _, state): &(_, _, PageState)| *state == PageState::Poisoned;
            world.just.committed.iter().any(poisoned).then(|| STOPPED.to_owned())
        }
        Event::GuestStore(..)
        | Event::ManageMap(_)
        | Event::Retract(..)
        | Event::Hand(..)
        | Event::Claim(_)
        | Event::Begin(..)
        | Event::Join(..)
        | Event::Drop(_)
        | Event::Fault(..)
        | Event::LaunchVm(_)
        | Event::Tick
        | Event::Restart => None,
    }
}

/// Whether a page is in the batch of another CPU.
fn is_held(world: &World<'_>, cpu: u8, page: PageRef) -> bool {
    let flights = world.flights.iter().enumerate().filter(|(of, _)| *of != usize::from(cpu));
    let mut asks = flights.filter_map(|(_, flight)| flight.as_ref()).flat_map(|f| &f.asks);
    asks.any(|asked| asked.page == page)
}

/// What a guest finds in its page.
fn guest_reads(world: &mut World<'_>, cpu: u8, page: PageRef) -> Option<String> {
    if !world.runs(page.vm) {
        return Some(STOPPED.to_owned());
    }
    let place = world.machine.guest_walk(cpu, page)?;
    let found = world.machine.at(place);
    let right = found == world.ghost(page).latest && place == world.frame(page);
    let says = match (right, found == Bytes::ZERO) {
        (true, true) => "zeroes",
        (true, false) => "what it stored last",
        (false, _) => "what it did not store",
    };
    Some(says.to_owned())
}

/// What bytes are to somebody without a key.
fn read(bytes: Bytes) -> String {
    match bytes {
        Bytes::Sealed(seal) => format!("sealed bytes, {}", seal.label),
        Bytes::ZERO => "zeroes".to_owned(),
        Bytes::PUBLIC => "its own bytes".to_owned(),
        Bytes::Plain(_) => "what the owner stored".to_owned(),
    }
}
