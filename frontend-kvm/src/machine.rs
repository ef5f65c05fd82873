//! A machine: KVM's VM, its memory and its vCPUs. The door that upper layers come in by.
//!
//! It carries out; it decides nothing. Doorbells and faults go to a [`Handler`], whose answers go
//! back to the guest.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Cap;
use view_core::Gfn;

use crate::abi::{PAGES_MAX, PAGES_MIN};
use crate::exit::GuestEvent;
use crate::guest::{self, BootError, Program};
use crate::memory::{GuestMemory, MemoryError};
use crate::state::{StateError, VcpuState};
use crate::sys::{SysError, WindowedVm};
use crate::vcpu::{Vcpu, VcpuStatus};

/// Why guests can't be run on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// The device doesn't open, or makes no VM.
    #[error("/dev/kvm: {0}")]
    Device(#[from] SysError),
    /// It speaks another language.
    #[error("/dev/kvm speaks API version {0}, not 12")]
    Version(i32),
    /// It can't do something that is needed.
    #[error("/dev/kvm lacks {0}")]
    Lacks(&'static str),
}

/// Why a machine could not do as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineError {
    /// The host can't run guests.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// Fewer pages than the guest needs or more than its tables map.
    #[error("a guest has {min} to {max} pages, not {0}", min = PAGES_MIN, max = PAGES_MAX)]
    Pages(usize),
    /// The system refused.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The guest's memory refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The guest could not be put into its memory.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A vCPU's state could not be saved or loaded.
    #[error(transparent)]
    State(#[from] StateError),
    /// The machine has no such vCPU.
    #[error("there is no vCPU {0}")]
    NoSuchVcpu(u8),
    /// That needs a paused machine. It goes on running.
    #[error("the machine is running")]
    NotPaused,
    /// It was started before.
    #[error("the machine was started before")]
    AlreadyStarted,
    /// It was not started yet.
    #[error("the machine was not started")]
    NotStarted,
    /// The guest ended or crashed.
    #[error("the guest is over: {0:?}")]
    Over(VcpuStatus),
}

/// An open `/dev/kvm` that can do what is needed here.
pub struct Kvm {
    kvm: kvm_ioctls::Kvm,
    cpuid: CpuId,
}

impl fmt::Debug for Kvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kvm")
    }
}

impl Kvm {
    /// Opens the device and asks what it can do.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn open() -> Result<Self, Unusable> {
        let kvm = kvm_ioctls::Kvm::new().map_err(|e| SysError::kvm("open(/dev/kvm)", e))?;
        match kvm.get_api_version() {
            12 => {}
            other => return Err(Unusable::Version(other)),
        }
        let needed = [
            (Cap::UserMemory, "user memory"),
            (Cap::ImmediateExit, "immediate exit"),
            (Cap::SyncMmu, "a synchronised MMU"),
            (Cap::Xsave, "XSAVE state"),
            (Cap::Xcrs, "XCR state"),
            (Cap::Debugregs, "debug registers"),
            (Cap::VcpuEvents, "vCPU events"),
            (Cap::MpState, "MP state"),
        ];
        if let Some((_, name)) = needed.into_iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
            return Err(Unusable::Lacks(name));
        }
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let cpuid = cpuid.map_err(|e| SysError::kvm("KVM_GET_SUPPORTED_CPUID", e))?;
        Ok(Self { kvm, cpuid })
    }

    /// Whether guests can be run here, and if not, why: for tests that skip.
    ///
    /// # Errors
    /// See [`Unusable`].
    pub fn usable() -> Result<(), Unusable> {
        let this = Self::open()?;
        this.kvm.create_vm().map_err(|e| SysError::kvm("KVM_CREATE_VM", e))?;
        Ok(())
    }
}

/// What a handler says to a doorbell. Other events ignore the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The guest gets the code and goes on.
    Answer(u32),
    /// The guest gets the code, and the vCPU parks before its next instruction.
    Pause(u32),
}

impl Reply {
    pub(crate) const fn code(self) -> u32 {
        match self {
            Self::Answer(code) | Self::Pause(code) => code,
        }
    }
}

/// What a handler says to a touch of a page that the guest isn't shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// Touch it again: it is there by now, or will be soon.
    Retry,
    /// End the guest.
    Stop,
}

/// Who hears of a guest's doings. Called on the vCPU's thread while the vCPU waits; it must not
/// pause, stop or save the machine that calls it.
pub trait Handler: Send + Sync {
    /// Whether the vCPU may be entered. Asked before every entry; if not, it parks.
    fn may_enter(&self, vcpu: u8) -> bool;
    /// The guest did something.
    fn event(&self, vcpu: u8, event: GuestEvent) -> Reply;
    /// The guest touched a page that its window doesn't show now. KVM doesn't say which.
    fn fault(&self, vcpu: u8) -> OnFault;
}

/// A VM with its memory and its vCPUs. Paused when made; stopped on drop.
pub struct Machine {
    // Dropped in this order: first the threads, then the VM.
    vcpus: Vec<Vcpu>,
    vm: WindowedVm,
    memory: Arc<GuestMemory>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("pages", &self.memory.pages()).finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine with `pages` pages of zeroes and one vCPU, ready for state from elsewhere.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn new(kvm: &Kvm, pages: usize) -> Result<Self, MachineError> {
        let number = pages as u64;
        if !(PAGES_MIN..=PAGES_MAX).contains(&number) {
            return Err(MachineError::Pages(pages));
        }
        let memory = Arc::new(GuestMemory::new(pages)?);
        let vm = kvm.kvm.create_vm().map_err(|e| SysError::kvm("KVM_CREATE_VM", e))?;
        let vm = WindowedVm::new(vm, memory.share_window())?;
        let shared = kvm.kvm.get_vcpu_mmap_size();
        let shared = shared.map_err(|e| SysError::kvm("KVM_GET_VCPU_MMAP_SIZE", e))?;
        let vcpu = vm.vcpu(0)?;
        vcpu.fd.set_cpuid2(&kvm.cpuid).map_err(|e| SysError::kvm("KVM_SET_CPUID2", e))?;
        let vcpus = vec![Vcpu::new(0, vcpu, shared, number)?];
        Ok(Self { vcpus, vm, memory })
    }

    /// A machine with the toy guest in it, about to run its first instruction.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn boot(kvm: &Kvm, pages: usize, program: &Program) -> Result<Self, MachineError> {
        let this = Self::new(kvm, pages)?;
        this.load_program(program)?;
        Ok(this)
    }

    /// Puts the toy guest into a machine of zeroes, about to run its first instruction.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub fn load_program(&self, program: &Program) -> Result<(), MachineError> {
        let entry = guest::load(&self.memory, program)?;
        self.vcpu(0)?.with_parked(|vcpu| {
            let mut sregs = vcpu.get_sregs().map_err(|e| SysError::kvm("KVM_GET_SREGS", e))?;
            guest::enter_long_mode(&mut sregs);
            vcpu.set_sregs(&sregs).map_err(|e| SysError::kvm("KVM_SET_SREGS", e))?;
            let regs = guest::entry_registers(entry);
            vcpu.set_regs(&regs).map_err(|e| SysError::kvm("KVM_SET_REGS", e))?;
            Ok(())
        })
    }

    /// The guest's memory.
    pub const fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// How many vCPUs there are.
    pub const fn vcpus(&self) -> usize {
        self.vcpus.len()
    }

    fn vcpu(&self, number: u8) -> Result<&Vcpu, MachineError> {
        self.vcpus.get(usize::from(number)).ok_or(MachineError::NoSuchVcpu(number))
    }

    /// Runs every vCPU on a thread of its own.
    ///
    /// # Errors
    /// It was started before, or there is no thread left.
    pub fn start(&self, handler: Arc<dyn Handler>) -> Result<(), MachineError> {
        self.vcpus.iter().try_for_each(|vcpu| vcpu.start(Arc::clone(&handler)))
    }

    /// On return no vCPU runs, every exit is complete and no handler is being called.
    pub fn pause(&self) {
        for vcpu in &self.vcpus {
            vcpu.pause();
        }
    }

    /// Lets the vCPUs go on.
    ///
    /// # Errors
    /// The machine was not started, or a vCPU is over.
    pub fn resume(&self) -> Result<(), MachineError> {
        self.vcpus.iter().try_for_each(Vcpu::resume)
    }

    /// On return the vCPUs' threads are gone. The machine can be started again.
    pub fn stop(&self) {
        for vcpu in &self.vcpus {
            vcpu.stop();
        }
    }

    /// Starts or stops noting which pages the guest writes. Starting forgets what was noted.
    ///
    /// # Errors
    /// KVM refused.
    pub fn note_writes(&self, on: bool) -> Result<(), MachineError> {
        Ok(self.vm.note_writes(on)?)
    }

    /// The pages that the guest wrote since the last call, or since noting started; page tables
    /// that the processor marked are among them. Stores of the trusted process are not: neither
    /// those through [`GuestMemory`], nor those to a page that was switched in.
    ///
    /// # Errors
    /// KVM refused: writes are not noted.
    pub fn written(&self) -> Result<Vec<Gfn>, MachineError> {
        let mut pages = Vec::new();
        for (word, start) in self.vm.written()?.into_iter().zip((0..).step_by(64)) {
            let bits = (0..64).filter(|bit| word >> bit & 1 == 1);
            pages.extend(bits.filter_map(|bit| self.memory.gfn_of(start + bit)));
        }
        Ok(pages)
    }

    /// What a vCPU is doing.
    ///
    /// # Errors
    /// There is no such vCPU.
    pub fn status(&self, vcpu: u8) -> Result<VcpuStatus, MachineError> {
        Ok(self.vcpu(vcpu)?.status())
    }

    /// Waits until a vCPU parks by itself, ends or crashes, or until the time is over.
    ///
    /// # Errors
    /// There is no such vCPU.
    pub fn wait(&self, vcpu: u8, most: Duration) -> Result<VcpuStatus, MachineError> {
        Ok(self.vcpu(vcpu)?.wait(most))
    }

    /// The whole state of a paused vCPU.
    ///
    /// # Errors
    /// It runs, or KVM refused.
    pub fn save(&self, vcpu: u8) -> Result<VcpuState, MachineError> {
        self.vcpu(vcpu)?.with_parked(|fd| Ok(VcpuState::save(fd)?))
    }

    /// Makes a paused vCPU what the state says; it can go on from there.
    ///
    /// # Errors
    /// It runs, or KVM refused; then the vCPU is half changed and must be loaded again.
    pub fn load(&self, vcpu: u8, state: &VcpuState) -> Result<(), MachineError> {
        self.vcpu(vcpu)?.revive(|fd| Ok(state.load(&self.vm, fd)?))
    }
}
