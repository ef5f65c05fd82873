//! Dice, and what a run's dice decide: which events it favours, and which it never has.
//!
//! A run that may do everything does a little of everything. Runs that leave kinds of events out
//! get further with those that are left (Groce et al., "Swarm Testing", ISSTA 2012).

use view_core::suite::Stream;

use crate::bytes::Label;
use crate::config::{ALL_ASKS, Config};
use crate::event::{Ask, Event, FaultTime, Handed, PageRef, Phys};

/// Dice that fall alike everywhere: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The dice of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 bits.
    pub const fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: u32) -> u32 {
        // The high half of a product, the same on machines of any width.
        let word = u64::from(u32::try_from(self.word() >> 32).unwrap_or(u32::MAX));
        u32::try_from((word * u64::from(end)) >> 32).unwrap_or(0)
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// One of them; `None` if there are none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        let count = u32::try_from(from.len()).ok().filter(|count| *count > 0)?;
        let index = usize::try_from(self.below(count)).ok()?;
        from.get(index).copied()
    }
}

/// What a run can have much of, little of, or nothing of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named as the events and asks are")]
pub enum Kind {
    GuestLoad,
    GuestStore,
    ManageLoad,
    ManageStore,
    ManageMap,
    Offer,
    Retract,
    Forge,
    Hand,
    Claim,
    Step,
    Drop,
    Fault,
    LaunchVm,
    Tick,
    Restart,
    Map,
    Unmap,
    Export,
    Seal,
    PageOut,
    PageIn,
    Destroy,
    Accept,
    Launch,
    Touch,
    Share,
    Unshare,
    Exclude,
    Stray,
}

/// How many kinds there are.
const KINDS: usize = Kind::Stray as usize + 1;

impl Kind {
    /// All of them, in order.
    pub const ALL: [Self; KINDS] = [
        Self::GuestLoad,
        Self::GuestStore,
        Self::ManageLoad,
        Self::ManageStore,
        Self::ManageMap,
        Self::Offer,
        Self::Retract,
        Self::Forge,
        Self::Hand,
        Self::Claim,
        Self::Step,
        Self::Drop,
        Self::Fault,
        Self::LaunchVm,
        Self::Tick,
        Self::Restart,
        Self::Map,
        Self::Unmap,
        Self::Export,
        Self::Seal,
        Self::PageOut,
        Self::PageIn,
        Self::Destroy,
        Self::Accept,
        Self::Launch,
        Self::Touch,
        Self::Share,
        Self::Unshare,
        Self::Exclude,
        Self::Stray,
    ];

    /// What kind an event is. Asks count as what is asked.
    pub const fn of(event: Event) -> Self {
        match event {
            Event::GuestLoad(..) => Self::GuestLoad,
            Event::GuestStore(..) => Self::GuestStore,
            Event::ManageLoad(..) => Self::ManageLoad,
            Event::ManageStore(..) => Self::ManageStore,
            Event::ManageMap(_) => Self::ManageMap,
            Event::Offer(..) => Self::Offer,
            Event::Retract(..) => Self::Retract,
            Event::Hand(_, Handed::Forged) => Self::Forge,
            Event::Hand(_, Handed::Known(_)) => Self::Hand,
            Event::Claim(_) => Self::Claim,
            Event::Begin(_, _, ask) | Event::Join(_, _, ask) => Self::of_ask(ask),
            Event::Step(_) => Self::Step,
            Event::Drop(_) => Self::Drop,
            Event::Fault(..) => Self::Fault,
            Event::LaunchVm(_) => Self::LaunchVm,
            Event::Tick => Self::Tick,
            Event::Restart => Self::Restart,
        }
    }

    const fn of_ask(ask: Ask) -> Self {
        match ask {
            Ask::Map(_) => Self::Map,
            Ask::Unmap => Self::Unmap,
            Ask::Export(_) => Self::Export,
            Ask::Seal => Self::Seal,
            Ask::PageOut => Self::PageOut,
            Ask::PageIn(_) => Self::PageIn,
            Ask::Destroy => Self::Destroy,
            Ask::Accept(_) => Self::Accept,
            Ask::Launch => Self::Launch,
            Ask::Touch => Self::Touch,
            Ask::Share(..) => Self::Share,
            Ask::Unshare => Self::Unshare,
            Ask::Exclude(_) => Self::Exclude,
        }
    }

    /// How much of it a run has.
    fn weight(self, dice: &mut Dice) -> u32 {
        match self {
            // Without these nothing else ever happens.
            Self::Step => 8 << dice.below(4),
            Self::LaunchVm | Self::Offer | Self::Accept | Self::Launch => 4,
            // A page, a VM or a life seldom outlasts these.
            Self::Fault | Self::Drop | Self::Restart | Self::Forge | Self::Hand => {
                u32::from(dice.one_in(3))
            }
            Self::Destroy => 2 * dice.below(2),
            Self::GuestLoad
            | Self::GuestStore
            | Self::ManageLoad
            | Self::ManageStore
            | Self::ManageMap
            | Self::Retract
            | Self::Claim
            | Self::Tick
            | Self::Map
            | Self::Unmap
            | Self::Export
            | Self::Seal
            | Self::PageOut
            | Self::PageIn
            | Self::Touch
            | Self::Share
            | Self::Unshare
            | Self::Exclude
            | Self::Stray => dice.below(2) * (2 << dice.below(4)),
        }
    }
}

/// A run's character: how much of each kind it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix([u32; KINDS]);

impl Mix {
    /// Draws a character.
    pub fn draw(dice: &mut Dice) -> Self {
        Self(Kind::ALL.map(|kind| kind.weight(dice)))
    }

    /// How much of a kind there is.
    pub const fn weight(&self, kind: Kind) -> u32 {
        self.0[kind as usize]
    }

    /// One of the events that can come next. Kinds are chosen by weight, so that a kind does not
    /// come up more often because it has more events.
    pub fn choose(&self, dice: &mut Dice, config: &Config, mut enabled: Vec<Event>) -> Event {
        // The order in which they were listed must not matter.
        enabled.sort_unstable();
        let present = |kind: Kind| enabled.iter().any(|event| Kind::of(*event) == kind);
        let weights = Kind::ALL.map(|kind| {
            let can = present(kind) || kind == Kind::Stray;
            let forced = kind == Kind::Stray && enabled.is_empty();
            if can { self.weight(kind).max(u32::from(forced)) } else { 0 }
        });
        let total: u32 = weights.iter().sum();
        if total == 0 {
            return dice.pick(&enabled).unwrap_or(Event::Tick);
        }
        let mut left = dice.below(total);
        for (kind, weight) in Kind::ALL.into_iter().zip(weights) {
            if left < weight {
                let of_kind = enabled.iter().copied().filter(|event| Kind::of(*event) == kind);
                let of_kind: Vec<Event> = of_kind.collect();
                return dice.pick(&of_kind).unwrap_or_else(|| stray_event(config, dice.word()));
            }
            left -= weight;
        }
        Event::Tick
    }
}

/// Any event that a configuration has the CPUs, pages and frames for, from eight bytes: most find
/// nothing to do, or are refused.
pub fn stray_event(config: &Config, word: u64) -> Event {
    let [kind, cpu, page, frame, ask, place, life, version] = word.to_le_bytes();
    let pages: Vec<PageRef> = config.page_refs().collect();
    let page = pages[usize::from(page) % pages.len()];
    let (cpu, frame) = (cpu % config.cpus.max(1), frame % config.frames.max(1));
    let places: Vec<Phys> = Phys::all().collect();
    let place = places[usize::from(place) % places.len()];
    let ask = ALL_ASKS[usize::from(ask) % ALL_ASKS.len()];
    let ask = if matches!(ask, Ask::Accept(_)) { Ask::Accept(frame) } else { ask };
    let ask = if matches!(ask, Ask::PageIn(_)) { Ask::PageIn(frame) } else { ask };
    let label = || {
        let stream = [Stream::View, Stream::Resident, Stream::Image];
        let PageRef { vm, gfn } = page;
        let stream = stream[usize::from(life >> 1) % stream.len()];
        Label { vm, epoch: 1 + life % 2, gfn, version: version % 16, stream }
    };
    match kind % 20 {
        0 => Event::GuestLoad(cpu, page),
        1 => Event::GuestStore(cpu, page),
        2 => Event::ManageLoad(cpu, place),
        3 => Event::ManageStore(cpu, place),
        4 => Event::ManageMap(frame),
        5 => Event::Offer(frame, page),
        6 => Event::Retract(frame, page),
        7 => Event::Hand(page, Handed::Forged),
        8 => Event::Hand(page, Handed::Known(label())),
        9 => Event::Claim(page),
        10 => Event::Join(cpu, page, ask),
        11 => Event::Drop(cpu),
        12 => Event::Fault(cpu, if life % 2 == 0 { FaultTime::Early } else { FaultTime::Late }),
        13 => Event::LaunchVm(page.vm),
        14 => Event::Tick,
        15 => Event::Restart,
        16 => Event::Step(cpu),
        _ => Event::Begin(cpu, page, ask),
    }
}
