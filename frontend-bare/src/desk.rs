//! What every decision of the monitor has at hand: the machine, the hypervisor's view, and who owns
//! which frame.

use view_core::{Frame, Frames, Gfn, Owner, Ownership, Page, Perm, VmNumber};

use crate::hypervisor_table::{HypervisorTable, Proposed};
use crate::machine::Machine;
use crate::platform::Staging;
use crate::table::MapError;
use crate::views::Views;

/// How many frames the monitor has for tables. Fixed when it is built.
pub const TABLE_FRAMES: usize = 1024;

/// The hypervisor's view. A launched guest's page is sealed in place, so no copies are out.
pub type HypervisorView = Views<TABLE_FRAMES, 1>;

/// The machine, and what is true of its frames.
#[derive(Debug)]
pub struct Desk<'d, 'm, M> {
    /// The machine below.
    pub machine: &'d mut M,
    /// What the hypervisor reaches.
    pub views: &'d mut HypervisorView,
    /// Where pages are sealed and opened.
    pub staging: &'d mut Staging,
    /// Who owns which frame.
    pub owners: &'m [Owner],
}

impl<'m, M: Machine> Desk<'_, 'm, M> {
    /// Who owns which frame.
    pub const fn frames(&self) -> Frames<'m> {
        Frames::new(self.owners)
    }

    /// Whether a frame may be given to a guest: memory that is nobody's but the hypervisor's.
    pub fn is_free(&self, frame: Frame) -> bool {
        let reached = self.machine.reaches(frame) && !self.machine.is_own(frame);
        reached && self.frames().owner(frame) == Some(Ownership::Free)
    }

    /// Whether the hypervisor may read a frame as it is: not the monitor's, nor a guest's.
    pub fn is_readable(&self, frame: Frame) -> bool {
        is_readable(self.frames(), self.machine, frame)
    }

    /// What the hypervisor's tables for a guest say of a page, to be written or not.
    pub fn find(&mut self, tables: &HypervisorTable, access: (Gfn, bool)) -> Option<Proposed> {
        let (frames, machine) = (self.frames(), &mut *self.machine);
        tables.find(machine, |machine, frame| is_readable(frames, machine, frame), access)
    }

    /// Ends the quarantine of a frame that failed this page. Who calls has wiped it, and nobody
    /// reaches it: the guest is gone with all its tables, and CPUs have forgotten them.
    pub fn end_quarantine(&mut self, frame: Frame, (vm, gfn): (VmNumber, Gfn)) {
        let quarantined = self.frames().owner(frame) == Some(Ownership::Quarantined(vm, gfn));
        let owner = usize::try_from(frame.number()).ok().and_then(|at| self.owners.get(at));
        if let Some(owner) = owner.filter(|_| quarantined) {
            owner.put_word(0);
        }
    }

    /// A frame's bytes.
    pub fn copy(&self, frame: Frame) -> Page {
        let mut page = Page::zeroed();
        self.machine.read(frame, &mut page);
        page
    }

    /// Lets the hypervisor reach a frame as it is, with all around it if none of that is withheld.
    /// If no frame is left for a table, all that it reaches is given up for this: it asks again.
    ///
    /// # Errors
    /// [`MapError`], for an address that no table leads to.
    pub fn show_plainly(&mut self, frame: Frame) -> Result<(), MapError> {
        let page = Gfn::new(frame.number()).map_err(|_| MapError::PoolEmpty)?;
        let first = frame.number() & !(LARGE - 1);
        let (frames, machine) = (self.frames(), &*self.machine);
        let around = (first..first + LARGE).map_while(|number| Frame::new(number).ok());
        let whole = around.clone().all(|frame| is_readable(frames, machine, frame));
        let mapping = (page, frame, Perm::ReadWrite);
        let large = whole && self.map(mapping, true).is_ok();
        if large { Ok(()) } else { self.map(mapping, false) }
    }

    fn map(&mut self, mapping: (Gfn, Frame, Perm), large: bool) -> Result<(), MapError> {
        let Self { machine, views, .. } = self;
        let mut map = |machine: &mut M| match large {
            true => views.host.map_large(machine, &mut views.pool, mapping),
            false => views.host.map(machine, &mut views.pool, mapping),
        };
        let mapped = map(machine);
        if mapped != Err(MapError::PoolEmpty) {
            return mapped;
        }
        self.views.host.clear(self.machine, &mut self.views.pool);
        self.machine.flush();
        let Self { machine, views, .. } = self;
        views.host.map(*machine, &mut views.pool, mapping)
    }
}

/// Keeps all that is no memory from guests for good: a device's memory may be found elsewhere as
/// well, as a display's is, or be moved by whoever has the device. It stays the hypervisor's.
pub fn withhold(owners: &[Owner], is_memory: impl Fn(u64) -> bool) {
    // Nobody has this number, so nobody accepts what is offered to it.
    const NOBODY: VmNumber = VmNumber(u16::MAX);
    let frames = Frames::new(owners);
    for number in (0..owners.len() as u64).filter(|number| !is_memory(*number)) {
        if let Ok(frame) = Frame::new(number) {
            let _ = frames.offer(frame, NOBODY, Gfn::MAX);
        }
    }
}

/// Frames in a large page.
const LARGE: u64 = 512;

/// Devices have no owner, and are the hypervisor's.
pub(crate) fn is_readable(frames: Frames<'_>, machine: &impl Machine, frame: Frame) -> bool {
    !machine.is_own(frame) && !matches!(frames.owner(frame), Some(Ownership::Owned(..)))
}
