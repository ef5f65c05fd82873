//! Long runs from a seed, on machines with more room than exploration can afford.
//!
//! One seed is one run, on every machine and in every profile: own dice, no clock, no float.

pub mod draw;
mod faulty;
pub mod real;
pub mod report;

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::config::{ALL_ASKS, Config, PAGE};
use crate::event::{Ask, Event};
use crate::flight::PLANS;
use crate::invariant;
use crate::machine::{CPUS, KNOWN};
use crate::mutant::{Entry, Mutant};
use crate::sometimes::SOMETIMES;
use crate::table;
use crate::trace::Trace;
use crate::world::{World, play};
use draw::{Dice, Mix};

/// As large a host as there is: too large to be explored, large enough to be lived in.
pub const LONG: Config = Config {
    name: "long",
    purpose: "two VMs with two pages each, for seeded runs: not to be explored to the end",
    pages: &[2, 2],
    frames: 4,
    replicas: 2,
    cpus: 2,
    restarts: 1,
    launched: false,
    raw: true,
    deep: true,
    asks: ALL_ASKS,
    reaches: &[],
    ..PAGE
};

/// How often a page may be sealed in a run, how often guests store, and how many batches may be
/// dropped and fail: what labels of seals and of stores can tell apart.
const VERSIONS_MAX: u8 = 60;
const STORES_MAX: u8 = 60;
const DROPS_MAX: u8 = 60;
const FAULTS_MAX: u8 = 60;

/// A published configuration's machine, with all that can be asked of it and room for a long run.
/// It has as many lives as before: a trace is replayed on the configuration that it names.
pub fn roomy(shape: &Config) -> Config {
    Config {
        cpus: 2,
        versions: VERSIONS_MAX,
        stores: STORES_MAX,
        batches: 2,
        plans: 2,
        drops: DROPS_MAX,
        faults: FAULTS_MAX,
        raw: true,
        asks: ALL_ASKS,
        ..*shape
    }
}

/// Keeps a run within what the checker can tell apart; [`World::enabled`] does so only for what it
/// lists itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    stores: u8,
    drops: u8,
    faults: u8,
}

/// Seals that plans under way may still make.
const SEALS_DUE: usize = CPUS * PLANS;

impl Budget {
    /// Whether an event may still come.
    pub fn allows(&self, world: &World<'_>, event: Event) -> bool {
        match event {
            Event::GuestStore(..) => self.stores < STORES_MAX,
            Event::Drop(_) => self.drops < DROPS_MAX,
            Event::Fault(..) => self.faults < FAULTS_MAX,
            Event::Begin(_, page, ask) | Event::Join(_, page, ask) => {
                let closes = matches!(ask, Ask::Unshare | Ask::Unmap);
                let burns = table::burns(world.state(page), ask);
                let seals = burns && !closes && !matches!(ask, Ask::Share(..));
                let spent = world.version(page) >= u64::from(VERSIONS_MAX);
                let full = world.machine.known.len() + SEALS_DUE >= KNOWN;
                // Whatever is open may always be closed.
                !(burns && spent && !closes || seals && full)
            }
            Event::GuestLoad(..)
            | Event::ManageLoad(..)
            | Event::ManageStore(..)
            | Event::ManageMap(_)
            | Event::Offer(..)
            | Event::Retract(..)
            | Event::Hand(..)
            | Event::Claim(_)
            | Event::Step(_)
            | Event::LaunchVm(_)
            | Event::Tick
            | Event::Restart => true,
        }
    }

    /// Counts an event that came.
    pub const fn count(&mut self, event: Event) {
        self.stores += matches!(event, Event::GuestStore(..)) as u8;
        self.drops += matches!(event, Event::Drop(_)) as u8;
        self.faults += matches!(event, Event::Fault(..)) as u8;
    }
}

/// Which run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// What its dice begin with.
    pub seed: u64,
    /// After how many events it ends, unless something breaks.
    pub steps: u32,
    /// Its machine.
    pub config: &'static Config,
    /// What is wrong with it.
    pub mutant: Option<&'static Entry>,
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How much of each kind of event it had.
    pub mix: Mix,
    /// What happened, and what did not hold at the end.
    pub trace: Trace,
    /// The `sometimes` properties that were met.
    pub reached: BTreeSet<&'static str>,
    /// A hash over every event and every page's state and version after it (FNV-1a).
    pub hash: u64,
}

impl Run {
    /// Plays it.
    pub fn play(&self) -> Outcome {
        let mut dice = Dice::new(self.seed);
        let mix = Mix::draw(&mut dice);
        let roomy = roomy(self.config);
        let mutant = self.mutant.map(|entry| entry.mutant);
        let trace =
            Trace { config: self.config, mutant: self.mutant, breaks: vec![], events: vec![] };
        let mut outcome = Outcome { mix, trace, reached: BTreeSet::new(), hash: FNV_START };
        play(&roomy, mutant, roomy.setup(), |world| {
            let mut budget = Budget::default();
            while outcome.events() < self.steps && outcome.trace.breaks.is_empty() {
                let mut enabled = world.enabled();
                enabled.retain(|event| budget.allows(world, *event));
                let event = mix.choose(&mut dice, &roomy, enabled);
                let event = if budget.allows(world, event) { event } else { Event::Tick };
                budget.count(event);
                world.apply(event);
                outcome.note(world, event);
            }
        });
        outcome
    }

    /// The command that plays it again.
    pub fn command(&self) -> String {
        let Self { seed, steps, config, mutant } = self;
        let mut command = format!(
            "cargo run --release -p sim -- run --seed {seed:#x} --steps {steps} --config {}",
            config.name
        );
        if let Some(entry) = mutant {
            let _ = write!(command, " --mutant {}", entry.name);
        }
        command
    }
}

const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;

impl Outcome {
    /// How many events there were.
    fn events(&self) -> u32 {
        u32::try_from(self.trace.events.len()).unwrap_or(u32::MAX)
    }

    fn note(&mut self, world: &World<'_>, event: Event) {
        self.trace.events.push(event);
        self.trace.breaks = invariant::broken(world, None).collect();
        for (name, holds) in SOMETIMES {
            if !self.reached.contains(name) && holds(world) {
                self.reached.insert(name);
            }
        }
        let mut line = event.to_string();
        for page in world.config.page_refs() {
            let _ = write!(line, " {page} {:?} {}", world.state(page), world.version(page));
        }
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// After how many of these events something does not hold, and what; `None` if all holds.
pub fn fate(
    config: &Config,
    mutant: Option<Mutant>,
    events: &[Event],
) -> Option<(usize, Vec<&'static str>)> {
    play(config, mutant, config.setup(), |world| {
        (1..).zip(events).find_map(|(count, event)| {
            world.apply(*event);
            let broken: Vec<_> = invariant::broken(world, None).collect();
            (!broken.is_empty()).then_some((count, broken))
        })
    })
}
