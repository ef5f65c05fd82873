//! Act and commit: plans in a bounded batch, carried out phase by phase.
//!
//! Withdraw all, one fence, seal or open all, wipe, grant all. So sealing is batched, one
//! shootdown serves many pages, and the order that secrecy hangs on cannot be got wrong elsewhere.

use heapless::Vec;

use crate::addr::Gfn;
use crate::claim::Plan;
use crate::platform::{OpenStep, Platform, SealStep, View};
use crate::state::PageState;
use crate::suite::{PageId, Tag};
use crate::wrong::WrongCore;

/// How far a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One call to the platform was made; there may be more.
    More,
    /// Every step is done; [`Batch::finish`] has the receipts.
    Done,
    /// A fault ended the batch. Its pages are poisoned.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Withdraw,
    Fence,
    Fetch,
    Seal,
    Open,
    Scrub,
    Grant,
    Done,
    Failed,
}

impl Phase {
    /// What follows where the fence comes last; `next` is what should.
    const fn fencing_late(self, next: Self) -> Self {
        match (self, next) {
            (Self::Withdraw, Self::Fence) => Self::Fetch,
            (Self::Grant, Self::Done) => Self::Fence,
            (Self::Fence, Self::Fetch) => Self::Done,
            (_, next) => next,
        }
    }
}

/// At most `N` plans that go through their phases together.
#[must_use = "a batch that is dropped before its first step changes nothing"]
#[derive(Debug)]
pub struct Batch<'t, const N: usize> {
    plans: Vec<Plan<'t>, N>,
    phase: Phase,
    cursor: usize,
    in_progress: bool,
}

impl<'t, const N: usize> Batch<'t, N> {
    /// A batch without plans.
    pub const fn new() -> Self {
        Self { plans: Vec::new(), phase: Phase::Withdraw, cursor: 0, in_progress: false }
    }

    /// Adds a plan.
    ///
    /// # Errors
    /// The plan, if the batch is full or under way.
    #[expect(clippy::result_large_err, reason = "the plan itself comes back, nothing is lost")]
    pub fn push(&mut self, plan: Plan<'t>) -> Result<(), Plan<'t>> {
        if self.in_progress { Err(plan) } else { self.plans.push(plan) }
    }

    /// How many plans there are.
    pub fn len(&self) -> usize {
        self.plans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes one call to the platform. Between two steps anything may happen elsewhere, and
    /// dropping the batch poisons the pages whose steps have begun.
    ///
    /// # Errors
    /// The platform's fault. Pages whose steps had begun are withdrawn from every view as far as
    /// the platform can, and poisoned; the others are as they were.
    pub fn step<P: Platform>(&mut self, platform: &mut P) -> Result<Progress, P::Fault> {
        self.in_progress = true;
        self.advance(platform).inspect_err(|_| self.close(platform))
    }

    /// Takes every step.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    pub fn run<P: Platform>(mut self, platform: &mut P) -> Result<Receipts<'t, N>, P::Fault> {
        while self.step(platform)? == Progress::More {}
        Ok(Receipts(self.plans))
    }

    /// Gives up. Pages whose steps had begun are withdrawn from every view as far as the platform
    /// can, and poisoned; the others are as they were. Dropping a batch poisons too, but leaves
    /// mappings as they are, for it has no platform to take them away with.
    pub fn abandon<P: Platform>(mut self, platform: &mut P) {
        if self.in_progress {
            self.close(platform);
        }
    }

    /// The receipts of a batch whose every step is done.
    ///
    /// # Errors
    /// The batch itself, if steps are left.
    pub fn finish(self) -> Result<Receipts<'t, N>, Self> {
        if self.phase == Phase::Done { Ok(Receipts(self.plans)) } else { Err(self) }
    }

    fn advance<P: Platform>(&mut self, platform: &mut P) -> Result<Progress, P::Fault> {
        loop {
            let acted = match self.phase {
                Phase::Withdraw => self.withdraw(platform)?,
                Phase::Fence => self.fence(platform)?,
                Phase::Fetch => self.fetch(platform)?,
                Phase::Seal => self.seal(platform)?,
                Phase::Open => self.open(platform)?,
                Phase::Scrub => self.scrub(platform)?,
                Phase::Grant => self.grant(platform)?,
                Phase::Done => return Ok(Progress::Done),
                Phase::Failed => return Ok(Progress::Failed),
            };
            if acted {
                return Ok(Progress::More);
            }
        }
    }

    fn withdraw<P: Platform>(&mut self, platform: &mut P) -> Result<bool, P::Fault> {
        // Two views a plan: the cursor counts both.
        let next = self.plans.iter_mut().enumerate().find_map(|(index, plan)| {
            (0..2_usize).find_map(|which| {
                let place = index.saturating_mul(2).saturating_add(which);
                let view = (place >= self.cursor).then(|| plan.withdrawal(which)).flatten()?;
                plan.start();
                Some((place, plan.target(), view))
            })
        });
        let Some((place, target, view)) = next else { return Ok(self.enter(Phase::Fence)) };
        self.cursor = place.saturating_add(1);
        platform.withdraw(&target, view)?;
        Ok(true)
    }

    fn fence<P: Platform>(&mut self, platform: &mut P) -> Result<bool, P::Fault> {
        self.enter(Phase::Fetch);
        let needed = self.plans.iter().any(Plan::withdraws);
        if needed {
            platform.fence()?;
        }
        Ok(needed)
    }

    fn fetch<P: Platform>(&mut self, platform: &mut P) -> Result<bool, P::Fault> {
        let Some(target) = self.next(|plan| plan.fetches().then(|| plan.target())) else {
            return Ok(self.enter(Phase::Seal));
        };
        platform.fetch(&target)?;
        Ok(true)
    }

    fn seal<P: Platform>(&mut self, platform: &mut P) -> Result<bool, P::Fault> {
        self.enter(Phase::Open);
        let mut steps: Vec<SealStep, N> = Vec::new();
        let mut tags: Vec<Tag, N> = Vec::new();
        for plan in &mut self.plans {
            if let Some(step) = plan.seal_step() {
                plan.start();
                let _ = steps.push(step);
                let _ = tags.push(Tag::default());
            }
        }
        if steps.is_empty() {
            return Ok(false);
        }
        platform.seal(&steps, &mut tags)?;
        let sealing = self.plans.iter_mut().filter(|plan| plan.seal_step().is_some());
        for (plan, tag) in sealing.zip(&tags) {
            plan.tag = *tag;
        }
        Ok(true)
    }

    fn open<P: Platform>(&mut self, platform: &mut P) -> Result<bool, P::Fault> {
        self.enter(Phase::Scrub);
        let mut steps: Vec<OpenStep, N> = Vec::new();
        let mut genuine: Vec<bool, N> = Vec::new();
        for plan in &mut self.plans {
            if let Some(step) = plan.open_step() {
                plan.start();
                let _ = steps.push(step);
                let _ = genuine.push(false);
            }
        }
        if steps.is_empty() {
            return Ok(false);
        }
        platform.open(&steps, &mut genuine)?;
        let opening = self.plans.iter_mut().filter(|plan| plan.open_step().is_some());
        for (plan, genuine) in opening.zip(&genuine) {
            plan.forged = !genuine && !plan.is_wrong(WrongCore::CommitsForged);
        }
        Ok(true)
    }

    fn scrub<P: Platform>(&mut self, platform: &mut P) -> Result<bool, P::Fault> {
        let next = self.next(|plan| plan.scrub().map(|copies| (plan.target(), copies)));
        let Some((target, copies)) = next else { return Ok(self.enter(Phase::Grant)) };
        platform.scrub(&target, copies)?;
        Ok(true)
    }

    fn grant<P: Platform>(&mut self, platform: &mut P) -> Result<bool, P::Fault> {
        let next = self.next(|plan| plan.grant().map(|grant| (plan.target(), grant)));
        let Some((target, (view, what, perm))) = next else {
            return Ok(self.enter(Phase::Done));
        };
        platform.grant(&target, view, what, perm)?;
        Ok(true)
    }

    /// The next plan of this phase that has something to do, marked as begun.
    fn next<T>(&mut self, pick: impl Fn(&Plan<'t>) -> Option<T>) -> Option<T> {
        let left = self.plans.iter_mut().enumerate().skip(self.cursor);
        for (index, plan) in left {
            if let Some(found) = pick(plan) {
                plan.start();
                self.cursor = index.saturating_add(1);
                return Some(found);
            }
        }
        None
    }

    /// Always false, so that a phase without work reads as one.
    fn enter(&mut self, phase: Phase) -> bool {
        let late = self.plans.iter().any(|plan| plan.is_wrong(WrongCore::FencesLate));
        self.phase = if late { self.phase.fencing_late(phase) } else { phase };
        self.cursor = 0;
        false
    }

    /// After a fault: takes every page that had begun away from every view, as far as the platform
    /// still can, and lets go of all plans.
    fn close<P: Platform>(&mut self, platform: &mut P) {
        for plan in self.plans.iter().filter(|plan| plan.is_started()) {
            let _ = platform.withdraw(&plan.target(), View::Owner);
            let _ = platform.withdraw(&plan.target(), View::Management);
        }
        let _ = platform.fence();
        self.plans.clear();
        self.enter(Phase::Failed);
    }
}

impl<const N: usize> Default for Batch<'_, N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Proof that every step of a batch was carried out. Only [`Batch`] makes one.
///
/// ```compile_fail,E0423
/// let forged = view_core::Receipts::<'static, 1>(heapless::Vec::new());
/// ```
#[must_use = "commit it: dropped, it poisons every page of the batch"]
#[derive(Debug)]
pub struct Receipts<'t, const N: usize>(Vec<Plan<'t>, N>);

/// What became of one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Which page.
    pub gfn: Gfn,
    /// What it is now; `Poisoned` if what was opened was not genuine.
    pub state: PageState,
    /// What it is in an image that it was sealed for: open only if it was opened without a limit.
    pub sealed_as: PageState,
    /// What was authenticated with the seal that was made, and its tag.
    pub sealed: Option<(PageId, Tag)>,
}

impl<const N: usize> Receipts<'_, N> {
    /// What becomes of each page, in the order in which plans were pushed.
    pub fn iter(&self) -> impl Iterator<Item = Receipt> {
        self.0.iter().map(|plan| Receipt {
            gfn: plan.gfn(),
            state: plan.after(),
            sealed_as: plan.sealed_as(),
            sealed: plan.seal_id().map(|id| (id, plan.tag)),
        })
    }

    /// Makes every decision true in the table. Cannot fail.
    pub fn commit(mut self) {
        // By `pop`: the iterator of a heapless list has a panic path in its drop.
        while let Some(plan) = self.0.pop() {
            plan.commit();
        }
    }
}
