//! Everything that Rust does not vouch for: ports, registers of the CPU, and memory by address.

#![expect(unsafe_code, reason = "there is nothing below this but the machine")]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use frontend_bare::memory::{ENTRIES, HostMemory};
use view_core::{Frame, Page};

global_asm!(include_str!("boot.s"), include_str!("memory.s"));

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
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
