//! The guest's machine: ports, words of memory, the entry. The only unsafe file of the payload.
#![expect(unsafe_code, reason = "a guest program is its own kernel")]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

// The trusted process sets rsp to a multiple of 16; the call makes it what the ABI wants.
global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start: xor ebp, ebp",
    "call {main}",
    "ud2",
    main = sym crate::main
);

/// `out` of one byte.
pub fn out_byte(port: u16, byte: u8) {
    // SAFETY: a port is not memory; the trusted process touches nothing of ours in answer.
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nostack, preserves_flags)) }
}

/// Rings a doorbell and returns the answer. The trusted process may change shared pages meanwhile,
/// so the compiler must not keep memory in registers across it.
pub fn doorbell(port: u16, [a, b, c]: [u64; 3]) -> u32 {
    let answer: u32;
    // SAFETY: reads registers, writes eax; shared pages are only reached by volatile access.
    unsafe {
        asm!("in eax, dx", in("dx") port, in("rsi") a, in("rdi") b, in("r8") c,
            lateout("eax") answer, options(nostack, preserves_flags));
    }
    answer
}

/// A doorbell of the wrong width.
pub fn doorbell_byte(port: u16) -> u8 {
    let answer: u8;
    // SAFETY: writes al and nothing else.
    unsafe { asm!("in al, dx", in("dx") port, lateout("al") answer, options(nostack)) }
    answer
}

/// Where a word of guest memory is. The memory is identity-mapped and always there.
fn place(gfn: u64, word: u64) -> *mut u64 {
    core::ptr::with_exposed_provenance_mut((gfn * 4096 + word % 512 * 8) as usize)
}

/// One word of a page.
pub fn read(gfn: u64, word: u64) -> u64 {
    // SAFETY: aligned, mapped, and outside every object that the compiler knows of.
    unsafe { place(gfn, word).read_volatile() }
}

/// Stores one word of a page.
pub fn write(gfn: u64, word: u64, value: u64) {
    // SAFETY: as for `read`; main writes only to pages of abi::gfn, never to the payload or stack.
    unsafe { place(gfn, word).write_volatile(value) }
}

/// Overwrites words in a way that the compiler can't leave out.
pub fn wipe(words: &mut [u64]) {
    for word in words {
        // SAFETY: a unique reference is a valid place to write.
        unsafe { core::ptr::write_volatile(word, 0) }
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    out_byte(crate::abi::port::END, 0xee);
    loop {
        core::hint::spin_loop();
    }
}
