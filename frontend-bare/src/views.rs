//! Both views of guests' pages, as tables: their own, and the hypervisor's of all of the host.
//!
//! To the hypervisor its memory is the host's, frame by frame, but for what the monitor took out. A
//! frame that backs a page of a guest is absent there, or leads to a copy: a sealed replica, or
//! fields under a mask. So whatever reads it there, through whichever of its mappings, reads that.

use view_core::{Frame, Gfn, Perm, Target, VmNumber};

use crate::memory::{Host, HostMemory};
use crate::pool::Pool;
use crate::table::{MapError, NestedTable};

/// A copy of a page that the hypervisor finds in place of it.
#[derive(Clone, Copy, Debug)]
struct Shown {
    vm: VmNumber,
    gfn: Gfn,
    at: Frame,
    kind: Kind,
}

/// What a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A sealed page.
    Replica,
    /// The fields of a mask.
    Masked,
    /// What was one of these, and may still be remembered by a CPU.
    Leaving,
}

/// What the hypervisor reaches, and the copies that are out there: at most `COPIES`. Each guest has
/// a table of its own, which comes from the same pool.
#[derive(Debug)]
pub struct Views<const FRAMES: usize, const COPIES: usize> {
    /// What the hypervisor reaches, by the host's frames.
    pub host: NestedTable,
    /// Frames for tables and copies.
    pub pool: Pool<FRAMES>,
    shown: heapless::Vec<Shown, COPIES>,
}

/// Why a page cannot be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewFault {
    /// Of this page.
    Map(Target, MapError),
    /// There is no room for another copy of this page, or no copy of it.
    NoCopy(Target),
    /// Nobody takes what is sealed for the wire.
    NoWire(Target),
}

impl<const FRAMES: usize, const COPIES: usize> Views<FRAMES, COPIES> {
    /// Views in which no copy is out.
    pub const fn new(host: NestedTable, pool: Pool<FRAMES>) -> Self {
        Self { host, pool, shown: heapless::Vec::new() }
    }

    /// Lets a guest reach its page. If no frame is left for a table, all tables of the guest are
    /// given up for it, and forgotten by all CPUs before their frames serve again: CPUs remember
    /// tables as they do pages (APM volume 2, 5.5). What else the guest may reach is mapped again
    /// when it asks.
    ///
    /// # Errors
    /// [`ViewFault::Map`].
    pub fn show_guest(
        &mut self,
        host: &mut impl Host,
        guest: &mut NestedTable,
        (page, perm): (&Target, Perm),
    ) -> Result<(), ViewFault> {
        let mapping = (page.gfn, page.frame, perm);
        let mapped = match guest.map(host, &mut self.pool, mapping) {
            Err(MapError::PoolEmpty) => {
                guest.clear(host, &mut self.pool);
                host.flush();
                guest.map(host, &mut self.pool, mapping)
            }
            mapped => mapped,
        };
        mapped.map_err(|error| ViewFault::Map(*page, error))
    }

    /// Lets the hypervisor find this frame where it looks for the page's own.
    ///
    /// # Errors
    /// [`ViewFault::Map`].
    pub(crate) fn show_host(
        &mut self,
        memory: &mut impl HostMemory,
        page: &Target,
        (frame, perm): (Frame, Perm),
    ) -> Result<(), ViewFault> {
        let mapping = (place(page), frame, perm);
        let mapped = self.host.map(memory, &mut self.pool, mapping);
        mapped.map_err(|error| ViewFault::Map(*page, error))
    }

    /// Takes a page, and any copy of it, from the hypervisor. Fields under a mask go with it.
    pub(crate) fn hide_host(&mut self, memory: &mut impl HostMemory, page: &Target) {
        self.host.unmap(memory, &mut self.pool, place(page));
        for shown in self.shown.iter_mut().filter(|shown| shown.is_of(page, Kind::Masked)) {
            shown.kind = Kind::Leaving;
        }
    }

    /// The copy of a page, if there is one.
    pub(crate) fn copy(&self, page: &Target, kind: Kind) -> Option<Frame> {
        self.shown.iter().find(|shown| shown.is_of(page, kind)).map(|shown| shown.at)
    }

    /// The copy of a page; a new one if there is none.
    ///
    /// # Errors
    /// [`ViewFault::NoCopy`].
    pub(crate) fn copy_or_new(&mut self, page: &Target, kind: Kind) -> Result<Frame, ViewFault> {
        if let Some(at) = self.copy(page, kind) {
            return Ok(at);
        }
        let no_room = ViewFault::NoCopy(*page);
        if self.shown.is_full() {
            return Err(no_room);
        }
        let at = self.pool.take().map_err(|_| no_room)?;
        let _ = self.shown.push(Shown { vm: page.vm, gfn: page.gfn, at, kind });
        Ok(at)
    }

    /// Wipes the replica of a page, if there is one, and takes its frame back.
    pub(crate) fn drop_replica(&mut self, memory: &mut impl HostMemory, page: &Target) {
        let gone = |shown: &Shown| shown.is_of(page, Kind::Replica);
        self.take_back(memory, gone);
    }

    /// The same with every copy that nobody remembers any more: all CPUs have forgotten.
    pub(crate) fn drop_leaving(&mut self, memory: &mut impl HostMemory) {
        self.take_back(memory, |shown| shown.kind == Kind::Leaving);
    }

    fn take_back(&mut self, memory: &mut impl HostMemory, gone: impl Fn(&Shown) -> bool) {
        let pool = &mut self.pool;
        self.shown.retain(|shown| {
            let stays = !gone(shown);
            if !stays {
                memory.wipe(shown.at);
                pool.give_back(shown.at);
            }
            stays
        });
    }
}

impl Shown {
    fn is_of(&self, page: &Target, kind: Kind) -> bool {
        (self.vm, self.gfn, self.kind) == (page.vm, page.gfn, kind)
    }
}

/// Where the hypervisor looks for a page's frame: its memory is the host's.
fn place(page: &Target) -> Gfn {
    Gfn::new(page.frame.number()).unwrap_or(Gfn::MAX)
}
