//! Platforms with one error each, planted around a sound one: what a conformance test must catch
//! on every platform, or it says nothing there.

use view_core::suite::Tag;
use view_core::{Copies, Gfn, OpenStep, Perm, Platform, SealStep, Target, View, What};

use super::ConformingPlatform;
use crate::bytes::Label;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// The owner keeps what is withdrawn from it.
    KeepsOwner,
    /// The management side keeps what is withdrawn from it.
    KeepsManagement,
    /// The fence does nothing. No error where withdrawing takes hold at once.
    ForgetsFence,
    /// The management side is given the page where it was to have a replica.
    MapsOriginal,
    /// The management side may always store.
    GrantsStores,
    /// Nothing is wiped.
    SkipsScrub,
    /// What was handed over is not fetched.
    SkipsFetch,
    /// Whatever was opened is called genuine.
    BelievesAll,
    /// Whatever was opened is called forged.
    BelievesNothing,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::KeepsOwner,
        Self::KeepsManagement,
        Self::ForgetsFence,
        Self::MapsOriginal,
        Self::GrantsStores,
        Self::SkipsScrub,
        Self::SkipsFetch,
        Self::BelievesAll,
        Self::BelievesNothing,
    ];
}

/// A platform that does everything right but one thing.
#[derive(Debug)]
pub struct Planted<P> {
    /// The sound one.
    pub platform: P,
    /// The error.
    pub plant: Plant,
}

impl<P: Platform> Platform for Planted<P> {
    type Fault = P::Fault;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), P::Fault> {
        match (self.plant, view) {
            (Plant::KeepsOwner, View::Owner) | (Plant::KeepsManagement, View::Management) => Ok(()),
            _ => self.platform.withdraw(page, view),
        }
    }

    fn fence(&mut self) -> Result<(), P::Fault> {
        if self.plant == Plant::ForgetsFence { Ok(()) } else { self.platform.fence() }
    }

    fn fetch(&mut self, page: &Target) -> Result<(), P::Fault> {
        if self.plant == Plant::SkipsFetch { Ok(()) } else { self.platform.fetch(page) }
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), P::Fault> {
        self.platform.seal(steps, tags)
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), P::Fault> {
        self.platform.open(steps, genuine)?;
        if matches!(self.plant, Plant::BelievesAll | Plant::BelievesNothing) {
            genuine.fill(self.plant == Plant::BelievesAll);
        }
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), P::Fault> {
        if self.plant == Plant::SkipsScrub { Ok(()) } else { self.platform.scrub(page, copies) }
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), P::Fault> {
        let what = match (self.plant, what) {
            (Plant::MapsOriginal, What::Replica) => What::Plain,
            _ => what,
        };
        let perm = if self.plant == Plant::GrantsStores { Perm::ReadWrite } else { perm };
        self.platform.grant(page, view, what, perm)
    }
}

impl<P: ConformingPlatform> ConformingPlatform for Planted<P> {
    fn guest_load(&mut self, gfn: Gfn) -> Option<u64> {
        self.platform.guest_load(gfn)
    }

    fn guest_store(&mut self, gfn: Gfn, value: u64) -> bool {
        self.platform.guest_store(gfn, value)
    }

    fn management_load(&mut self, page: &Target) -> Option<u64> {
        self.platform.management_load(page)
    }

    fn management_store(&mut self, page: &Target, value: u64) -> bool {
        self.platform.management_store(page, value)
    }

    fn tamper(&mut self, gfn: Gfn) {
        self.platform.tamper(gfn);
    }

    fn hand(&mut self, gfn: Gfn, seal: Label) -> bool {
        self.platform.hand(gfn, seal)
    }
}
