//! The shipped core in a study: its tables as plain words, and one batch at a time that goes on
//! from what was asked and answered.
//!
//! Words are kept as they were before the batch under way claimed its page. To go on is to claim,
//! to decide and to take the same steps again, so that no plan is ever made by anybody else.

use std::array;

use view_core::suite::Tag;
use view_core::whitelist::{Lease, Leases};
use view_core::{
    Batch, Copies, Epoch, Frames, OpenStep, Owner, Ownership, PageState, Perm, Plan, Platform,
    Progress, Refused, SealStep, Slot, Target, View, Vm, VmConfig, VmNumber, What,
};

use crate::echo::Echo;
use crate::event::{Ask, PageRef};
use crate::flight::Answer;
use crate::host::{decide, frame, gfn};

/// How many VMs there are.
pub(super) const VMS: usize = 2;
/// How many pages a VM has.
pub(super) const GFNS: usize = 3;
/// How many frames can back them.
pub(super) const FRAMES: usize = 7;
/// How many pages there are.
pub(super) const PAGES: usize = VMS * GFNS;
/// How many replicas of a VM's pages there can be.
const REPLICAS: u64 = 1;

const FREE: u64 = 0;
const SEALED: u64 = 4;
const PAGED_OUT: u64 = 5;
const FRAME_SHIFT: u32 = 24;
const VERSION_MASK: u64 = (1 << 56) - 1;

/// A page's place in arrays.
pub(super) fn at(page: PageRef) -> usize {
    usize::from(page.vm) * GFNS + usize::from(page.gfn)
}

/// What the core knows, and the batch under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Core {
    rows: [[u64; 4]; PAGES],
    leases: [[u64; 2]; PAGES],
    owners: [u64; FRAMES],
    vms: [[u64; 3]; VMS],
    /// The batch under way.
    pub(super) flight: Option<Flight>,
}

/// A batch of one plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flight {
    /// Of which page.
    pub(super) page: PageRef,
    /// What was asked.
    pub(super) ask: Ask,
    steps: u8,
    answers: Answers,
}

/// What the platform said so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Answers {
    tag: Option<Tag>,
    genuine: Option<bool>,
}

/// What an onlooker sees of the core at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Glance {
    /// What each page is.
    pub(super) states: [PageState; PAGES],
    /// Whose each frame is.
    pub(super) owners: [Ownership; FRAMES],
    /// Whether each VM's CPUs may run.
    pub(super) runs: [bool; VMS],
}

impl Answers {
    fn said(&self) -> heapless::Vec<Answer, 2> {
        let tag = self.tag.map(Answer::Tag);
        tag.into_iter().chain(self.genuine.map(Answer::Genuine)).collect()
    }
}

#[derive(Default)]
struct Tables {
    slots: [[Slot; GFNS]; VMS],
    leases: [[Lease; GFNS]; VMS],
    owners: [Owner; FRAMES],
}

impl Tables {
    fn of(core: &Core) -> Self {
        let new = Self::default();
        let slots = new.slots.iter().flatten().zip(core.rows);
        slots.for_each(|(slot, words)| slot.put_words(words));
        let leases = new.leases.iter().flatten().zip(core.leases);
        leases.for_each(|(lease, words)| lease.put_words(words));
        new.owners.iter().zip(core.owners).for_each(|(owner, word)| owner.put_word(word));
        new
    }

    fn vms(&self, core: &Core) -> [Vm<'_>; VMS] {
        array::from_fn(|vm| {
            let config = VmConfig {
                number: VmNumber(u16::try_from(vm).unwrap_or(u16::MAX)),
                epoch: Epoch(1),
                pages: GFNS as u64,
                slots: &self.slots[vm],
                frames: Frames::new(&self.owners),
                leases: Leases::new(&self.leases[vm]),
                masks: &[],
                replicas_max: REPLICAS,
            };
            Vm::resume(config, core.vms[vm]).expect("as many rows as pages")
        })
    }
}

impl Flight {
    /// Claims and decides.
    fn plan<'t>(&self, vms: &'t [Vm<'t>; VMS]) -> Option<Result<Plan<'t>, Refused>> {
        let vm = &vms[usize::from(self.page.vm)];
        let claim = vm.claim(gfn(self.page)).ok()?;
        Some(decide(vm, claim, self.page, self.ask))
    }

    /// The batch as it was.
    fn again<'t>(&self, vms: &'t [Vm<'t>; VMS]) -> Batch<'t, 1> {
        let Some(Ok(plan)) = self.plan(vms) else {
            unreachable!("what was planned once can be planned again")
        };
        let mut batch = Batch::new();
        assert!(batch.push(plan).is_ok(), "there is room for one");
        let said = self.answers.said();
        let mut echo = Echo { answers: &said, heard: 0 };
        for _ in 0..self.steps {
            let _ = batch.step(&mut echo);
        }
        batch
    }
}

impl Core {
    /// Ends the building of every VM, so that accepted pages are their owners' at once.
    pub(super) fn launch(&mut self) {
        let tables = Tables::of(self);
        let vms = tables.vms(self);
        assert!(vms.iter().all(|vm| vm.launch().is_ok()), "no page is being built");
        self.take(&tables, &vms);
    }

    /// The management side offers a frame to a page; false if the core refuses.
    pub(super) fn offer(&mut self, number: u8, page: PageRef) -> bool {
        let tables = Tables::of(self);
        let vm = VmNumber(u16::from(page.vm));
        let offered = Frames::new(&tables.owners).offer(frame(number), vm, gfn(page));
        self.owners = array::from_fn(|at| tables.owners[at].word());
        offered.is_ok()
    }

    /// Begins a batch; false if one is under way or the core refuses.
    pub(super) fn begin(&mut self, page: PageRef, ask: Ask) -> bool {
        let flight = Flight { page, ask, steps: 0, answers: Answers::default() };
        let tables = Tables::of(self);
        let vms = tables.vms(self);
        let fine = self.flight.is_none() && matches!(flight.plan(&vms), Some(Ok(_)));
        if fine {
            self.flight = Some(flight);
        }
        fine
    }

    /// Takes one step. What was asked, and what became of it, when that was the last one.
    pub(super) fn step<P: Platform>(&mut self, platform: &mut P) -> Option<(Flight, PageState)> {
        let flight = self.flight.take()?;
        let tables = Tables::of(self);
        let vms = tables.vms(self);
        let mut batch = flight.again(&vms);
        let mut heard = Heard { platform, answers: flight.answers };
        match batch.step(&mut heard) {
            Ok(Progress::More) => {
                let (steps, answers) = (flight.steps + 1, heard.answers);
                self.flight = Some(Flight { steps, answers, ..flight });
                return None;
            }
            Ok(Progress::Done) => {
                let receipts = batch.finish().expect("every step is done");
                receipts.commit();
            }
            Ok(Progress::Failed) | Err(_) => drop(batch),
        }
        self.take(&tables, &vms);
        let state = vms[usize::from(flight.page.vm)].state(gfn(flight.page));
        Some((flight, state.expect("a page of this VM")))
    }

    /// Asks and takes every step; the core must agree.
    pub(super) fn run<P: Platform>(&mut self, page: PageRef, ask: Ask, platform: &mut P) {
        assert!(self.begin(page, ask), "{page} {ask} is refused");
        while self.step(platform).is_none() {}
    }

    /// What an onlooker sees now.
    pub(super) fn glance(&self) -> Glance {
        let tables = Tables::of(self);
        let vms = tables.vms(self);
        let batch = self.flight.map(|flight| flight.again(&vms));
        let frames = Frames::new(&tables.owners);
        let state = |index: usize| {
            let page = PageRef { vm: small(index / GFNS), gfn: small(index % GFNS) };
            vms[usize::from(page.vm)].state(gfn(page)).expect("a page of this VM")
        };
        let glance = Glance {
            states: array::from_fn(state),
            owners: array::from_fn(|at| frames.owner(frame(small(at))).expect("a frame")),
            runs: array::from_fn(|vm| vms[vm].runnable().is_ok()),
        };
        drop(batch);
        glance
    }

    /// The frame that a page's row names.
    pub(super) fn frame(&self, page: PageRef) -> Option<u8> {
        let [control, ..] = self.rows[at(page)];
        let none = matches!(control & 0xf, FREE | PAGED_OUT);
        (!none).then(|| small((control >> FRAME_SHIFT) as usize))
    }

    /// How often a page used a version up.
    pub(super) fn version(&self, page: PageRef) -> u64 {
        let [_, version, ..] = self.rows[at(page)];
        version & VERSION_MASK
    }

    /// The words of the tables, without what means nothing.
    fn take(&mut self, tables: &Tables, vms: &[Vm<'_>; VMS]) {
        self.owners = array::from_fn(|at| tables.owners[at].word());
        self.vms = array::from_fn(|vm| vms[vm].words());
        for (index, row) in self.rows.iter_mut().enumerate() {
            let [mut control, version, mut low, mut high] =
                tables.slots[index / GFNS][index % GFNS].words();
            if matches!(control & 0xf, FREE | PAGED_OUT) {
                control &= (1 << FRAME_SHIFT) - 1;
            }
            if !matches!(control & 0xf, SEALED | PAGED_OUT) {
                (low, high) = (0, 0);
            }
            *row = [control, version, low, high];
            let [page, expiry] = tables.leases[index / GFNS][index % GFNS].words();
            self.leases[index] = if page == 0 { [0; 2] } else { [page, expiry] };
        }
    }
}

pub(super) fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// Passes every call on, and notes what is answered.
struct Heard<'p, P> {
    platform: &'p mut P,
    answers: Answers,
}

impl<P: Platform> Platform for Heard<'_, P> {
    type Fault = P::Fault;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), P::Fault> {
        self.platform.withdraw(page, view)
    }

    fn fence(&mut self) -> Result<(), P::Fault> {
        self.platform.fence()
    }

    fn fetch(&mut self, page: &Target) -> Result<(), P::Fault> {
        self.platform.fetch(page)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), P::Fault> {
        self.platform.seal(steps, tags)?;
        self.answers.tag = tags.first().copied();
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), P::Fault> {
        self.platform.open(steps, genuine)?;
        self.answers.genuine = genuine.first().copied();
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), P::Fault> {
        self.platform.scrub(page, copies)
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), P::Fault> {
        self.platform.grant(page, view, what, perm)
    }
}
