//! One thread: what it tries, and the platform that its batches run on.

use std::sync::atomic::{AtomicU64, Ordering};

use view_core::suite::{PageId, Stream, Tag};
use view_core::whitelist::{Doorbell, DoorbellFact, Rule};
use view_core::{
    Act, Batch, Claim, Copies, Frame, Gfn, OpenStep, Ownership, PageState, Perm, Plan, Platform,
    Progress, Refused, Request, SealStep, Target, Unclaimed, View, What,
};

use crate::world::World;
use crate::{Dice, FRAMES, PAGES};

const TURNS: u64 = 400;

/// One thread with its handle on the platform.
pub(crate) struct Worker<'w, 'v> {
    world: &'w World<'v>,
    dice: Dice,
    name: u64,
    pub(crate) careful: bool,
    /// Pages that this thread holds.
    held: Vec<Gfn>,
    /// After a fault the platform works again until its batch is closed.
    faulted: bool,
}

impl<'w, 'v> Worker<'w, 'v> {
    pub(crate) fn new(world: &'w World<'v>, dice: Dice) -> Self {
        static NAMES: AtomicU64 = AtomicU64::new(1);
        let name = NAMES.fetch_add(1, Ordering::Relaxed);
        let careful = world.gentle;
        Self { world, dice, name, careful, held: vec![], faulted: false }
    }

    pub(crate) fn work(mut self) {
        for turn in 0..TURNS {
            if turn % 16 == self.name % 16 {
                self.retract_offers();
            }
            let mut batch = Batch::<8>::new();
            for _ in 0..=self.dice.below(4) {
                if let Some(plan) = self.plan() {
                    batch.push(plan).expect("room for four");
                }
            }
            let committed = if !self.careful && self.dice.below(250) == 0 {
                self.walk_away(batch);
                self.world.count("batch dropped");
                false
            } else {
                self.run(batch)
            };
            self.world.count(if committed { "committed" } else { "not committed" });
            assert!(self.held.is_empty());
        }
    }

    /// Claims some page and decides something about it; what is refused is let go.
    fn plan(&mut self) -> Option<Plan<'w>> {
        let world = self.world;
        let gfn = Gfn::new(self.dice.below(PAGES as u64)).expect("small");
        let claim = match self.claim(gfn) {
            Ok(claim) => claim,
            Err(why) => {
                assert_eq!(why, Unclaimed::Busy);
                world.count("busy");
                return None;
            }
        };
        // Until the decision is made: a refusal gives the page back before we hear of it.
        self.let_go(gfn);
        let decided = self.decide(gfn, claim);
        match decided {
            Ok(plan) => {
                self.enter(gfn);
                if self.dice.below(16) == 0 {
                    self.let_go(gfn);
                    drop(plan);
                    world.count("plan dropped");
                    return None;
                }
                let mut page = world.page(gfn);
                page.at_risk = true;
                if page.state != PageState::Poisoned {
                    page.in_pool = [page.state, plan.after()].contains(&PageState::Replica);
                }
                drop(page);
                Some(plan)
            }
            Err(refused) => {
                let mut seen = world.seen.lock().expect("no thread died");
                seen.refusals.insert(format!("{refused:?}"));
                None
            }
        }
    }

    fn decide(&mut self, gfn: Gfn, claim: Claim<'w>) -> Result<Plan<'w>, Refused> {
        let (vm, frames) = (self.world.vm, self.world.vm.frames());
        let frame = Frame::new(self.dice.below(FRAMES as u64)).expect("small");
        let elsewhere = Gfn::new((gfn.number() + 1) % PAGES as u64).expect("small");
        match self.dice.below(16) {
            0 | 1 => claim.request(Request::Map(Perm::Read)),
            2 => claim.request(Request::Unmap),
            3 => claim.request(Request::Export(Stream::View)),
            4 => claim.request(Request::Export(Stream::Image)),
            5 => claim.request(Request::Seal),
            6 => claim.request(Request::PageOut),
            7 | 8 => {
                let _ = frames.offer(frame, vm.number(), gfn);
                claim.request(Request::PageIn(frame))
            }
            9 => {
                let _ = frames.offer(frame, vm.number(), gfn);
                claim.act(Act::Accept(frame))
            }
            10 if self.dice.below(4) == 0 => claim.request(Request::Destroy),
            10 | 11 => claim.act(Act::Touch),
            12 if self.dice.below(8) == 0 => claim.act(self.share(elsewhere)),
            12 | 13 => claim.act(self.share(gfn)),
            14 => claim.act(Act::Unshare),
            _ => claim.act(Act::Exclude(self.dice.below(2) == 0)),
        }
    }

    /// Takes back every offer that nobody accepted, also those of other threads.
    fn retract_offers(&self) {
        let frames = self.world.vm.frames();
        for frame in (0..FRAMES as u64).map(|frame| Frame::new(frame).expect("small")) {
            if let Some(Ownership::Offered(vm, gfn)) = frames.owner(frame)
                && frames.retract(frame, vm, gfn).is_err()
            {
                self.world.count("offer gone before it was retracted");
            }
        }
    }

    pub(crate) fn share(&self, gfn: Gfn) -> Act {
        let vm = self.world.vm;
        let (call, gfn) = (Doorbell::SHARE, gfn.number());
        let fact = DoorbellFact { vm: vm.number(), call, gfn, perm: 1, mask: 0, expiry: 1 + gfn };
        Doorbell.infer(vm, &fact).expect("evidence").act().1
    }

    /// Claims a page and holds its row against what the world knows.
    pub(crate) fn claim(&mut self, gfn: Gfn) -> Result<Claim<'w>, Unclaimed> {
        let claim = self.world.vm.claim(gfn)?;
        self.enter(gfn);
        let (entry, mut page) = (claim.entry(), self.world.page(gfn));
        if page.at_risk && entry.state == PageState::Poisoned {
            page.state = PageState::Poisoned;
        } else {
            assert_eq!(entry.state, page.state, "page {} changed by itself", gfn.number());
        }
        page.at_risk = false;
        assert!(entry.version >= page.version, "versions never go back");
        page.version = entry.version;
        if matches!(entry.state, PageState::Sealed | PageState::PagedOut) {
            assert_eq!(entry.tag, page.tag, "a row with another seal's tag");
        }
        match entry.state {
            PageState::Private => assert_eq!(page.management, None),
            PageState::Replica => assert_eq!(page.management, Some(What::Replica)),
            PageState::Sealed | PageState::PagedOut => assert_eq!(page.owner, None),
            PageState::Free
            | PageState::Building
            | PageState::Open { .. }
            | PageState::Scrubbing
            | PageState::Poisoned => {}
        }
        drop(page);
        Ok(claim)
    }

    fn enter(&mut self, gfn: Gfn) {
        let before = self.world.holder(gfn).swap(self.name, Ordering::Relaxed);
        assert_eq!(before, 0, "page {} has two holders", gfn.number());
        self.held.push(gfn);
    }

    /// Said before the core is told, so that the next holder finds nobody.
    pub(crate) fn let_go(&mut self, gfn: Gfn) {
        let before = self.world.holder(gfn).swap(0, Ordering::Relaxed);
        assert_eq!(before, self.name, "page {} was taken from its holder", gfn.number());
        self.held.retain(|held| *held != gfn);
    }

    fn let_go_of_all(&mut self) {
        for gfn in self.held.clone() {
            self.let_go(gfn);
        }
    }

    /// Takes some steps, then drops the batch. Drop happens inside, so the pages are let go first.
    fn walk_away(&mut self, mut batch: Batch<'w, 8>) {
        for _ in 0..self.dice.below(6) {
            if batch.step(self) != Ok(Progress::More) {
                break;
            }
        }
        self.let_go_of_all();
        self.faulted = false;
    }

    /// Runs a batch and commits it; whether it came so far.
    pub(crate) fn run(&mut self, batch: Batch<'w, 8>) -> bool {
        let Ok(receipts) = batch.run(self) else {
            self.world.count("fault");
            // The core let go of all pages when it closed the batch; so did `close`, just before.
            assert!(self.held.is_empty());
            self.faulted = false;
            return false;
        };
        for receipt in receipts.iter() {
            let mut page = self.world.page(receipt.gfn);
            if receipt.state == PageState::Poisoned && page.state != PageState::Poisoned {
                self.world.count("forged");
            } else if receipt.state == PageState::Poisoned {
                // Destroyed: every copy is wiped, and the pool has the replica's place back.
                page.in_pool = false;
            }
            (page.state, page.at_risk) = (receipt.state, false);
            if let Some((id, tag)) = receipt.sealed {
                page.version = id.version;
                if id.stream == Stream::Resident {
                    page.tag = tag;
                }
            }
        }
        self.let_go_of_all();
        receipts.commit();
        true
    }

    /// What every call of the platform begins with.
    fn call(&mut self, pages: &[Gfn]) -> Result<(), ()> {
        for gfn in pages {
            let holder = self.world.holder(*gfn).load(Ordering::Relaxed);
            assert_eq!(holder, self.name, "a step on page {} that others hold", gfn.number());
        }
        if !self.careful && !self.faulted && self.dice.below(800) == 0 {
            self.faulted = true;
            return Err(());
        }
        Ok(())
    }
}

fn tag_of(id: &PageId) -> Tag {
    (u128::from(id.version.number()) << 64 | u128::from(id.gfn.number()) << 8 | id.stream as u128)
        .to_le_bytes()
}

impl Platform for Worker<'_, '_> {
    type Fault = ();

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), ()> {
        self.call(&[page.gfn])?;
        let mut known = self.world.page(page.gfn);
        match view {
            View::Owner => known.owner = None,
            View::Management => known.management = None,
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<(), ()> {
        self.call(&[])?;
        if self.faulted {
            // The last call of a batch that failed; the core lets go of its pages right after.
            self.let_go_of_all();
        }
        Ok(())
    }

    fn fetch(&mut self, page: &Target) -> Result<(), ()> {
        self.call(&[page.gfn])
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ()> {
        let mut sealed = self.world.sealed.lock().expect("no thread died");
        for (step, tag) in steps.iter().zip(tags) {
            let fresh = sealed.insert((step.id.gfn, step.id.version));
            assert!(fresh, "used twice: {:?}", step.id);
            let burnt = self.world.version_in_row(step.id.gfn);
            assert_eq!(burnt, step.id.version.number(), "burnt before it is used");
            *tag = tag_of(&step.id);
        }
        drop(sealed);
        let pages: Vec<_> = steps.iter().map(|step| step.target.gfn).collect();
        self.call(&pages)
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ()> {
        for (step, genuine) in steps.iter().zip(genuine) {
            assert_eq!(step.tag, tag_of(&step.id), "another seal's tag");
            *genuine = self.careful || self.dice.below(60) != 0;
        }
        let pages: Vec<_> = steps.iter().map(|step| step.target.gfn).collect();
        self.call(&pages)
    }

    fn scrub(&mut self, page: &Target, _: Copies) -> Result<(), ()> {
        self.call(&[page.gfn])
    }

    fn grant(&mut self, page: &Target, view: View, what: What, _: Perm) -> Result<(), ()> {
        self.call(&[page.gfn])?;
        let mut known = self.world.page(page.gfn);
        match view {
            View::Owner => known.owner = Some(what),
            View::Management => known.management = Some(what),
        }
        Ok(())
    }
}
