//! The floor under a program with nothing else: an entry, an exit, four copies, and the one place
//! where a panic would end up.
#![expect(unsafe_code, reason = "the floor of the house")]

use core::panic::PanicInfo;

unsafe extern "C" {
    /// Defined nowhere: who asks for it can panic, and does not link.
    #[cfg(feature = "never-panics")]
    fn a_panic_path_survived() -> !;
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Kept, so that the places that can panic stay in the file for all to read.
    core::hint::black_box(info.location());
    #[cfg(feature = "never-panics")]
    // SAFETY: never linked, so never called.
    unsafe {
        a_panic_path_survived()
    }
    #[cfg(not(feature = "never-panics"))]
    exit(101)
}

// The kernel leaves the stack aligned, without the return address that a function expects.
core::arch::global_asm!(".globl _start", "_start:", "xor ebp, ebp", "call {}", "ud2", sym start);

extern "C" fn start() -> ! {
    exit(if crate::main().is_some() { 0 } else { 1 })
}

fn exit(code: i32) -> ! {
    // SAFETY: exit_group(2) does not come back, and takes nothing but a number.
    unsafe { core::arch::asm!("syscall", in("eax") 231, in("edi") code, options(noreturn)) }
}

/// Copies bytes forwards, one by one; the compiler calls it for large values.
///
/// # Safety
///
/// `from` must be valid for reads and `to` for writes of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    let mut index = 0;
    while index < len {
        // SAFETY: `index < len`; volatile, so that this loop is not turned into a call to itself.
        let byte = unsafe { from.wrapping_add(index).read_volatile() };
        // SAFETY: as above.
        unsafe { to.wrapping_add(index).write_volatile(byte) };
        index = index.wrapping_add(1);
    }
    to
}

/// Copies bytes that may overlap.
///
/// # Safety
///
/// As for [`memcpy`].
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if to.cast_const() <= from {
        // SAFETY: as the caller promised; forwards, no byte is overwritten before it is read.
        return unsafe { memcpy(to, from, len) };
    }
    let mut index = len;
    while index > 0 {
        index = index.wrapping_sub(1);
        // SAFETY: `index < len`.
        let byte = unsafe { from.wrapping_add(index).read_volatile() };
        // SAFETY: `index < len`.
        unsafe { to.wrapping_add(index).write_volatile(byte) };
    }
    to
}

/// Fills bytes.
///
/// # Safety
///
/// `to` must be valid for writes of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    let [byte, ..] = byte.to_le_bytes();
    let mut index = 0;
    while index < len {
        // SAFETY: `index < len`.
        unsafe { to.wrapping_add(index).write_volatile(byte) };
        index = index.wrapping_add(1);
    }
    to
}

/// Compares bytes.
///
/// # Safety
///
/// Both must be valid for reads of `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    let mut index = 0;
    while index < len {
        // SAFETY: `index < len`.
        let a = unsafe { one.wrapping_add(index).read_volatile() };
        // SAFETY: `index < len`.
        let b = unsafe { other.wrapping_add(index).read_volatile() };
        if a != b {
            return i32::from(a).wrapping_sub(i32::from(b));
        }
        index = index.wrapping_add(1);
    }
    0
}

/// Compares bytes for equality alone.
///
/// # Safety
///
/// As for [`memcmp`].
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
    // SAFETY: as the caller promised.
    unsafe { memcmp(one, other, len) }
}
