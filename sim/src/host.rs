//! The shipped core as a host holds it: storage, VMs, and the two doors.

use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Claim, Epoch, Frame, Frames, Gfn, Owner, Plan, Refused, Request, Slot, Vm, VmConfig,
    VmNumber,
};

use crate::config::Config;
use crate::event::{Ask, PageRef};
use crate::machine::{FRAMES, VM_PAGES, VMS};
use crate::mutant::Mutant;
use crate::table;

/// How often the host can start.
pub const LIVES: usize = 2;

/// The core's storage for every life of the host.
#[derive(Debug)]
pub struct Storage([Life; LIVES]);

#[derive(Debug)]
struct Life {
    slots: [[Slot; VM_PAGES]; VMS],
    owners: [Owner; FRAMES],
    leases: [[Lease; VM_PAGES]; VMS],
}

impl Storage {
    /// Zeroed storage.
    pub fn new() -> Self {
        Self(std::array::from_fn(|_| Life {
            slots: [const { [const { Slot::new() }; VM_PAGES] }; VMS],
            owners: [const { Owner::new() }; FRAMES],
            leases: [const { [const { Lease::new() }; VM_PAGES] }; VMS],
        }))
    }

    /// One VM a life and number. A sound host begins a new epoch with every life.
    pub fn vms(&self, config: &Config, mutant: Option<Mutant>) -> [[Vm<'_>; VMS]; LIVES] {
        std::array::from_fn(|life| {
            std::array::from_fn(|vm| {
                let storage = &self.0[life];
                let keeps_epoch = mutant == Some(Mutant::KeepsEpoch);
                let epoch = if keeps_epoch { 1 } else { life + 1 };
                let pages = config.pages.get(vm).copied().unwrap_or(0);
                let made = Vm::new(VmConfig {
                    number: VmNumber(u16::try_from(vm).unwrap_or(u16::MAX)),
                    epoch: Epoch(u64::try_from(epoch).unwrap_or(u64::MAX)),
                    pages: u64::from(pages),
                    slots: &storage.slots[vm],
                    frames: Frames::new(&storage.owners[..usize::from(config.frames)]),
                    leases: Leases::new(&storage.leases[vm]),
                    masks: &[],
                    replicas_max: u64::from(config.replicas),
                });
                made.expect("as many rows as pages")
            })
        })
    }
}

impl Storage {
    /// A page's row in one life of the host.
    pub fn slot(&self, life: usize, page: PageRef) -> &Slot {
        &self.0[life].slots[usize::from(page.vm)][usize::from(page.gfn)]
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self::new()
    }
}

/// Decides through the door that the ask belongs to.
///
/// # Errors
/// What the core refuses.
pub fn decide<'t>(
    vm: &'t Vm<'t>,
    claim: Claim<'t>,
    page: PageRef,
    ask: Ask,
) -> Result<Plan<'t>, Refused> {
    match ask {
        Ask::Map(perm) => claim.request(Request::Map(perm)),
        Ask::Unmap => claim.request(Request::Unmap),
        Ask::Export(stream) => claim.request(Request::Export(stream)),
        Ask::Seal => claim.request(Request::Seal),
        Ask::PageOut => claim.request(Request::PageOut),
        Ask::PageIn(number) => claim.request(Request::PageIn(frame(number))),
        Ask::Destroy => claim.request(Request::Destroy),
        Ask::Accept(number) => claim.act(Act::Accept(frame(number))),
        Ask::Launch => claim.act(Act::Launch),
        Ask::Touch => claim.act(Act::Touch),
        Ask::Share(perm, term) => {
            let (perm, mask, expiry) = table::doorbell_words(perm, term);
            claim.act(ring(vm, page, Doorbell::SHARE, perm, mask, expiry))
        }
        Ask::Unshare => claim.act(ring(vm, page, Doorbell::UNSHARE, 0, 0, 0)),
        Ask::Exclude(true) => claim.act(ring(vm, page, Doorbell::EXCLUDE, 0, 0, 0)),
        Ask::Exclude(false) => claim.act(ring(vm, page, Doorbell::INCLUDE, 0, 0, 0)),
    }
}

/// The guest's own act, through the rule that frontends use.
fn ring(vm: &Vm<'_>, page: PageRef, call: u64, perm: u64, mask: u64, expiry: u64) -> Act {
    let gfn = u64::from(page.gfn);
    let fact = DoorbellFact { vm: vm.number(), call, gfn, perm, mask, expiry };
    Doorbell.infer(vm, &fact).expect("a page of this VM").act().1
}

/// A page's number in the core.
pub fn gfn(page: PageRef) -> Gfn {
    Gfn::new(u64::from(page.gfn)).expect("small")
}

/// A frame's number in the core.
pub fn frame(number: u8) -> Frame {
    Frame::new(u64::from(number)).expect("small")
}
