//! The same events on a platform and on sim's own machine, side by side: every load must find the
//! same on both.
//!
//! The shipped core runs twice, once over each, and is compared too. Left out of a trace is what a
//! platform cannot be told here: other VMs than VM 0, restarts of the host, mappings that the
//! management side makes of a frame that is nobody's, and its claims, for which there is no door.
//! A place in a trace (`f0`, `r0`) stands for the page that is there on sim's machine. Between a
//! withdrawal and its fence a platform is free within bounds (`reference.rs`); sim's machine then
//! follows it, so that both go on from the same page.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use view_core::{Batch, Frame, Gfn, Plan, Progress, Target, View, Vm, VmNumber};

use super::faulty::{Blame, Faulty};
use super::reference::Reference;
pub use super::reference::Seen;
use super::{ConformingPlatform, PUBLIC, draw, with_vm};
use crate::config::Config;
use crate::event::{Ask, Event, FaultTime, Handed, PageRef, Phys};
use crate::flight::PLANS;
use crate::host;
use crate::machine::CPUS;
use crate::trace::Trace;
use crate::world::play;

/// The guest's store number 0; what the management side stores is below.
const STORED: u64 = 16;

/// How many events are drawn for a trace: some ten asks with their steps.
const EVENTS: usize = 100;

/// How closely both sides are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looks {
    /// When the trace says so: pages may be touched for the first time late, or never.
    AsTold,
    /// Every page in both views after every event: mappings are always older than what takes
    /// them away.
    Always,
}

/// One load, and what it found on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Observed {
    /// After how many events.
    pub events: usize,
    /// Whose load.
    pub view: View,
    /// Of which page.
    pub page: PageRef,
    /// What it found.
    pub seen: Seen,
    /// Whether there was more than one right answer.
    pub raced: bool,
}

/// Where a platform and sim's own machine part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// Which trace.
    pub trace: String,
    /// What happened until then, from the empty host on.
    pub events: Vec<Event>,
    /// What was seen, and what had to be.
    pub saw: String,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.trace, self.saw)?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl std::error::Error for Disagreement {}

/// What went through a platform.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// How many traces.
    pub traces: usize,
    /// How many events, those that set a trace up included.
    pub events: usize,
    /// How many loads.
    pub loads: usize,
    /// How many of them had more than one right answer.
    pub raced: usize,
    /// What was found at all, by whom.
    pub found: BTreeSet<(View, Seen)>,
}

impl Told {
    /// What no load found although some must: then nothing was shown.
    pub fn missed(&self) -> Vec<(View, Seen)> {
        let common = [Seen::Nothing, Seen::Zero, Seen::Public, Seen::Stored(0), Seen::Stored(1)];
        let must = common.iter().flat_map(|seen| [(View::Owner, *seen), (View::Management, *seen)]);
        let must = must.chain([(View::Management, Seen::Other)]);
        must.filter(|found| !self.found.contains(found)).collect()
    }
}

/// Runs every kept trace of this crate and those of the first `seeds` seeds, each on a platform of
/// its own. A platform has frames 0 to 3 for VM 0, pages 0 to 2, and room for two replicas.
///
/// # Errors
/// The first load, store or decision that differs.
pub fn traces<P: ConformingPlatform>(
    seeds: u64,
    mut fresh: impl FnMut() -> P,
) -> Result<Told, Disagreement> {
    let mut told = Told::default();
    let mut run = |name: &str, config: &Config, events: &[Event], looks| {
        let observed = agree(config, events, looks, &mut fresh())
            .map_err(|parted| Disagreement { trace: name.to_owned(), ..parted })?;
        told.traces += 1;
        told.events += config.setup().len() + events.len();
        told.loads += observed.len();
        told.raced += observed.iter().filter(|load| load.raced).count();
        told.found.extend(observed.iter().map(|load| (load.view, load.seen)));
        Ok(())
    };
    for (name, trace) in kept() {
        run(&name, trace.config, &trace.events, Looks::Always)?;
    }
    for seed in 0..seeds {
        let (config, events) = (draw::bounds(seed), draw::drawn(seed, EVENTS));
        let looks = if seed % 4 < 2 { Looks::Always } else { Looks::AsTold };
        run(&format!("seed {seed}"), &config, &events, looks)?;
    }
    Ok(told)
}

/// The traces that this crate keeps, by the names of their files.
fn kept() -> Vec<(String, Trace)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let files = std::fs::read_dir(folder).expect("the folder of kept traces");
    let paths: BTreeSet<_> = files.map(|file| file.expect("a readable folder").path()).collect();
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("a trace is text");
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What was wrong with the machine that found it is not wrong here, nor perhaps compiled in.
        let sound: Vec<&str> = text.lines().filter(|line| !line.starts_with("mutant ")).collect();
        (name, sound.join("\n").parse().expect("a trace that is kept"))
    };
    paths.iter().map(read).collect()
}

/// Whether an event can be told to a platform.
pub(super) fn is_told(event: Event) -> bool {
    match event {
        Event::ManageMap(_) | Event::Claim(_) | Event::Restart => false,
        Event::GuestLoad(_, page)
        | Event::GuestStore(_, page)
        | Event::Offer(_, page)
        | Event::Retract(_, page)
        | Event::Hand(page, _)
        | Event::Begin(_, page, _)
        | Event::Join(_, page, _) => page.vm == 0,
        Event::LaunchVm(vm) => vm == 0,
        Event::ManageLoad(..)
        | Event::ManageStore(..)
        | Event::Step(_)
        | Event::Drop(_)
        | Event::Fault(..)
        | Event::Tick => true,
    }
}

/// Runs one trace, from the empty host on, and says what every load found.
///
/// # Errors
/// The first load, store or decision that differs.
pub fn agree<P: ConformingPlatform>(
    config: &Config,
    events: &[Event],
    looks: Looks,
    platform: &mut P,
) -> Result<Vec<Observed>, Disagreement> {
    let all: Vec<Event> = config.setup().into_iter().chain(events.iter().copied()).collect();
    let pages = config.pages.first().copied().unwrap_or(0);
    with_vm([pages, config.frames, config.replicas], |vm| {
        play(config, None, [], |world| {
            let reference = Reference::new(world);
            let flights = [const { None }; CPUS];
            let mut pair =
                Pair { vm, pages, platform, flights, reference, stores: 0, observed: Vec::new() };
            for (count, event) in (1..).zip(all.iter().copied()) {
                if is_told(event) {
                    pair.happens(event, count, looks).map_err(|saw| {
                        let (trace, events) = (config.name.to_owned(), all[..count].to_vec());
                        Disagreement { trace, events, saw }
                    })?;
                }
            }
            Ok(pair.observed)
        })
    })
}

/// A batch under way, and whether it has begun.
type Flight<'v> = (Batch<'v, PLANS>, bool);

/// A platform and sim's own machine, both after the same events.
struct Pair<'v, 'p, 'w, 't, P> {
    vm: &'v Vm<'v>,
    pages: u8,
    platform: &'p mut P,
    flights: [Option<Flight<'v>>; CPUS],
    reference: Reference<'w, 't>,
    /// How many stores of the guest there were.
    stores: u8,
    observed: Vec<Observed>,
}

impl<P: ConformingPlatform> Pair<'_, '_, '_, '_, P> {
    fn happens(&mut self, event: Event, count: usize, looks: Looks) -> Result<(), String> {
        match event {
            Event::GuestLoad(_, page) => self.load(count, View::Owner, page)?,
            Event::GuestStore(_, page) => self.store(View::Owner, page)?,
            Event::ManageLoad(_, place) => {
                if let Some(page) = self.reference.page_at(place) {
                    self.load(count, View::Management, page)?;
                }
            }
            Event::ManageStore(_, place) => {
                if let Some(page) = self.reference.page_at(place) {
                    self.store(View::Management, page)?;
                }
            }
            Event::Hand(page, handed) => {
                if self.hands(page, handed) {
                    self.reference.apply(event);
                }
            }
            Event::ManageMap(_) | Event::Claim(_) | Event::Restart => {}
            Event::Offer(..)
            | Event::Retract(..)
            | Event::Begin(..)
            | Event::Join(..)
            | Event::Step(_)
            | Event::Drop(_)
            | Event::Fault(..)
            | Event::LaunchVm(_)
            | Event::Tick => {
                self.decides(event)?;
                self.reference.apply(event);
            }
        }
        self.decided_alike()?;
        if looks == Looks::Always {
            for page in (0..self.pages).map(|gfn| PageRef { vm: 0, gfn }) {
                self.load(count, View::Owner, page)?;
                self.load(count, View::Management, page)?;
            }
        }
        Ok(())
    }

    /// What the core and the platform do, without a look at pages.
    fn decides(&mut self, event: Event) -> Result<(), String> {
        let (vm, frames) = (self.vm.number(), self.vm.frames());
        match event {
            Event::Offer(frame, page) => {
                let _ = frames.offer(host::frame(frame), vm, host::gfn(page));
            }
            Event::Retract(frame, page) => {
                let _ = frames.retract(host::frame(frame), vm, host::gfn(page));
            }
            Event::LaunchVm(_) => _ = self.vm.launch(),
            Event::Begin(cpu, page, ask) => self.begin(cpu, page, ask)?,
            Event::Join(cpu, page, ask) => self.join(cpu, page, ask)?,
            Event::Step(cpu) => self.step(cpu, None)?,
            Event::Fault(cpu, time) => self.step(cpu, Some(time))?,
            Event::Drop(cpu) => *self.flight(cpu) = None,
            Event::GuestLoad(..)
            | Event::GuestStore(..)
            | Event::ManageLoad(..)
            | Event::ManageStore(..)
            | Event::ManageMap(_)
            | Event::Hand(..)
            | Event::Claim(_)
            | Event::Tick
            | Event::Restart => {}
        }
        Ok(())
    }

    fn begin(&mut self, cpu: u8, page: PageRef, ask: Ask) -> Result<(), String> {
        if self.flight(cpu).is_none()
            && let Some(plan) = self.plan(page, ask)
        {
            let mut batch = Batch::new();
            batch.push(plan).map_err(|_| "no room in an empty batch")?;
            *self.flight(cpu) = Some((batch, false));
        }
        Ok(())
    }

    fn join(&mut self, cpu: u8, page: PageRef, ask: Ask) -> Result<(), String> {
        let room = |(batch, begun): &mut Flight<'_>| !*begun && batch.len() < PLANS;
        let Some((mut batch, _)) = self.flight(cpu).take_if(room) else { return Ok(()) };
        if let Some(plan) = self.plan(page, ask) {
            batch.push(plan).map_err(|_| "no room in a batch that has some")?;
        }
        *self.flight(cpu) = Some((batch, false));
        Ok(())
    }

    fn step(&mut self, cpu: u8, fault: Option<FaultTime>) -> Result<(), String> {
        let Some((mut batch, _)) = self.flight(cpu).take() else { return Ok(()) };
        let mut platform = Faulty { platform: self.platform, fault };
        match batch.step(&mut platform) {
            Ok(Progress::More) => *self.flight(cpu) = Some((batch, true)),
            Ok(Progress::Done) => {
                batch.finish().map_err(|_| "a batch that is done and is not")?.commit();
            }
            Ok(Progress::Failed) | Err(Blame::Ours) => {}
            Err(Blame::Platform) => return Err("the platform failed by itself".to_owned()),
        }
        Ok(())
    }

    fn load(&mut self, events: usize, view: View, page: PageRef) -> Result<(), String> {
        if view == View::Owner && !self.reference.runs() {
            return Ok(());
        }
        let word = match view {
            View::Owner => self.platform.guest_load(host::gfn(page)),
            View::Management => self.platform.management_load(&self.target(page)),
        };
        let (seen, allowed) = (seen(word), self.reference.allowed(view, page));
        if !allowed.contains(&seen) {
            return Err(format!("{view:?} saw {seen:?} at {page}, not {allowed:?}"));
        }
        let raced = allowed.len() > 1;
        self.observed.push(Observed { events, view, page, seen, raced });
        Ok(())
    }

    fn store(&mut self, view: View, page: PageRef) -> Result<(), String> {
        if view == View::Owner && !self.reference.runs() {
            return Ok(());
        }
        let stored = match view {
            View::Owner => {
                let value = STORED + u64::from(self.stores);
                self.platform.guest_store(host::gfn(page), value)
            }
            View::Management => {
                let page = self.target(page);
                self.platform.management_store(&page, PUBLIC)
            }
        };
        let [must, may] = self.reference.stores(view, page);
        if stored && !may || !stored && must {
            return Err(format!("a store of {view:?} to {page}: {stored}, not {}", !stored));
        }
        if stored {
            self.stores += u8::from(view == View::Owner);
            self.reference.store(view, page);
        }
        Ok(())
    }

    /// What the management side does not have it cannot hand over, on neither side.
    fn hands(&mut self, page: PageRef, handed: Handed) -> bool {
        match handed {
            Handed::Forged => {
                self.platform.tamper(host::gfn(page));
                true
            }
            Handed::Known(seal) => self.platform.hand(host::gfn(page), seal),
        }
    }

    fn decided_alike(&self) -> Result<(), String> {
        if self.reference.runs() != self.vm.runnable().is_ok() {
            return Err("a VM that stopped on one side only".to_owned());
        }
        for page in (0..self.pages).map(|gfn| PageRef { vm: 0, gfn }) {
            let (state, wanted) = (self.vm.state(host::gfn(page)), self.reference.state(page));
            if state != Some(wanted) {
                return Err(format!("{page} is {state:?}, not {wanted:?}"));
            }
        }
        Ok(())
    }

    fn target(&self, page: PageRef) -> Target {
        let frame = match self.reference.frame(page) {
            Some(Phys::Frame(number)) => host::frame(number),
            Some(Phys::Replica(_)) | None => Frame::MAX,
        };
        Target { vm: VmNumber(0), gfn: host::gfn(page), frame }
    }
}

impl<'v, P> Pair<'v, '_, '_, '_, P> {
    fn flight(&mut self, cpu: u8) -> &mut Option<Flight<'v>> {
        &mut self.flights[usize::from(cpu)]
    }

    fn plan(&self, page: PageRef, ask: Ask) -> Option<Plan<'v>> {
        let gfn: Gfn = host::gfn(page);
        let claim = self.vm.claim(gfn).ok()?;
        host::decide(self.vm, claim, page, ask).ok()
    }
}

fn seen(word: Option<u64>) -> Seen {
    match word {
        None => Seen::Nothing,
        Some(0) => Seen::Zero,
        Some(PUBLIC) => Seen::Public,
        Some(word @ STORED..=255) => Seen::Stored(u8::try_from(word - STORED).unwrap_or(u8::MAX)),
        Some(_) => Seen::Other,
    }
}
