//! A host with a device: frames, a replica, one guest's table, and an IOMMU whose table the
//! platform writes and whose memory of it (the IOTLB) only a fence empties.
//!
//! A write of the device is translated when it is issued and lands later: on return of a fence,
//! those that were issued before have landed.

use view_core::suite::{Stream, Tag};
use view_core::{Copies, OpenStep, Perm, Place, Platform, SealStep, Source, Target, View, What};

use super::Flaw;
use crate::bytes::{Bytes, Seal};
use crate::machine::Broken;
use crate::study::spine::{GFNS, small};

/// How many frames there are.
pub(super) const FRAMES: usize = 2;
/// The replica's place, behind the frames.
pub(super) const REPLICA: usize = FRAMES;
/// How many places there are.
pub(super) const PLACES: usize = FRAMES + 1;

/// An entry of the IOMMU's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// What the device may do.
    pub(super) perm: Perm,
    /// Whether a batch granted it; else the frame was nobody's.
    granted: bool,
}

impl Entry {
    /// For a frame that is nobody's.
    pub(super) const NOBODYS: Self = Self { perm: Perm::ReadWrite, granted: false };
}

/// The state of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Machine {
    /// What frames and the replica hold.
    pub(super) memory: [Bytes; PLACES],
    /// Where the guest finds its pages.
    pub(super) guest: [Option<u8>; GFNS],
    /// What the device may do, by table.
    pub(super) iommu: [Option<Entry>; PLACES],
    /// The one translation that the IOMMU remembers.
    pub(super) iotlb: Option<(u8, Perm)>,
    /// Where a write of the device will land.
    pub(super) posted: Option<u8>,
    /// Whose replica there is.
    pub(super) replica_of: Option<u8>,
    /// A place whose entry a wrong platform has yet to clear.
    owed: Option<u8>,
}

impl Machine {
    /// A host whose frames are the management side's, and its device's.
    pub(super) fn new() -> Self {
        let nobodys = |place: usize| (place < FRAMES).then_some(Entry::NOBODYS);
        Self {
            memory: [Bytes::PUBLIC; PLACES],
            guest: [None; GFNS],
            iommu: std::array::from_fn(nobodys),
            iotlb: None,
            posted: None,
            replica_of: None,
            owed: None,
        }
    }

    /// What the IOMMU remembers of a place.
    pub(super) fn remembered(&self, place: usize) -> Option<Perm> {
        self.iotlb.filter(|(at, _)| usize::from(*at) == place).map(|(_, perm)| perm)
    }

    /// The device looks a place up, and the IOMMU remembers what it found.
    pub(super) fn translate(&mut self, place: usize, asked: Perm, flaw: Option<Flaw>) -> bool {
        let found = self.remembered(place).or(self.iommu[place].map(|entry| entry.perm));
        if let Some(perm) = found {
            self.iotlb = Some((small(place), perm));
        }
        found.is_some_and(|perm| perm.allows(asked) || flaw == Some(Flaw::ReadsAsWrites))
    }

    /// Whether the device reaches a place: by table, by memory, or by a write under way.
    pub(super) fn device_reaches(&self, place: usize) -> bool {
        let posted = self.posted.is_some_and(|at| usize::from(at) == place);
        self.iommu[place].is_some() || self.remembered(place).is_some() || posted
    }
}

/// The platform, sound or with one flaw.
#[derive(Debug)]
pub(super) struct Host<'m> {
    /// The host.
    pub(super) machine: &'m mut Machine,
    /// What is wrong with it.
    pub(super) flaw: Option<Flaw>,
    /// Where a write of the device landed because a fence waited for it.
    pub(super) landed: Option<u8>,
}

fn place_of(page: &Target) -> usize {
    usize::try_from(page.frame.number()).unwrap_or(usize::MAX)
}

fn gfn_of(page: &Target) -> usize {
    usize::try_from(page.gfn.number()).unwrap_or(usize::MAX)
}

impl Host<'_> {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    fn replica(&self, page: &Target) -> Option<usize> {
        let theirs = self.machine.replica_of.map(usize::from) == Some(gfn_of(page));
        theirs.then_some(REPLICA)
    }

    fn unmap(&mut self, place: usize) {
        let kept = self.machine.iommu[place].is_some_and(|entry| !entry.granted);
        if self.is(Flaw::KeepsTable) || self.is(Flaw::KeepsDonated) && kept {
            return;
        }
        if self.is(Flaw::UnmapsLate) {
            self.machine.owed = u8::try_from(place).ok();
            return;
        }
        self.machine.iommu[place] = None;
    }

    fn unmap_late(&mut self) {
        if let Some(place) = self.machine.owed.take() {
            self.machine.iommu[usize::from(place)] = None;
        }
    }

    fn seal_one(&mut self, step: &SealStep) -> Seal {
        let frame = place_of(&step.target);
        let staged = match step.from {
            Source::Frame => self.machine.memory[frame],
            Source::Zeroes => Bytes::ZERO,
        };
        let seal = Seal::new(step.target.vm, &step.id, staged);
        match step.to {
            Place::Replica => {
                self.machine.replica_of = u8::try_from(gfn_of(&step.target)).ok();
                self.machine.memory[REPLICA] = Bytes::Sealed(seal);
            }
            Place::InPlace => self.machine.memory[frame] = Bytes::Sealed(seal),
            // What was sent away is sealed; nothing here looks at it again.
            Place::Wire => assert_ne!(step.id.stream, Stream::Resident, "no page leaves"),
        }
        seal
    }
}

impl Platform for Host<'_> {
    type Fault = Broken;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), Broken> {
        let frame = place_of(page);
        match view {
            View::Owner => {
                self.machine.guest[gfn_of(page)] = None;
                if self.is(Flaw::ReturnsEarly) {
                    self.machine.iommu[frame] = Some(Entry::NOBODYS);
                }
            }
            View::Management => {
                self.unmap(frame);
                if let Some(replica) = self.replica(page) {
                    self.unmap(replica);
                }
            }
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<(), Broken> {
        if !self.is(Flaw::KeepsIotlb) {
            self.machine.iotlb = None;
        }
        if !self.is(Flaw::LeavesPosted)
            && let Some(place) = self.machine.posted.take()
        {
            self.machine.memory[usize::from(place)] = Bytes::PUBLIC;
            self.landed = Some(place);
        }
        Ok(())
    }

    fn fetch(&mut self, _: &Target) -> Result<(), Broken> {
        // No page leaves, so none comes back.
        Err(Broken)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), Broken> {
        for (step, tag) in steps.iter().zip(tags) {
            *tag = self.seal_one(step).tag();
        }
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Broken> {
        for (step, genuine) in steps.iter().zip(genuine) {
            let held = &mut self.machine.memory[place_of(&step.target)];
            let opened = match *held {
                Bytes::Sealed(seal) if seal.is(step.target.vm, &step.id, &step.tag) => {
                    Some(Bytes::Plain(seal.inner))
                }
                Bytes::Sealed(_) | Bytes::Plain(_) => None,
            };
            *genuine = opened.is_some();
            *held = opened.unwrap_or(Bytes::ZERO);
        }
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), Broken> {
        let replica = self.replica(page);
        if matches!(copies, Copies::Original | Copies::All) {
            self.machine.memory[place_of(page)] = Bytes::ZERO;
        }
        if let (Copies::Replica | Copies::All, Some(replica)) = (copies, replica) {
            self.machine.memory[replica] = Bytes::ZERO;
            self.machine.replica_of = None;
        }
        self.unmap_late();
        Ok(())
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), Broken> {
        self.unmap_late();
        let place = match (view, what) {
            (View::Owner, _) => {
                self.machine.guest[gfn_of(page)] = u8::try_from(place_of(page)).ok();
                return Ok(());
            }
            (View::Management, What::Plain | What::Sealed) => place_of(page),
            (View::Management, What::Replica) => self.replica(page).ok_or(Broken)?,
            // The VM has no field mask.
            (View::Management, What::Masked(_)) => return Err(Broken),
        };
        self.machine.iommu[place] = Some(Entry { perm, granted: true });
        Ok(())
    }
}
