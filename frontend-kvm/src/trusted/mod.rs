//! The trusted process: it owns a guest's memory and vCPUs, and answers for every page of it.

mod ciphers;
mod ears;
mod guard;
mod ledger;
mod platform;
mod restore;
mod snapshot;
mod tracker;
mod views;
mod wear;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use view_core::key::{RootKey, Salt};
use view_core::whitelist::{Lease, Leases};
use view_core::{
    Act, BadTable, Epoch, Field, Frame, Frames, Gfn, Mask, NotRunnable, Owner, Slot, Vm, VmConfig,
    VmId, VmNumber,
};

pub use ciphers::{Ciphers, Incarnation};
pub use ears::Heard;
pub use guard::{Denied, Done, Guard, Look, Witness};
pub use platform::{KvmPlatform, Shared};
pub use restore::{RestoreError, Verified, VerifyError, verify};
pub use snapshot::{SnapshotError, Told};
pub use views::{ViewFault, Views};
pub use wear::StreamWear;

use crate::SysError;
use crate::guest::Program;
use crate::harden::{self, HardenError, SecretBox, Settled};
use crate::machine::{Kvm, Machine, MachineError};
use crate::memory::GuestMemory;
use crate::sys::Uffd;

/// How many pages can be open at once.
const OPEN_MAX: usize = 255;
/// How many replicas can be out at once.
const REPLICAS_MAX: u64 = 4096;

/// The field masks that a guest can share pages under: 1 shows the first 64 bytes.
static MASKS: [Mask<'static>; 1] = [Mask(&[Field::fixed::<0, 64>()])];

/// Why a VM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine could not be made.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The system refused.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The table could not be made.
    #[error(transparent)]
    Table(#[from] BadTable),
    /// A page could not be given to the guest.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Not every page was launched.
    #[error("the guest can't be launched: {0:?}")]
    NotRunnable(NotRunnable),
    /// No random bytes.
    #[error("no random bytes: {0}")]
    Entropy(std::io::Error),
}

/// A running VM, its gate, and what snapshots need.
#[derive(Debug)]
pub struct TrustedVm {
    machine: Machine,
    guard: Arc<Guard>,
    incarnation: Incarnation,
    uffd: Arc<Uffd>,
    /// The next snapshot's sequence number.
    sequence: AtomicU64,
    /// One snapshot at a time.
    snapshots: Mutex<()>,
}

impl TrustedVm {
    /// Boots a guest: nothing runs yet.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn boot(
        kvm: &Kvm,
        root: &RootKey,
        vm: VmId,
        pages: usize,
        program: &Program,
    ) -> Result<Self, StartError> {
        let incarnation = Incarnation { vm, epoch: Epoch(1), salt: fresh_salt()? };
        let this = Self::build(kvm, root, incarnation, pages)?;
        this.machine.load_program(program)?;
        this.launch()?;
        Ok(this)
    }

    /// A machine of zeroes whose every page is being built.
    fn build(
        kvm: &Kvm,
        root: &RootKey,
        incarnation: Incarnation,
        pages: usize,
    ) -> Result<Self, StartError> {
        let machine = Machine::new(kvm, pages)?;
        let uffd = Arc::new(Uffd::open(Uffd::FEATURE_WP_SHMEM)?);
        let guard = new_guard(root, &incarnation, Arc::clone(machine.memory()))?;
        guard.act_on_all(|gfn| Act::Accept(own_frame(gfn)))?;
        let (sequence, snapshots) = (AtomicU64::new(1), Mutex::new(()));
        Ok(Self { machine, guard: Arc::new(guard), incarnation, uffd, sequence, snapshots })
    }

    fn launch(&self) -> Result<(), StartError> {
        self.guard.act_on_all(|_| Act::Launch)?;
        self.guard.vm().launch().map_err(StartError::NotRunnable)
    }

    /// Makes this process hard to reach: see [`harden::settle`]. The guest's memory becomes the
    /// same user's. Before [`TrustedVm::start`], since threads keep the rights that they have.
    ///
    /// # Errors
    /// [`HardenError`]; end the process.
    pub fn settle(&self, user: Option<u32>) -> Result<Settled, HardenError> {
        let next = harden::target(user)?;
        if next.own_user {
            self.guard.shared().views.give_to(next.uid)?;
        }
        harden::settle(user)
    }

    /// Lets the guest run.
    ///
    /// # Errors
    /// It ran before, or there is no thread left.
    pub fn start(&self) -> Result<(), MachineError> {
        let handler = Arc::clone(&self.guard);
        self.machine.start(handler)
    }

    /// Stops the guest if one of its pages is poisoned. Call it now and then: a vCPU that never
    /// exits does not notice by itself.
    pub fn enforce(&self) {
        if let Err(NotRunnable::Stopped(_)) = self.guard.vm().runnable() {
            self.machine.pause();
        }
    }

    /// The gate to its pages.
    pub const fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The machine it runs on.
    pub const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Which incarnation of which VM.
    pub const fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    /// Stops the guest and wipes every page.
    ///
    /// # Errors
    /// The first page that could not be wiped; it is closed for good.
    pub fn destroy(&self) -> Result<(), Denied> {
        self.machine.stop();
        self.guard.vm().gfns().try_for_each(|gfn| {
            match self.guard.request(gfn, view_core::Request::Destroy) {
                Ok(_) | Err(Denied::Refused(_, view_core::Refused::Absent) | Denied::Forged(_)) => {
                    Ok(())
                }
                Err(denied) => Err(denied),
            }
        })
    }
}

/// A page's frame is the page of the same number of the guest's memory file.
fn own_frame(gfn: Gfn) -> Frame {
    Frame::new(gfn.number()).unwrap_or(Frame::MAX)
}

/// A gate over a new table, all pages offered and free. Tables live as long as the process: one
/// process, one VM.
fn new_guard(
    root: &RootKey,
    incarnation: &Incarnation,
    memory: Arc<GuestMemory>,
) -> Result<Guard, StartError> {
    let pages = memory.pages();
    let slots: &'static [Slot] = Box::leak((0..pages).map(|_| Slot::new()).collect());
    let owners: &'static [Owner] = Box::leak((0..pages).map(|_| Owner::new()).collect());
    let leases: &'static [Lease] = Box::leak((0..OPEN_MAX).map(|_| Lease::new()).collect());
    let vm = Vm::new(VmConfig {
        number: VmNumber(1),
        epoch: incarnation.epoch,
        pages: pages as u64,
        slots,
        frames: Frames::new(owners),
        leases: Leases::new(leases),
        masks: &MASKS,
        replicas_max: REPLICAS_MAX,
    })?;
    for gfn in vm.gfns() {
        // Every frame of a new table is free.
        let _ = vm.frames().offer(own_frame(gfn), vm.number(), gfn);
    }
    let ciphers = SecretBox::make(|| Ciphers::new(root, incarnation))?;
    let shared = Shared::new(Views::new(memory)?, ciphers, &MASKS);
    Ok(Guard::new(vm, Arc::new(shared)))
}

/// 16 bytes that were never used before.
fn fresh_salt() -> Result<Salt, StartError> {
    random().map(Salt).map_err(StartError::Entropy)
}

/// Random bytes from the kernel.
///
/// # Errors
/// The kernel has none.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(bytes)
}
