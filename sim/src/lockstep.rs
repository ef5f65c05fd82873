//! The core and the oracle of spec, side by side: after every event both must say the same of
//! every page, frame and VM, and of what was refused.

use std::fmt;

use spec::life::{Rights, State, Until};
use spec::oracle::{Expect, Happening, Host, Owner, Resting, Sight, VmSight};
use view_core::Ownership;

use crate::config::Config;
use crate::event::{Ask, Event, PageRef};
use crate::host::LIVES;
use crate::machine::{CPUS, FRAMES, PAGES, VM_PAGES, VMS};
use crate::mark::Mark;
use crate::state::{FlightState, PageRow, State as Packed};
use crate::table::{asked, drawn};
use crate::world::World;

/// The bit of a control word that leaves a page out of checkpoints.
const EXCLUDED: u64 = 1 << 5;

/// The oracle's copy of one run. Cheap to copy, so that it can go along with every state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockstep {
    host: Host<VMS, PAGES, FRAMES, CPUS>,
    lives: u8,
}

/// What the oracle and the core do not agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// Whether the event was refused.
    Refusal(Expect, Expect),
    /// What a page is: the oracle's word, then the core's.
    Page(PageRef, Sight, Sight),
    /// Whose a frame is: the oracle's word, then the core's.
    Frame(u8, Owner, Owner),
    /// What a VM is: the oracle's word, then the core's.
    Vm(u8, VmSight, VmSight),
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(oracle, core) => write!(f, "oracle {oracle:?}, core {core:?}"),
            Self::Page(page, oracle, core) => write!(f, "{page}: oracle {oracle:?}, core {core:?}"),
            Self::Frame(frame, oracle, core) => {
                write!(f, "f{frame}: oracle {oracle:?}, core {core:?}")
            }
            Self::Vm(vm, oracle, core) => write!(f, "vm{vm}: oracle {oracle:?}, core {core:?}"),
        }
    }
}

impl Lockstep {
    /// The oracle of a host that has just started.
    pub fn new(config: &Config) -> Self {
        // Every VM has room for a lease a page.
        Self { host: Host::new(config.replicas, small(VM_PAGES)), lives: 1 }
    }

    /// The oracle of a run that is in this state: at rest first, then with its batches.
    pub fn of(config: &Config, state: &Packed) -> Self {
        let mut lockstep = Self { lives: state.life + 1, ..Self::new(config) };
        let host = &mut lockstep.host;
        for page in config.page_refs() {
            host.rest(number(page), resting(&state.pages[page.index()]));
        }
        for (frame, place) in (0_u8..).zip(&state.places[..FRAMES]) {
            let owner = place.of;
            let page = owner >> 2;
            host.own(
                frame,
                match owner & 3 {
                    0 => Owner::Free,
                    1 => Owner::Offered(page),
                    2 => Owner::Owned(page),
                    _ => Owner::Quarantined(page),
                },
            );
        }
        for (vm, row) in (0_u8..).zip(state.vms) {
            host.set_vm(vm, row.building >> 7 != 0, row.stopped != 0);
        }
        for (cpu, flight) in (0_u8..).zip(&state.flights) {
            lockstep.fly(cpu, flight);
        }
        lockstep
    }

    /// A batch under way: asked for again, and as many steps taken.
    fn fly(&mut self, cpu: u8, flight: &FlightState) {
        let mut verdicts = flight.answers.into_iter().filter(|answer| matches!(answer, 1 | 2));
        let mut genuine = 0;
        for (place, (page, ask)) in flight.pages.into_iter().zip(flight.asks).enumerate() {
            if place < usize::from(flight.plans) {
                let ask = Ask::from_packed(ask);
                if ask == Ask::Touch && verdicts.next() == Some(2) {
                    genuine |= 1 << page;
                }
                let begin = if place == 0 { Happening::Begin } else { Happening::Join };
                self.host.step(begin(cpu, page, asked(ask)));
            }
        }
        for _ in 0..flight.steps {
            self.host.step(Happening::Step(cpu, genuine));
        }
    }

    /// Follows an event that a world has just seen, and compares.
    ///
    /// # Errors
    /// The first thing that they do not agree on.
    pub fn follow(&mut self, event: Event, world: &World<'_>) -> Result<(), Disagreement> {
        self.step(event, self.happening(event, world), world)?;
        self.agrees(world)
    }

    /// Lets the oracle take the event; whether it is refused is agreed upon.
    fn step(
        &mut self,
        event: Event,
        happening: Happening,
        world: &World<'_>,
    ) -> Result<(), Disagreement> {
        let expected = self.host.step(happening);
        self.lives += u8::from(event == Event::Restart && usize::from(self.lives) < LIVES);
        if let Event::Begin(..) | Event::Join(..) = event {
            let refused = expected == Expect::Refused;
            if refused != world.just.refused.is_some() {
                let found = if refused { Expect::Done } else { Expect::Refused };
                return Err(Disagreement::Refusal(expected, found));
            }
        }
        Ok(())
    }

    /// Follows an event from a state in which both agreed, and compares what either of them
    /// changed.
    ///
    /// # Errors
    /// The first thing that they do not agree on.
    pub fn follow_from(
        &self,
        event: Event,
        world: &World<'_>,
        before: &Mark,
    ) -> Result<(), Disagreement> {
        let (mut tables, before) = (world.tables(), &before.tables);
        let happening = self.happening(event, world);
        // Nothing happens at the blackboard, and nothing did in the core.
        if happening == Happening::Elsewhere && tables == *before {
            return Ok(());
        }
        let mut after = *self;
        after.step(event, happening, world)?;
        if let Happening::Offer(frame, _) | Happening::Retract(frame, _) = happening {
            let at = usize::from(frame);
            tables.owners[at] = before.owners[at];
            if tables == *before {
                return after.owner_agrees(frame, world);
            }
            return after.agrees(world);
        }
        let mut changed_of_vm = [false; VMS];
        for page in world.config.page_refs() {
            let at = page.index();
            let same = after.host.same_page(&self.host, number(page));
            if !same || tables.rows[at] != before.rows[at] {
                changed_of_vm[usize::from(page.vm)] = true;
                after.page_agrees(page, world)?;
            }
        }
        for frame in 0..world.config.frames {
            let at = usize::from(frame);
            let same = after.host.owner(frame) == self.host.owner(frame);
            if !same || tables.owners[at] != before.owners[at] {
                after.owner_agrees(frame, world)?;
            }
        }
        for (vm, _) in (0_u8..).zip(world.config.pages) {
            let at = usize::from(vm);
            let same = after.host.same_vm(&self.host, vm) && !changed_of_vm[at];
            if !same || tables.vms[at] != before.vms[at] {
                after.vm_agrees(vm, world)?;
            }
        }
        Ok(())
    }

    fn page_agrees(&self, page: PageRef, world: &World<'_>) -> Result<(), Disagreement> {
        let (said, shown) = (self.host.sight(number(page)), sight(world, page));
        if said == shown { Ok(()) } else { Err(Disagreement::Page(page, said, shown)) }
    }

    fn vm_agrees(&self, vm: u8, world: &World<'_>) -> Result<(), Disagreement> {
        let (said, shown) = (self.host.vm_sight(vm), vm_sight(world, vm));
        if said == shown { Ok(()) } else { Err(Disagreement::Vm(vm, said, shown)) }
    }

    fn owner_agrees(&self, frame: u8, world: &World<'_>) -> Result<(), Disagreement> {
        let (said, shown) = (self.host.owner(frame), owner(world, frame));
        if said == shown { Ok(()) } else { Err(Disagreement::Frame(frame, said, shown)) }
    }

    /// Compares without an event.
    ///
    /// # Errors
    /// The first thing that they do not agree on.
    pub fn agrees(&self, world: &World<'_>) -> Result<(), Disagreement> {
        for page in world.config.page_refs() {
            self.page_agrees(page, world)?;
        }
        for frame in 0..world.config.frames {
            self.owner_agrees(frame, world)?;
        }
        for (vm, _) in (0_u8..).zip(world.config.pages) {
            self.vm_agrees(vm, world)?;
        }
        Ok(())
    }

    /// An event at the blackboard. Management's word about a page is nothing there.
    fn happening(&self, event: Event, world: &World<'_>) -> Happening {
        match event {
            Event::Offer(frame, page) => Happening::Offer(frame, number(page)),
            Event::Retract(frame, page) => Happening::Retract(frame, number(page)),
            Event::LaunchVm(vm) => Happening::LaunchVm(vm),
            Event::Begin(cpu, page, ask) => Happening::Begin(cpu, number(page), asked(ask)),
            Event::Join(cpu, page, ask) => Happening::Join(cpu, number(page), asked(ask)),
            // The machine also fails by itself: two VMs may want the last place in its pool.
            Event::Step(cpu) if world.just.faulted => Happening::Fault(cpu),
            Event::Step(cpu) => Happening::Step(cpu, genuine(world)),
            Event::Fault(cpu, _) => Happening::Fault(cpu),
            Event::Drop(cpu) => Happening::Drop(cpu),
            Event::Restart if usize::from(self.lives) < LIVES => Happening::Restart,
            Event::Restart
            | Event::GuestLoad(..)
            | Event::GuestStore(..)
            | Event::ManageLoad(..)
            | Event::ManageStore(..)
            | Event::ManageMap(_)
            | Event::Hand(..)
            | Event::Claim(_)
            | Event::Tick => Happening::Elsewhere,
        }
    }
}

/// A row of a state, as it was before its claim.
fn resting(page: &PageRow) -> Resting {
    const WRITABLE: u32 = 1 << 6;
    const OWES_REPLICA: u32 = 1 << 7;
    const ONCE: u8 = 2;
    let row = page.row;
    let rights = if row & WRITABLE == 0 { Rights::Read } else { Rights::ReadWrite };
    let until = if page.terms & 3 == ONCE { Until::FirstUnmap } else { Until::Closed };
    let shown = match row & 0xf {
        0 => State::Free,
        1 => State::Building,
        2 => State::Private,
        3 => State::Replica,
        4 => State::Sealed,
        5 => State::PagedOut,
        6 => State::Open(rights, until),
        _ => State::Poisoned,
    };
    Resting {
        state: shown,
        frame: shown.has_frame().then_some(page.frame),
        version: u64::from(page.version),
        excluded: u64::from(row) & EXCLUDED != 0,
        owes_replica: row & OWES_REPLICA != 0,
    }
}

/// The pages that the platform found genuine in the last step, bit by bit.
fn genuine(world: &World<'_>) -> u32 {
    let installs = world.machine.noted.installs.iter();
    installs.fold(0, |found, install| found | 1 << install.page.index())
}

fn sight(world: &World<'_>, page: PageRef) -> Sight {
    let shown = world.state(page);
    let state = drawn(shown, false);
    let held = world.is_busy(page);
    let in_frame = !held && state.has_frame();
    Sight {
        state: state.name(),
        rights: if let State::Open(rights, _) = state { Some(rights) } else { None },
        version: world.version(page),
        held,
        excluded: world.words(page)[0] & EXCLUDED != 0,
        frame: in_frame.then(|| small(world.frame(page).index())),
    }
}

fn owner(world: &World<'_>, frame: u8) -> Owner {
    let page = |vm: u16, gfn: u64| {
        let gfn = u8::try_from(gfn).unwrap_or(u8::MAX);
        number(PageRef { vm: u8::try_from(vm).unwrap_or(u8::MAX), gfn })
    };
    match world.ownership(frame) {
        Ownership::Free => Owner::Free,
        Ownership::Offered(vm, gfn) => Owner::Offered(page(vm.0, gfn.number())),
        Ownership::Owned(vm, gfn) => Owner::Owned(page(vm.0, gfn.number())),
        Ownership::Quarantined(vm, gfn) => Owner::Quarantined(page(vm.0, gfn.number())),
    }
}

fn vm_sight(world: &World<'_>, vm: u8) -> VmSight {
    VmSight { runs: world.vm(vm).runnable().is_ok(), replicas: world.vm(vm).replicas() }
}

fn number(page: PageRef) -> u8 {
    small(page.index())
}

fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}
