//! Everything that Rust does not vouch for: ports, registers of the CPU, and memory by address.

#![expect(unsafe_code, reason = "there is nothing below this but the machine")]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use frontend_bare::memory::{ENTRIES, HostMemory};
use frontend_bare::vmcb::{Vmcb, efer};
use view_core::{Frame, Page};
use zerocopy::{FromBytes, IntoBytes};

global_asm!(include_str!("boot.s"), include_str!("memory.s"), include_str!("run.s"));

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
    fn run_guest(vmcb: *mut Vmcb, registers: *mut Registers, host: *mut Vmcb);
}

/// The frames of this image: from the first to the one behind the last.
pub(crate) fn own_frames() -> core::ops::Range<u64> {
    let frame = |address: *const u8| address as u64 >> 12;
    frame(&raw const image_start)..frame(&raw const image_end)
}

/// Writes a byte to a port.
pub(crate) fn out_byte(port: u16, byte: u8) {
    // SAFETY: the monitor owns every device until it hands them to the hypervisor; no port that is
    // written here makes a device touch memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack)) }
}

/// Writes four bytes to a port.
pub(crate) fn out_word(port: u16, word: u32) {
    // SAFETY: as above.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") word, options(nomem, nostack)) }
}

/// Reads a byte from a port.
pub(crate) fn in_byte(port: u16) -> u8 {
    let byte;
    // SAFETY: as above.
    unsafe { asm!("in al, dx", in("dx") port, out("al") byte, options(nomem, nostack)) }
    byte
}

/// Reads a model-specific register that the CPU has.
pub(crate) fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading a register has no effect on memory; who asks knows that there is one.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

fn write_msr(number: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: only the two registers below are written, with values that the manual allows.
    unsafe { asm!("wrmsr", in("ecx") number, in("eax") low, in("edx") high, options(nostack)) }
}

/// The registers that VMRUN does not switch, but for RAX and RSP, which it does.
#[derive(Clone)]
#[repr(C, align(16))]
pub(crate) struct Registers {
    pub(crate) rbx: u64,
    pub(crate) rcx: u64,
    pub(crate) rdx: u64,
    pub(crate) rsi: u64,
    pub(crate) rdi: u64,
    pub(crate) rbp: u64,
    pub(crate) r8_to_r15: [u64; 8],
    spare: [u64; 2],
    vectors: [u8; 512],
}

impl Default for Registers {
    fn default() -> Self {
        let mut vectors = [0; 512];
        vectors[..2].copy_from_slice(&0x037f_u16.to_le_bytes()); // the x87 unit's control word
        vectors[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes()); // MXCSR
        let (rbx, rcx, rdx, rsi, rdi, rbp) = (0, 0, 0, 0, 0, 0);
        Self { rbx, rcx, rdx, rsi, rdi, rbp, r8_to_r15: [0; 8], spare: [0; 2], vectors }
    }
}

const _: () = assert!(core::mem::offset_of!(Registers, vectors) == 128);

/// This CPU, ready to run guests.
pub(crate) struct Cpu<'c> {
    /// Where the CPU keeps the monitor's registers while a guest runs.
    _saved: &'c mut Page,
    /// What VMLOAD brings back of the monitor.
    host: &'c mut Vmcb,
}

impl<'c> Cpu<'c> {
    /// Turns SVM on (APM volume 2, sections 15.4 and 15.30.4). Who calls has seen that there is
    /// one.
    pub(crate) fn new(saved: &'c mut Page, host: &'c mut Vmcb) -> Self {
        write_msr(EFER, read_msr(EFER) | efer::SVME);
        write_msr(VM_HSAVE_PA, saved.bytes().as_ptr() as u64);
        // SAFETY: a whole page, which nobody else has.
        unsafe { asm!("vmsave rax", in("rax") &raw mut *host, options(nostack)) }
        Self { _saved: saved, host }
    }

    /// Runs a guest until it comes back. Its nested tables lead to no frame of this image.
    pub(crate) fn run(&mut self, vmcb: &mut Vmcb, registers: &mut Registers) {
        // SAFETY: all three are whole and ours alone; what the guest itself reaches is memory that
        // no Rust object is in.
        unsafe { run_guest(vmcb, registers, self.host) }
    }
}

const EFER: u32 = 0xc000_0080;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// Copies something out of the first 4 GiB, where the loader left it.
pub(crate) fn copied<T: FromBytes + IntoBytes>(address: u64) -> Option<T> {
    let mut copy = T::new_zeroed();
    let end = address.checked_add(size_of::<T>() as u64)?;
    if address == 0 || end > 1 << 32 {
        return None;
    }
    for (byte, at) in copy.as_mut_bytes().iter_mut().zip(address..) {
        // SAFETY: mapped, and read once.
        *byte = unsafe { (at as *const u8).read_volatile() };
    }
    Some(copy)
}

/// Stops here for ever.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: interrupts are off in the monitor; this waits.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) }
    }
}

/// Memory below a limit, mapped to itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    /// The frame behind the last one.
    pub(crate) end: u64,
}

impl Identity {
    /// Where a frame is; nowhere if it is beyond the end or a part of this image.
    fn at(self, frame: Frame) -> Option<*mut u8> {
        let number = frame.number();
        let fine = number != 0 && number < self.end && !own_frames().contains(&number);
        fine.then_some((number << 12) as *mut u8)
    }
}

impl HostMemory for Identity {
    fn entry(&self, table: Frame, index: usize) -> u64 {
        let Some(at) = self.at(table) else { return 0 };
        let entry = at.cast::<u64>().wrapping_add(index % ENTRIES);
        // SAFETY: mapped, aligned, and no Rust object: `at` leaves the image out.
        unsafe { entry.read_volatile() }
    }

    fn set_entry(&mut self, table: Frame, index: usize, word: u64) {
        let Some(at) = self.at(table) else { return };
        let entry = at.cast::<u64>().wrapping_add(index % ENTRIES);
        // SAFETY: as above.
        unsafe { entry.write_volatile(word) }
    }

    fn read(&self, frame: Frame, to: &mut Page) {
        let Some(at) = self.at(frame) else {
            to.bytes_mut().fill(0);
            return;
        };
        for (word, index) in to.bytes_mut().as_chunks_mut::<8>().0.iter_mut().zip(0..) {
            let from = at.cast::<u64>().wrapping_add(index);
            // SAFETY: as above; a guest that stores meanwhile makes this old or new, and no Rust
            // reference sees it.
            *word = unsafe { from.read_volatile() }.to_le_bytes();
        }
    }

    fn write(&mut self, frame: Frame, from: &Page) {
        let Some(at) = self.at(frame) else { return };
        for (word, index) in from.bytes().as_chunks::<8>().0.iter().zip(0..) {
            let to = at.cast::<u64>().wrapping_add(index);
            // SAFETY: as above.
            unsafe { to.write_volatile(u64::from_le_bytes(*word)) }
        }
    }

    fn wipe(&mut self, frame: Frame) {
        self.write(frame, &Page::zeroed());
    }
}

/// Where the loader's entry ends up, with the address of its start info.
#[unsafe(no_mangle)]
extern "C" fn monitor_main(start_info: u32) -> ! {
    crate::monitor(u64::from(start_info))
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    crate::console::say(format_args!("monitor: panic: {info}"));
    crate::console::exit(crate::console::Ending::Panicked)
}

/// What parts of core that were built for unwinding name, and nobody calls.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// The same.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    halt()
}
