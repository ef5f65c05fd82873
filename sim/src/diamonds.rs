//! Partial-order reduction: events that do not heed each other lead to the same state in either
//! order, and one order is enough.
//!
//! Say that a state was first reached by one event, and that now another is about to happen which
//! could have come before it, would have done the same there, and would have left the first one as
//! it is. Then where it leads was, or will be, found in the other order. So that no two orders rely
//! on each other, kinds of events have ranks, and only the lower one leaves it to the other order:
//! who follows what that relies on, comes to states that were reached sooner, or to higher ranks,
//! and to an end. No state is lost, and none is found later than it would have been.
//!
//! What is left out are transitions that would be seen to do what they were seen to do before. This
//! is in the way of sleep sets (Godefroid, "Partial-Order Methods for the Verification of
//! Concurrent Systems", LNCS 1032), told by kinds, so that a state needs to remember one of them
//! and no names. Wrong machines need not keep to what is said here of events, so it is for the
//! sound one alone.

use crate::event::{Event, PageRef};
use crate::machine::VM_PAGES;
use crate::state::State;

/// How a state was first reached, as far as that tells what led to it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    rank: Rank,
    /// It was about nothing that batches hold.
    apart: bool,
}

/// Kinds of events that led to a state, in the order of their ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A VM was launched.
    Launch,
    /// A guest stored.
    GuestStore,
    /// A batch took a step that was not its last.
    Step,
    /// A guest loaded, and a CPU remembers more.
    GuestLoad,
    /// Sealed bytes were handed over for a page.
    Hand,
    /// The management side loaded, and a CPU remembers more.
    ManageLoad,
    /// A frame was offered.
    Offer,
    /// A batch began.
    Begin,
    /// It may have been anything.
    Other,
}

/// What may be left out in one state.
#[derive(Clone, Copy, Debug)]
pub struct Diamonds {
    origin: Origin,
    /// Pages that batches hold, a bit each.
    held: u32,
}

impl Origin {
    /// Nothing is known.
    pub const OTHER: Self = Self { rank: Rank::Other, apart: false };

    /// Of what an event makes of a state.
    pub fn of(event: Event, after: &State) -> Self {
        let rank = match event {
            Event::GuestStore(..) => Rank::GuestStore,
            Event::Step(cpu) if after.flies(usize::from(cpu)) => Rank::Step,
            Event::GuestLoad(..) => Rank::GuestLoad,
            Event::Hand(..) => Rank::Hand,
            Event::ManageLoad(..) => Rank::ManageLoad,
            Event::Offer(..) => Rank::Offer,
            Event::LaunchVm(_) => Rank::Launch,
            Event::Begin(cpu, ..) if after.flies(usize::from(cpu)) => Rank::Begin,
            Event::Step(_)
            | Event::Begin(..)
            | Event::Retract(..)
            | Event::ManageStore(..)
            | Event::ManageMap(_)
            | Event::Claim(_)
            | Event::Join(..)
            | Event::Drop(_)
            | Event::Fault(..)
            | Event::Tick
            | Event::Restart => Rank::Other,
        };
        Self { rank, apart: about(event, after) & held(after) == 0 }
    }
}

/// Pages that an event heeds, a bit each.
fn about(event: Event, state: &State) -> u32 {
    const ALL: u32 = u32::MAX;
    match event {
        Event::Hand(page, _) | Event::Offer(_, page) => 1 << page.index(),
        // A batch that ends may stop the VM, or let it run.
        Event::GuestLoad(_, page) => ((1 << VM_PAGES) - 1) << (usize::from(page.vm) * VM_PAGES),
        Event::ManageLoad(_, place) => {
            state.places[place.index()].page(place).map_or(ALL, |page| 1 << page)
        }
        Event::GuestStore(..)
        | Event::ManageStore(..)
        | Event::ManageMap(_)
        | Event::Retract(..)
        | Event::Claim(_)
        | Event::Begin(..)
        | Event::Join(..)
        | Event::Step(_)
        | Event::Drop(_)
        | Event::Fault(..)
        | Event::LaunchVm(_)
        | Event::Tick
        | Event::Restart => ALL,
    }
}

/// Pages that batches hold, a bit each.
fn held(state: &State) -> u32 {
    state.flights.iter().fold(0, |held, flight| {
        let pages = flight.pages.iter().take(flight.plans.into());
        pages.fold(held, |held, page| held | 1 << page)
    })
}

impl Diamonds {
    /// In a state that was first reached in this way.
    pub fn of(origin: Origin, state: &State) -> Self {
        Self { origin, held: held(state) }
    }

    /// Whether an event of the state needs nothing more: what comes of it is found elsewhere.
    pub fn found_elsewhere(&self, event: Event) -> bool {
        use Rank::{Begin, GuestLoad, GuestStore, Hand, Launch, ManageLoad, Offer, Step};
        let Origin { rank: from, apart } = self.origin;
        let among = |low: Rank, high: Rank| low <= from && from <= high;
        // A batch changes nothing of pages that it does not hold, and of their frames.
        let flown = matches!(from, Begin | Step);
        let spared = |page: PageRef| !flown || self.held >> page.index() & 1 == 0;
        match event {
            // Either the offer was there before, or what led here is what this undoes.
            Event::Retract(_, page) => among(Launch, Begin) && spared(page),
            // A batch may be why it is refused, or is not.
            Event::LaunchVm(_) => among(GuestStore, Offer) && from != Step,
            // A launch or a step may be why the guest runs.
            Event::GuestStore(..) => among(GuestLoad, Begin),
            Event::Step(_) => among(GuestLoad, Offer) && apart,
            Event::GuestLoad(..) => among(Hand, Begin),
            Event::Hand(page, _) => among(ManageLoad, Begin) && spared(page),
            Event::ManageLoad(..) => among(Offer, Begin),
            Event::Offer(_, page) => from == Begin && spared(page),
            // The host forgets what led here, as if it had not been.
            Event::Restart => from == Launch || among(GuestLoad, Offer),
            Event::ManageStore(..)
            | Event::ManageMap(_)
            | Event::Claim(_)
            | Event::Begin(..)
            | Event::Join(..)
            | Event::Drop(_)
            | Event::Fault(..)
            | Event::Tick => false,
        }
    }
}
