//! Claim and decide: taking one page's row, and turning a request or an act into a plan.
//!
//! A claim or a plan that is dropped gives the page back as it was; only a version that the plan
//! was going to use stays burnt. Once a plan's first step was taken, dropping it poisons the page
//! and stops the VM: nobody can say any more which of its promises hold.

use core::fmt;

use crate::addr::{Epoch, Frame, Gfn};
use crate::perm::{MaskId, PageKind, Perm};
use crate::platform::{Copies, OpenStep, SealStep, Target, View, What};
use crate::slot::{Entry, Slot};
use crate::state::{Act, Decision, PageState, Refused, Request, on_act, on_request};
use crate::suite::{PageId, Stream, Tag};
use crate::vm::Vm;
use crate::whitelist::{Expiry, LeaseIndex};
use crate::wrong::WrongCore;

/// One page, held for one decision.
#[must_use = "deciding consumes it; dropping it lets go of the page"]
pub struct Claim<'t>(Hold<'t>);

impl<'t> Claim<'t> {
    pub(crate) fn take(vm: &'t Vm<'t>, gfn: Gfn, slot: &'t Slot) -> Option<Self> {
        let entry = slot.take()?;
        let hold = Hold { vm, gfn, slot, entry, reserved: Reserved::default(), fate: Fate::AsWas };
        Some(Self(hold))
    }

    /// The page's row.
    pub const fn entry(&self) -> &Entry {
        &self.0.entry
    }

    /// Decides what the management side's wish leads to.
    ///
    /// # Errors
    /// [`Refused`]; the page is as it was.
    pub fn request(mut self, request: Request) -> Result<Plan<'t>, Refused> {
        let hold = &mut self.0;
        let once = hold
            .entry
            .lease
            .and_then(|lease| hold.vm.leases().expiry(lease))
            .is_some_and(|expiry| expiry == Expiry::FirstUnmap)
            && !hold.vm.is_wrong(WrongCore::ForgetsFirstUnmap);
        let decision = on_request(hold.entry.state, request, hold.entry.excluded, once)?;
        if let Request::PageIn(frame) = request {
            hold.reserve_frame(frame)?;
        }
        Plan::new(self.0, decision)
    }

    /// Decides what the owner's or the trusted side's act leads to.
    ///
    /// # Errors
    /// [`Refused`]; the page is as it was.
    pub fn act(mut self, act: Act) -> Result<Plan<'t>, Refused> {
        let hold = &mut self.0;
        let mut decision = on_act(hold.entry.state, &act, hold.vm.is_launched())?;
        match act {
            Act::Accept(frame) => {
                if decision.after == PageState::Building {
                    hold.reserved.building = hold.vm.begin_building();
                    if !hold.reserved.building {
                        // Launched since the table was asked.
                        decision = on_act(hold.entry.state, &act, true)?;
                    }
                }
                hold.reserve_frame(frame)?;
            }
            Act::Share(evidence, _, mask, expiry) => {
                let ignored = hold.vm.is_wrong(WrongCore::IgnoresEvidence);
                if !evidence.is_about(hold.vm, hold.gfn) && !ignored {
                    return Err(Refused::WrongEvidence);
                }
                if mask != MaskId::ALL && hold.vm.mask(mask).is_none() {
                    return Err(Refused::NoSuchMask);
                }
                hold.reserve_lease(expiry)?;
            }
            Act::Exclude(excluded) => decision.after_excluded = Some(excluded),
            Act::Launch | Act::Touch | Act::Unshare => {}
        }
        Plan::new(self.0, decision)
    }
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("gfn", &self.0.gfn).field("entry", &self.0.entry).finish()
    }
}

/// A decision that waits to be carried out. Push it into a [`Batch`](crate::Batch).
#[must_use = "a plan changes nothing until its batch has run and was committed"]
pub struct Plan<'t> {
    hold: Hold<'t>,
    decision: Decision,
    pub(crate) tag: Tag,
    /// What was opened did not match its tag.
    pub(crate) forged: bool,
}

impl<'t> Plan<'t> {
    fn new(mut hold: Hold<'t>, decision: Decision) -> Result<Self, Refused> {
        let enters_replica = decision.after == PageState::Replica;
        if enters_replica && hold.entry.state != PageState::Replica {
            hold.reserve_replica()?;
        }
        if decision.burns_version {
            let burnt = hold.burn_version();
            // Taking a page back is never refused: without a version left nothing is sealed again,
            // so nothing is ever sealed under a used one.
            if decision.seal.is_some() {
                burnt?;
            }
        }
        Ok(Self { hold, decision, tag: Tag::default(), forged: false })
    }

    /// Which page.
    pub const fn gfn(&self) -> Gfn {
        self.hold.gfn
    }

    /// What the page will be once the plan is committed.
    pub const fn after(&self) -> PageState {
        if self.forged { PageState::Poisoned } else { self.decision.after }
    }

    /// What the page is in the sealed form that the plan makes.
    pub(crate) fn sealed_as(&self) -> PageState {
        self.decision.seal.map_or(self.after(), |(_, _, stream)| self.shown_as(stream))
    }

    /// What is authenticated with the seal that the plan makes, if it makes one.
    pub fn seal_id(&self) -> Option<PageId> {
        let (_, _, stream) = self.decision.seal?;
        Some(self.page_id(stream))
    }

    pub(crate) fn target(&self) -> Target {
        let frame = self.hold.reserved.frame.unwrap_or(self.hold.entry.frame);
        Target { vm: self.hold.vm.number(), gfn: self.hold.gfn, frame }
    }

    pub(crate) fn withdrawal(&self, which: usize) -> Option<View> {
        let view = self.decision.withdraw.get(which).copied().flatten();
        view.filter(|view| *view == View::Owner || !self.is_wrong(WrongCore::WithdrawsOwnerOnly))
    }

    pub(crate) fn withdraws(&self) -> bool {
        matches!(self.decision.withdraw, [Some(_), _] | [_, Some(_)])
            && !self.is_wrong(WrongCore::SkipsFence)
    }

    pub(crate) const fn fetches(&self) -> bool {
        self.decision.fetch
    }

    pub(crate) fn seal_step(&self) -> Option<SealStep> {
        let (from, to, stream) = self.decision.seal?;
        Some(SealStep { target: self.target(), id: self.page_id(stream), from, to })
    }

    pub(crate) fn open_step(&self) -> Option<OpenStep> {
        self.decision.open.then(|| OpenStep {
            target: self.target(),
            id: self.page_id(Stream::Resident),
            tag: self.hold.entry.tag,
        })
    }

    pub(crate) fn scrub(&self) -> Option<Copies> {
        self.decision.scrub.filter(|_| !self.is_wrong(WrongCore::SkipsScrub))
    }

    pub(crate) const fn grant(&self) -> Option<(View, What, Perm)> {
        // A page that is not genuine is granted to nobody.
        if self.forged { None } else { self.decision.grant }
    }

    /// From here on, dropping the plan poisons the page.
    pub(crate) fn start(&mut self) {
        if self.hold.fate == Fate::AsWas {
            self.hold.fate = Fate::Poison;
            let scrubbing = self.decision.after == PageState::Free;
            let state = if scrubbing { PageState::Scrubbing } else { PageState::Poisoned };
            self.hold.slot.show(&Entry { state, ..self.hold.entry });
        }
    }

    pub(crate) fn is_started(&self) -> bool {
        self.hold.fate == Fate::Poison && !self.is_wrong(WrongCore::ClosesNothing)
    }

    pub(crate) fn is_wrong(&self, how: WrongCore) -> bool {
        self.hold.vm.is_wrong(how)
    }

    /// Makes the decision true in the table. Cannot fail.
    pub(crate) fn commit(mut self) {
        if self.forged {
            self.hold.fate = Fate::Poison;
            return;
        }
        if let Some((_, _, Stream::Resident)) = self.decision.seal {
            self.hold.entry.tag = self.tag;
        }
        if let Some(excluded) = self.decision.after_excluded {
            self.hold.entry.excluded = excluded;
        }
        self.hold.enter(self.decision.after);
    }

    /// What the page is on its way out. Only what its owner opened without a limit is open in an
    /// image: a restore knows nothing of deadlines and first unmaps.
    fn shown_as(&self, stream: Stream) -> PageState {
        let Hold { entry, vm, .. } = &self.hold;
        let expiry = entry.lease.and_then(|lease| vm.leases().expiry(lease));
        let limited = expiry.is_some_and(|expiry| expiry != Expiry::Never);
        if limited && stream == Stream::Image { PageState::Private } else { entry.state }
    }

    fn page_id(&self, stream: Stream) -> PageId {
        let Hold { entry, vm, .. } = &self.hold;
        let closed = (PageKind::MEMORY, Perm::Read, MaskId::ALL);
        let (kind, perm, mask) = self.shown_as(stream).terms().unwrap_or(closed);
        PageId {
            gfn: self.hold.gfn,
            version: entry.version,
            epoch: if self.is_wrong(WrongCore::OneEpoch) { Epoch(1) } else { vm.epoch() },
            kind,
            perm,
            mask,
            stream,
            // Only a checkpoint treats an excluded page differently.
            excluded: entry.excluded && stream == Stream::Image,
        }
    }
}

impl fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("gfn", &self.gfn()).field("after", &self.after()).finish()
    }
}

/// What becomes of the row when its holder lets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No step was taken: reservations are given back.
    AsWas,
    /// Steps were taken and never finished.
    Poison,
    /// The row holds its new state.
    Committed,
}

/// What a plan took from shared lists before its first step.
#[derive(Clone, Copy, Debug, Default)]
struct Reserved {
    frame: Option<Frame>,
    lease: Option<LeaseIndex>,
    replica: bool,
    building: bool,
}

/// The busy bit of one row, and what is owed when it is given back.
struct Hold<'t> {
    vm: &'t Vm<'t>,
    gfn: Gfn,
    slot: &'t Slot,
    entry: Entry,
    reserved: Reserved,
    fate: Fate,
}

impl Hold<'_> {
    fn reserve_frame(&mut self, frame: Frame) -> Result<(), Refused> {
        let accepted = self.vm.frames().accept(frame, self.vm.number(), self.gfn);
        if accepted.is_err() && !self.vm.is_wrong(WrongCore::TakesAnyFrame) {
            return Err(Refused::NotOffered);
        }
        self.reserved.frame = Some(frame);
        Ok(())
    }

    fn reserve_lease(&mut self, expiry: Expiry) -> Result<(), Refused> {
        let lease = self.vm.leases().reserve(self.gfn, expiry).ok_or(Refused::ListFull)?;
        self.reserved.lease = Some(lease);
        Ok(())
    }

    fn reserve_replica(&mut self) -> Result<(), Refused> {
        self.reserved.replica = self.vm.reserve_replica();
        if self.reserved.replica { Ok(()) } else { Err(Refused::PoolFull) }
    }

    /// [F2] Burnt before anybody acts on it, and for good.
    fn burn_version(&mut self) -> Result<(), Refused> {
        if self.vm.is_wrong(WrongCore::KeepsVersion) {
            return Ok(());
        }
        self.entry.version = self.entry.version.next().ok_or(Refused::VersionsSpent)?;
        self.slot.burn(&self.entry);
        Ok(())
    }

    /// Moves the row to its new state, and the shared lists with it.
    fn enter(&mut self, after: PageState) {
        let before = core::mem::replace(&mut self.entry.state, after);
        let had_frame = !matches!(before, PageState::Free | PageState::PagedOut);
        if had_frame && matches!(after, PageState::Free | PageState::PagedOut) {
            self.vm.frames().release(self.entry.frame, self.vm.number(), self.gfn);
        }
        if let Some(frame) = self.reserved.frame {
            self.entry.frame = frame;
        }
        // Every way out of `Replica`, and the end of a poisoned page, wipes the replica first.
        let had_replica = core::mem::take(&mut self.entry.owes_replica);
        if had_replica || (before == PageState::Replica && after != PageState::Replica) {
            self.vm.return_replica();
        }
        if before == PageState::Building && after != PageState::Building {
            self.vm.end_building();
        }
        if !matches!(after, PageState::Open { .. }) {
            self.free_lease();
        } else if self.reserved.lease.is_some() {
            self.entry.lease = self.reserved.lease;
        }
        self.fate = Fate::Committed;
    }

    fn free_lease(&mut self) {
        if let Some(lease) = self.entry.lease.take() {
            self.vm.leases().free(lease);
        }
    }

    fn give_back(&self) {
        let (vm, reserved) = (self.vm, &self.reserved);
        if let Some(frame) = reserved.frame {
            vm.frames().refuse(frame, vm.number(), self.gfn);
        }
        if let Some(lease) = reserved.lease {
            vm.leases().free(lease);
        }
        if reserved.replica {
            vm.return_replica();
        }
        if reserved.building {
            vm.end_building();
        }
    }

    fn poison(&mut self) {
        if !self.vm.is_wrong(WrongCore::RunsPoisoned) {
            self.vm.stop(self.gfn);
        }
        if let Some(frame) = self.reserved.frame {
            self.entry.frame = frame;
        }
        if self.vm.is_wrong(WrongCore::FreesPoisoned) {
            self.vm.frames().release(self.entry.frame, self.vm.number(), self.gfn);
        }
        self.vm.frames().quarantine(self.entry.frame, self.vm.number(), self.gfn);
        self.free_lease();
        if let Some(lease) = self.reserved.lease {
            self.vm.leases().free(lease);
        }
        if self.entry.state == PageState::Building || self.reserved.building {
            self.vm.end_building();
        }
        self.entry.owes_replica |= self.entry.state == PageState::Replica || self.reserved.replica;
        self.entry.state = PageState::Poisoned;
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        match self.fate {
            Fate::AsWas if self.vm.is_wrong(WrongCore::HoldsDropped) => return,
            Fate::AsWas => self.give_back(),
            Fate::Poison if self.vm.is_wrong(WrongCore::SparesDropped) => self.give_back(),
            Fate::Poison => self.poison(),
            Fate::Committed => {}
        }
        self.slot.release(&self.entry);
    }
}
