//! A plain VMM, for guests that a monitor beneath it protects: it manages a VM as any VMM does, and
//! keeps no secret of it.
//!
//! Nothing here is trusted. It loads an image, enters it in 64-bit mode at ring 0 with an interrupt
//! controller in the kernel, and answers ports and a device. All that KVM shows of the guest can be
//! written down as raw bytes ([`door`]), as VMMs do for debuggers and dumps.

pub mod abi;
pub mod door;
mod image;

use std::fmt;
use std::thread::JoinHandle;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_regs, kvm_xcr, kvm_xcrs};
use kvm_ioctls::{VcpuExit, VcpuFd};
use view_core::{Gfn, OutOfRange};
use vmm_sys_util::signal::{Killable, SIGRTMIN};

use crate::memory::{GuestMemory, MemoryError};
use crate::sys::{SysError, WindowedVcpu, WindowedVm};
use crate::vcpu::kick_signal;

use abi::{PAGES_MAX, PAGES_MIN, port};

/// Why a plain VM can't be had, or can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlainError {
    /// The system refused.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The guest's memory refused.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A place in the image is no address.
    #[error("an address of the image: {0}")]
    Address(#[from] OutOfRange),
    /// The image is none.
    #[error("the image can't be loaded: {0}")]
    Image(&'static str),
    /// Too little memory, or too much.
    #[error("a guest has {PAGES_MIN} to {PAGES_MAX} pages, not {0}")]
    Pages(u64),
    /// More words for the boot page than it has room for.
    #[error("a guest is given at most {max} words, not {0}", max = abi::boot::WORDS_MAX)]
    Words(usize),
}

/// What a guest is made of.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'i> {
    /// A static ELF file for x86-64, or bytes that begin with their first instruction.
    pub image: &'i [u8],
    /// Pages of memory, from guest frame 0 on.
    pub pages: u64,
    /// What it is told in its boot page.
    pub words: &'i [u64],
}

/// Why a VM came out of its guest. Devices have answered by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A byte for the console.
    Console(u8),
    /// The guest rang: the value, and how many bytes of it there are.
    Rang(u32, usize),
    /// The guest asked the doorbell, or used the device.
    Device,
    /// The guest has put something into this page, and waits for an answer in it.
    Mailbox(Gfn),
    /// A signal came.
    Signal,
    /// The guest ended with this code.
    Ended(u8),
    /// The guest touched what there is not.
    Nobody(u64),
    /// KVM runs it no more, and says so.
    Dead(Death),
}

/// How a guest died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// A triple fault, or what the CPU says in place of one.
    Shutdown,
    /// The CPU does not enter this state.
    Entry(u64),
    /// KVM gave up.
    Internal,
    /// `KVM_RUN` failed with this error number.
    Run(i32),
    /// An exit that nothing here asks for.
    Unasked,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("it shut down"),
            Self::Entry(why) => write!(f, "the CPU did not enter it ({why:#x})"),
            Self::Internal => f.write_str("KVM gave up"),
            Self::Run(errno) => {
                write!(f, "KVM_RUN: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Self::Unasked => f.write_str("it came out for no reason that is known here"),
        }
    }
}

/// An open `/dev/kvm`, and what its CPUs can do.
pub struct Host {
    kvm: kvm_ioctls::Kvm,
    cpuid: CpuId,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}

impl Host {
    /// Opens it.
    ///
    /// # Errors
    /// The device doesn't open, or doesn't say what its CPUs can do.
    pub fn open() -> Result<Self, SysError> {
        let kvm = kvm_ioctls::Kvm::new().map_err(|e| SysError::kvm("open(/dev/kvm)", e))?;
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let cpuid = cpuid.map_err(|e| SysError::kvm("KVM_GET_SUPPORTED_CPUID", e))?;
        Ok(Self { kvm, cpuid })
    }
}

/// A VM with one vCPU, its memory and its devices.
pub struct PlainVm {
    vcpu: WindowedVcpu,
    _vm: WindowedVm,
    memory: GuestMemory,
    doorbell: u64,
    device: u64,
}

impl fmt::Debug for PlainVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlainVm").field("pages", &self.memory.pages()).finish_non_exhaustive()
    }
}

impl PlainVm {
    /// A VM with a guest in it, about to run its first instruction.
    ///
    /// # Errors
    /// See [`PlainError`].
    pub fn new(host: &Host, guest: &Guest<'_>) -> Result<Self, PlainError> {
        if !(PAGES_MIN..=PAGES_MAX).contains(&guest.pages) {
            return Err(PlainError::Pages(guest.pages));
        }
        let memory = GuestMemory::new(guest.pages as usize)?;
        let entry = image::load(&memory, guest)?;
        let vm = host.kvm.create_vm().map_err(|e| SysError::kvm("KVM_CREATE_VM", e))?;
        vm.create_irq_chip().map_err(|e| SysError::kvm("KVM_CREATE_IRQCHIP", e))?;
        let vm = WindowedVm::new(vm, memory.share_window())?;
        let vcpu = vm.vcpu(0)?;
        let fd = &vcpu.fd;
        fd.set_cpuid2(&host.cpuid).map_err(|e| SysError::kvm("KVM_SET_CPUID2", e))?;
        let mut sregs = fd.get_sregs().map_err(|e| SysError::kvm("KVM_GET_SREGS", e))?;
        image::enter_long_mode(&mut sregs);
        fd.set_sregs(&sregs).map_err(|e| SysError::kvm("KVM_SET_SREGS", e))?;
        switch_on_avx(fd, &host.cpuid)?;
        let regs = kvm_regs { rip: entry, rflags: 2, ..Default::default() };
        fd.set_regs(&regs).map_err(|e| SysError::kvm("KVM_SET_REGS", e))?;
        Ok(Self { vcpu, _vm: vm, memory, doorbell: 0, device: 0 })
    }

    /// Its memory, as this VMM sees it.
    pub const fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// The general registers, as KVM shows them.
    ///
    /// # Errors
    /// KVM refused.
    pub fn registers(&self) -> Result<kvm_regs, SysError> {
        self.vcpu.fd.get_regs().map_err(|e| SysError::kvm("KVM_GET_REGS", e))
    }

    /// Sets them.
    ///
    /// # Errors
    /// KVM refused.
    pub fn set_registers(&self, registers: &kvm_regs) -> Result<(), SysError> {
        self.vcpu.fd.set_regs(registers).map_err(|e| SysError::kvm("KVM_SET_REGS", e))
    }

    /// From now on the doorbell answers as if the guest had rung with this.
    pub const fn ring(&mut self, value: u64) {
        self.doorbell = value;
    }

    /// Runs the guest until it comes out, and answers it where a device does.
    pub fn run(&mut self) -> Stop {
        match self.vcpu.fd.run() {
            Ok(VcpuExit::IoOut(port, bytes)) => {
                let (value, width) = (number(bytes), bytes.len());
                self.out(port, value, width)
            }
            Ok(VcpuExit::IoIn(port, bytes)) => {
                bytes.fill(0xff);
                if port != port::DOORBELL {
                    return Stop::Nobody(port.into());
                }
                put(abi::answer(self.doorbell), bytes);
                Stop::Device
            }
            Ok(VcpuExit::MmioWrite(abi::DEVICE..=DEVICE_LAST, bytes)) => {
                self.device = number(bytes);
                Stop::Device
            }
            Ok(VcpuExit::MmioRead(abi::DEVICE..=DEVICE_LAST, bytes)) => {
                put(abi::answer(self.device), bytes);
                Stop::Device
            }
            Ok(VcpuExit::MmioRead(address, bytes)) => {
                bytes.fill(0xff);
                Stop::Nobody(address)
            }
            Ok(VcpuExit::MmioWrite(address, _)) => Stop::Nobody(address),
            Ok(VcpuExit::Intr) => Stop::Signal,
            Ok(VcpuExit::Shutdown) => Stop::Dead(Death::Shutdown),
            Ok(VcpuExit::FailEntry(why, _)) => Stop::Dead(Death::Entry(why)),
            Ok(VcpuExit::InternalError) => Stop::Dead(Death::Internal),
            Ok(_) => Stop::Dead(Death::Unasked),
            Err(error) if [libc::EINTR, libc::EAGAIN].contains(&error.errno()) => Stop::Signal,
            Err(error) => Stop::Dead(Death::Run(error.errno())),
        }
    }

    /// Answers a mailbox: whether the page began with a greeting. Only then there is a reply in it.
    ///
    /// # Errors
    /// There is no such page.
    pub fn reply(&self, mailbox: Gfn) -> Result<bool, MemoryError> {
        for (at, word) in (0..).zip(abi::GREETING) {
            if self.memory.read_word(mailbox, at)? != word {
                return Ok(false);
            }
        }
        for (at, word) in (2..).zip(abi::REPLY) {
            self.memory.write_word(mailbox, at, word)?;
        }
        Ok(true)
    }

    fn out(&mut self, port: u16, value: u64, width: usize) -> Stop {
        match (port, width) {
            (port::END, 1) => Stop::Ended(value as u8),
            (port::CONSOLE, 1) => Stop::Console(value as u8),
            (port::DOORBELL, _) => {
                self.doorbell = value;
                Stop::Rang(value as u32, width)
            }
            (port::MAILBOX, 4) => match Gfn::new(value) {
                Ok(gfn) => Stop::Mailbox(gfn),
                Err(_) => Stop::Nobody(port.into()),
            },
            _ => Stop::Nobody(port.into()),
        }
    }
}

const DEVICE_LAST: u64 = abi::DEVICE + 0xfff;

/// Switches on x87, SSE and AVX, if the CPU has it, as the guest may itself: some emulated CPUs
/// carry out a guest's `xsetbv` without KVM's knowing, which then undoes it.
fn switch_on_avx(vcpu: &VcpuFd, cpuid: &CpuId) -> Result<(), SysError> {
    const XSAVE_AND_AVX: u32 = 1 << 26 | 1 << 28;
    let has = |entry: &kvm_cpuid_entry2| {
        entry.function == 1 && entry.ecx & XSAVE_AND_AVX == XSAVE_AND_AVX
    };
    if !cpuid.as_slice().iter().any(has) {
        return Ok(());
    }
    let mut registers = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    registers.xcrs[0] = kvm_xcr { xcr: 0, reserved: 0, value: 0b111 };
    vcpu.set_xcrs(&registers).map_err(|e| SysError::kvm("KVM_SET_XCRS", e))
}

/// Lets this process's threads be kicked out of a guest.
///
/// # Errors
/// The system refused the signal's handler, which does nothing.
pub fn allow_kicks() -> Result<(), SysError> {
    kick_signal().map(|_| ())
}

/// Makes the thread come out of the guest, if it is in there now: kick until it has.
pub fn kick<T>(thread: &JoinHandle<T>) {
    // Who is gone needs no signal, so a failure means nothing.
    let _ = thread.kill(SIGRTMIN());
}

/// The number in at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// As much of a number as there is room for.
fn put(number: u64, bytes: &mut [u8]) {
    for (byte, value) in bytes.iter_mut().zip(number.to_le_bytes()) {
        *byte = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_their_bytes_at_every_width() {
        for width in [1, 2, 4, 8] {
            let mut bytes = vec![0; width];
            put(0x1122_3344_5566_7788, &mut bytes);
            assert_eq!(number(&bytes), 0x1122_3344_5566_7788 & (u64::MAX >> (64 - 8 * width)));
        }
    }
}
