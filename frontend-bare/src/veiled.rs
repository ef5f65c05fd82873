//! A guest that was launched: its pages are its own, whatever the hypervisor does.
//!
//! The hypervisor's tables for it are proposals, looked at when the guest touches a page that its
//! own tables do not lead to. What the hypervisor touches of it is sealed first, in place: a frame
//! that it only reads stays the guest's, one that it writes is its own from then on, and the guest
//! has its page back when the sealed bytes come back, in whichever frame. So a hypervisor swaps,
//! moves and copies pages as it always does.

use core::fmt;

use view_core::page_table::PageNumbers;
use view_core::{
    Act, Batch, Claim, Frame, Gfn, Ownership, Page, PageState, Perm, Plan, Refused, Request, Slot,
    Target, Unclaimed, Vm,
};

use crate::ciphers::Ciphers;
use crate::desk::Desk;
use crate::hypervisor_table::HypervisorTable;
use crate::machine::Machine;
use crate::platform::BarePlatform;
use crate::table::NestedTable;
use crate::views::ViewFault;

mod launch;

pub use launch::{Image, LaunchRecord, NotLaunched, Storage};

/// A launched guest's memory.
#[derive(Debug)]
pub struct Veiled<'m> {
    /// Its pages.
    vm: Vm<'m>,
    /// Where their rows are.
    slots: &'m [Slot],
    /// What it reaches.
    table: NestedTable,
    ciphers: Ciphers,
    record: LaunchRecord,
}

/// Why a launched guest is stopped. Its memory is scrubbed then, and nothing of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// What came back for this page is not what left.
    Forged(Gfn),
    /// For this page the hypervisor proposes a frame that it may not give away.
    Foreign(Gfn, Frame, Option<Ownership>),
    /// The core refuses to go on with this page.
    Core(Gfn, Refused),
    /// This page is held by nobody who could let go of it.
    Held(Gfn),
    /// A page cannot be shown.
    View(ViewFault),
}

/// What became of a touch of a page that the guest's own tables do not lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The guest reaches it now.
    Mapped,
    /// The hypervisor has to propose a frame for it that the guest may write to.
    NeedsFrame,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forged(gfn) => {
                write!(f, "page {:#x} came back as something else", gfn.number())
            }
            Self::Foreign(gfn, frame, owner) => {
                let (gfn, frame) = (gfn.number(), frame.number());
                write!(f, "page {gfn:#x} was to be in frame {frame:#x}, which is {owner:?}")
            }
            Self::Core(gfn, refused) => write!(f, "page {:#x}: {refused}", gfn.number()),
            Self::Held(gfn) => write!(f, "page {:#x} is held", gfn.number()),
            Self::View(fault) => write!(f, "a page cannot be shown: {fault:?}"),
        }
    }
}

impl core::error::Error for Broken {}

impl<'m> Veiled<'m> {
    /// The root of the tables that the guest runs on.
    pub const fn root(&self) -> Frame {
        self.table.root()
    }

    /// How many pages it has; addresses behind them are devices'.
    pub const fn pages(&self) -> u64 {
        self.vm.pages()
    }

    /// What it was when it was launched.
    pub const fn record(&self) -> &LaunchRecord {
        &self.record
    }

    /// Its pages, as the core has them.
    pub const fn vm(&self) -> &Vm<'m> {
        &self.vm
    }

    /// The guest touched a page that its tables do not lead to.
    ///
    /// # Errors
    /// [`Broken`]: the guest may not go on.
    pub fn touched<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        proposals: &HypervisorTable,
        gfn: Gfn,
    ) -> Result<Touched, Broken> {
        let state = self.vm.state(gfn).ok_or(Broken::Core(gfn, Refused::Absent))?;
        if matches!(state, PageState::Private | PageState::Replica | PageState::Open { .. }) {
            return self.map_again(desk, gfn);
        }
        let Some(frame) = self.proposed(desk, proposals, gfn)? else {
            return Ok(Touched::NeedsFrame);
        };
        let moved = self.vm.frame(gfn) != Some(frame);
        if state == PageState::Sealed && moved {
            // The sealed bytes were copied, as far as the hypervisor says.
            self.request(desk, gfn, Request::PageOut)?;
        }
        if moved {
            let offered = desk.frames().offer(frame, self.vm.number(), gfn);
            offered.map_err(|_| Broken::Foreign(gfn, frame, desk.frames().owner(frame)))?;
        }
        match state {
            PageState::Free => self.act(desk, gfn, Act::Accept(frame))?,
            PageState::PagedOut | PageState::Sealed => {
                if moved {
                    self.request(desk, gfn, Request::PageIn(frame))?;
                }
                self.act(desk, gfn, Act::Touch)?;
            }
            PageState::Building
            | PageState::Private
            | PageState::Replica
            | PageState::Open { .. }
            | PageState::Scrubbing
            | PageState::Poisoned => return Err(Broken::Core(gfn, Refused::Poisoned)),
        }
        Ok(Touched::Mapped)
    }

    /// Frames for tables were needed elsewhere; the page itself is where it was.
    fn map_again<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        gfn: Gfn,
    ) -> Result<Touched, Broken> {
        let absent = Broken::Core(gfn, Refused::Absent);
        let frame = self.vm.frame(gfn).ok_or(absent)?;
        let page = Target { vm: self.vm.number(), gfn, frame };
        let shown = desk.views.show_guest(desk.machine, &mut self.table, (&page, Perm::ReadWrite));
        shown.map(|()| Touched::Mapped).map_err(Broken::View)
    }

    /// The frame that the hypervisor proposes, if it is one that it may.
    fn proposed<M: Machine>(
        &self,
        desk: &mut Desk<'_, 'm, M>,
        proposals: &HypervisorTable,
        gfn: Gfn,
    ) -> Result<Option<Frame>, Broken> {
        let Some(frame) = desk.find(proposals, (gfn, true)).filter(|found| found.writable) else {
            return Ok(None);
        };
        let frame = frame.frame;
        let owner = desk.frames().owner(frame);
        let ours = owner == Some(Ownership::Owned(self.vm.number(), gfn));
        if ours || desk.is_free(frame) {
            Ok(Some(frame))
        } else {
            Err(Broken::Foreign(gfn, frame, owner))
        }
    }

    /// The hypervisor touched the frame of one of the guest's pages. Afterwards the frame is what
    /// it may see: the page sealed, or as far as the guest opened it.
    ///
    /// # Errors
    /// [`Broken`]: the guest may not go on.
    pub fn looked_at<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        (gfn, frame): (Gfn, Frame),
        write: bool,
    ) -> Result<(), Broken> {
        let perm = if write { Perm::ReadWrite } else { Perm::Read };
        match self.vm.state(gfn) {
            Some(PageState::Open { perm: allowed, .. }) if allowed.allows(perm) => {
                self.request(desk, gfn, Request::Map(allowed))
            }
            // What it writes to a page that it may only read, it writes to a copy of its own.
            Some(PageState::Open { .. }) => {
                self.act(desk, gfn, Act::Unshare)?;
                self.give_up(desk, gfn, frame)
            }
            Some(PageState::Sealed) if !write => self.request(desk, gfn, Request::Map(perm)),
            _ if !write => self.request(desk, gfn, Request::Seal),
            _ => self.give_up(desk, gfn, frame),
        }
    }

    /// Takes every open page from the hypervisor that its tables do not lead to any more.
    ///
    /// # Errors
    /// [`Broken`]: the guest may not go on.
    pub fn close_dropped<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        proposals: &HypervisorTable,
    ) -> Result<(), Broken> {
        for gfn in self.vm.gfns() {
            if !matches!(self.vm.state(gfn), Some(PageState::Open { .. })) {
                continue;
            }
            let proposed = desk.find(proposals, (gfn, false)).map(|found| found.frame);
            if proposed != self.vm.frame(gfn) {
                self.request(desk, gfn, Request::Unmap)?;
            }
        }
        Ok(())
    }

    /// Leaves the frame to the hypervisor, with the page in it, sealed.
    fn give_up<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        gfn: Gfn,
        frame: Frame,
    ) -> Result<(), Broken> {
        let mut sealed = Page::zeroed();
        let in_place = self.vm.state(gfn) == Some(PageState::Sealed);
        if in_place {
            desk.machine.read(frame, &mut sealed);
        }
        self.request(desk, gfn, Request::PageOut)?;
        if in_place || desk.machine.take_sent(&mut sealed) {
            desk.machine.write(frame, &sealed);
        }
        Ok(())
    }

    /// Carries out an act of the guest.
    ///
    /// # Errors
    /// [`Broken::Core`] if the core refuses; then the page is as it was.
    pub fn act<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        gfn: Gfn,
        act: Act,
    ) -> Result<(), Broken> {
        self.carry_out(desk, gfn, |claim| claim.act(act))
    }

    fn request<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        gfn: Gfn,
        request: Request,
    ) -> Result<(), Broken> {
        self.carry_out(desk, gfn, |claim| claim.request(request))
    }

    fn carry_out<M: Machine>(
        &mut self,
        desk: &mut Desk<'_, 'm, M>,
        gfn: Gfn,
        decide: impl for<'t> FnOnce(Claim<'t>) -> Result<Plan<'t>, Refused>,
    ) -> Result<(), Broken> {
        let Self { vm, table, ciphers, .. } = self;
        let mut platform = BarePlatform {
            host: &mut *desk.machine,
            views: &mut *desk.views,
            guest: table,
            ciphers,
            masks: &[],
            staging: &mut *desk.staging,
        };
        let claim = vm.claim(gfn).map_err(|unclaimed| match unclaimed {
            Unclaimed::Busy => Broken::Held(gfn),
            Unclaimed::NoSuchPage => Broken::Core(gfn, Refused::Absent),
        })?;
        let plan = decide(claim).map_err(|refused| Broken::Core(gfn, refused))?;
        let mut batch = Batch::<1>::new();
        batch.push(plan).map_err(|_| Broken::Held(gfn))?;
        batch.run(&mut platform).map_err(Broken::View)?.commit();
        match vm.state(gfn) {
            Some(PageState::Poisoned) => Err(Broken::Forged(gfn)),
            _ => Ok(()),
        }
    }

    /// Ends the guest: every frame is scrubbed before the hypervisor has it back, and the keys go.
    pub fn end<M: Machine>(mut self, desk: &mut Desk<'_, 'm, M>) {
        for gfn in self.vm.gfns() {
            let _ = self.request(desk, gfn, Request::Destroy);
        }
        self.table.give_back(desk.machine, &mut desk.views.pool);
        desk.machine.flush();
        for gfn in self.vm.gfns() {
            if let Ok(claim) = self.vm.claim(gfn) {
                desk.end_quarantine(claim.entry().frame, (self.vm.number(), gfn));
            }
        }
        for slot in self.slots {
            slot.put_words([0; 4]);
        }
    }
}
