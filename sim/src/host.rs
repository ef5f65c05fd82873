//! The shipped core as a host holds it: storage, VMs, and the two doors.

use std::array;

use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Claim, Epoch, Frame, Frames, Gfn, Owner, Plan, Refused, Request, Slot, Vm, VmConfig,
    VmNumber,
};

use crate::config::Config;
use crate::event::{Ask, PageRef};
use crate::machine::{FRAMES, PAGES, VM_PAGES, VMS};
use crate::mutant::Mutant;
use crate::table;

/// How often the host can start.
pub const LIVES: usize = 2;

/// The core's storage for every life of the host.
#[derive(Debug)]
pub struct Storage(heapless::Vec<Life, LIVES>);

/// The VMs of every life.
pub type Vms<'s> = heapless::Vec<[Vm<'s>; VMS], LIVES>;

/// The core's storage for one life of the host.
#[derive(Debug, Default)]
pub(crate) struct Life {
    pub(crate) slots: [[Slot; VM_PAGES]; VMS],
    pub(crate) owners: [Owner; FRAMES],
    pub(crate) leases: [[Lease; VM_PAGES]; VMS],
}

/// What the core knows in one life of the host, as words. Zeroes are a new host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// One row a page.
    pub rows: [[u64; 4]; PAGES],
    /// One deadline a page.
    pub leases: [[u64; 2]; PAGES],
    /// Who owns which frame.
    pub owners: [u64; FRAMES],
    /// What else a VM knows.
    pub vms: [[u64; 3]; VMS],
}

impl Life {
    fn put(&self, vms: &[Vm<'_>; VMS], tables: &Tables) {
        let slots = self.slots.iter().flatten().zip(tables.rows);
        slots.for_each(|(slot, words)| slot.put_words(words));
        let leases = self.leases.iter().flatten().zip(tables.leases);
        leases.for_each(|(lease, words)| lease.put_words(words));
        let owners = self.owners.iter().zip(tables.owners);
        owners.for_each(|(owner, word)| owner.put_word(word));
        vms.iter().zip(tables.vms).for_each(|(vm, words)| vm.put_words(words));
    }

    fn tables(&self, vms: &[Vm<'_>; VMS]) -> Tables {
        let at = |at: usize| (at / VM_PAGES, at % VM_PAGES);
        let row = |page| {
            let (vm, page) = at(page);
            self.slots[vm][page].words()
        };
        let lease = |page| {
            let (vm, page) = at(page);
            self.leases[vm][page].words()
        };
        Tables {
            rows: array::from_fn(row),
            leases: array::from_fn(lease),
            owners: array::from_fn(|frame| self.owners[frame].word()),
            vms: array::from_fn(|vm| vms[vm].words()),
        }
    }
}

impl Storage {
    /// Zeroed storage for every life that there can be.
    pub fn new(config: &Config) -> Self {
        Self((0..=config.restarts).map(|_| Life::default()).collect())
    }

    /// One VM a life and number. A sound host begins a new epoch with every life.
    pub fn vms(&self, config: &Config, mutant: Option<Mutant>) -> Vms<'_> {
        let keeps_epoch = mutant == Some(Mutant::KeepsEpoch);
        let lives = self.0.iter().enumerate();
        lives
            .map(|(life, Life { slots, owners, leases })| {
                array::from_fn(|vm| {
                    let epoch = if keeps_epoch { 1 } else { life + 1 };
                    let config = VmConfig {
                        number: VmNumber(u16::try_from(vm).unwrap_or(u16::MAX)),
                        epoch: Epoch(u64::try_from(epoch).unwrap_or(u64::MAX)),
                        pages: u64::from(config.pages.get(vm).copied().unwrap_or(0)),
                        slots: &slots[vm],
                        frames: Frames::new(&owners[..usize::from(config.frames)]),
                        leases: Leases::new(&leases[vm]),
                        masks: &[],
                        replicas_max: u64::from(config.replicas),
                    };
                    let vm = Vm::new(config).expect("as many rows as pages, all zeroed");
                    as_wrong(vm, mutant)
                })
            })
            .collect()
    }

    /// Puts words into one life's tables; later lives are new again.
    pub(crate) fn put(&self, vms: &Vms<'_>, life: usize, tables: &Tables) {
        self.put_now(vms, life, tables);
        for (later, vms) in self.0.iter().zip(vms).skip(life + 1) {
            later.put(vms, &Tables::default());
        }
    }

    /// Puts words into one life's tables; there is no later life.
    pub(crate) fn put_now(&self, vms: &Vms<'_>, life: usize, tables: &Tables) {
        self.0[life].put(&vms[life], tables);
    }

    /// The words of one life's tables.
    pub(crate) fn tables(&self, vms: &Vms<'_>, life: usize) -> Tables {
        self.0[life].tables(&vms[life])
    }

    /// A page's row in one life of the host.
    pub fn slot(&self, life: usize, page: PageRef) -> &Slot {
        &self.0[life].slots[usize::from(page.vm)][usize::from(page.gfn)]
    }

    pub(crate) fn life(&self, life: usize) -> &Life {
        &self.0[life]
    }
}

/// The VM, with its core made wrong if that is what is wrong.
#[cfg(feature = "wrong-cores")]
fn as_wrong(vm: Vm<'_>, mutant: Option<Mutant>) -> Vm<'_> {
    if let Some(Mutant::Core(wrong)) = mutant { vm.made_wrong(wrong) } else { vm }
}

#[cfg(not(feature = "wrong-cores"))]
const fn as_wrong(vm: Vm<'_>, _: Option<Mutant>) -> Vm<'_> {
    vm
}

/// Decides through the door that the ask belongs to. If evidence is needed, it is about this page
/// of this VM.
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
