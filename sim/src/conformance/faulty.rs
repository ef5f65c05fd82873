//! A platform whose next call fails because it was told to, before or after it did its work.

use view_core::suite::Tag;
use view_core::{Copies, OpenStep, Perm, Platform, SealStep, Target, View, What};

use crate::event::FaultTime;

/// Any platform, for the length of one step.
#[derive(Debug)]
pub(super) struct Faulty<'p, P> {
    pub(super) platform: &'p mut P,
    /// When the next call fails; it is one call only.
    pub(super) fault: Option<FaultTime>,
}

/// Whose fault it was: the platform's own, or ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    Platform,
    Ours,
}

impl<P: Platform> Faulty<'_, P> {
    fn call(&mut self, work: impl FnOnce(&mut P) -> Result<(), P::Fault>) -> Result<(), Blame> {
        match self.fault.take() {
            Some(FaultTime::Early) => Err(Blame::Ours),
            Some(FaultTime::Late) => {
                work(self.platform).map_err(|_| Blame::Platform).and(Err(Blame::Ours))
            }
            None => work(self.platform).map_err(|_| Blame::Platform),
        }
    }
}

impl<P: Platform> Platform for Faulty<'_, P> {
    type Fault = Blame;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), Blame> {
        self.call(|platform| platform.withdraw(page, view))
    }

    fn fence(&mut self) -> Result<(), Blame> {
        self.call(P::fence)
    }

    fn fetch(&mut self, page: &Target) -> Result<(), Blame> {
        self.call(|platform| platform.fetch(page))
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), Blame> {
        self.call(|platform| platform.seal(steps, tags))
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Blame> {
        self.call(|platform| platform.open(steps, genuine))
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), Blame> {
        self.call(|platform| platform.scrub(page, copies))
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), Blame> {
        self.call(|platform| platform.grant(page, view, what, perm))
    }
}
