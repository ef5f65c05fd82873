//! The guest's machine: its tables, ports, words of memory, calls. The only unsafe file of it.
#![expect(unsafe_code, reason = "a guest program is its own kernel")]

use core::arch::{asm, global_asm, x86_64};
use core::panic::PanicInfo;

global_asm!(
    ".section .text.start, \"ax\"",
    ".globl _start",
    "_start: lea rsp, [rip + STACK_END]",
    "xor ebp, ebp",
    "call {main}",
    "ud2",
    // Tables and stacks are part of the image, so that they are there when the guest is launched.
    ".bss",
    ".balign 4096",
    "TABLES: .skip 5 * 4096",
    "DESCRIPTORS: .skip 4096",
    "GATES: .skip 4096",
    ".skip 8192",
    "INTERRUPT_STACK_END:",
    ".skip 16384",
    "STACK_END:",
    ".globl TABLES, DESCRIPTORS, GATES, INTERRUPT_STACK_END",
    main = sym crate::main
);
global_asm!(include_str!("probes.s"), trapped = sym trapped);

unsafe extern "C" {
    static TABLES: u8;
    static DESCRIPTORS: u8;
    static GATES: u8;
    static INTERRUPT_STACK_END: u8;
    static WANTED: u8;
    static SEEN: u8;
    static TICKS: u8;
    static WIDE: u8;
    fn on_timer();
    fn on_trap();
}

/// A fault: the first words that the CPU left are an error code, if there is one, and where.
extern "C" fn trapped(first: u64, second: u64) -> ! {
    crate::say::line(format_args!("trapped: {first:#x} {second:#x}"));
    loop {
        out_byte(crate::abi::port::END, 0xee);
    }
}

macro_rules! probes {
    ($($name:ident)*) => {
        unsafe extern "C" { $(fn $name();)* }
        /// Every probe, in the order of `secrets::PROBES`, and the call that nobody serves.
        const PROBES: [unsafe extern "C" fn(); 16] = [$($name),*];
    };
}
probes! {
    probe_halt probe_out1 probe_in1 probe_out2 probe_in2 probe_out4 probe_in4 probe_store8
    probe_load8 probe_store4 probe_load4 probe_cpuid probe_wrmsr probe_rdmsr probe_timer
    probe_vmmcall
}

/// The vector of the timer.
const TIMER: u64 = 0x40;

fn put(at: u64, value: u64) {
    // SAFETY: callers give the aligned address of a word of this image's tables or of guest memory
    // behind the image, all of it mapped; no Rust object is there.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(at as usize).write_volatile(value) }
}

fn look(at: u64) -> u64 {
    // SAFETY: as for `put`.
    unsafe { core::ptr::with_exposed_provenance_mut::<u64>(at as usize).read_volatile() }
}

/// Word `word` of a page of memory.
pub fn read(gfn: u64, word: u64) -> u64 {
    look(gfn * 4096 + word * 8)
}

/// Stores word `word` of a page of memory.
pub fn write(gfn: u64, word: u64, value: u64) {
    put(gfn * 4096 + word * 8, value);
}

macro_rules! address {
    ($name:ident) => {
        // SAFETY: takes an address and reads nothing.
        (&raw const $name).expose_provenance() as u64
    };
}

/// Own page tables, descriptors and gates; vector registers as wide as the machine has them.
pub fn set_up(device: u64) {
    tables(device);
    descriptors();
    gates();
    let features = x86_64::__cpuid(1).ecx;
    if features >> 26 & 1 == 1 && features >> 28 & 1 == 1 {
        // SAFETY: both features are there: XSAVE, and AVX as one of its parts.
        unsafe {
            asm!("mov {0}, cr4", "or {0}, {1}", "mov cr4, {0}", "xsetbv", out(reg) _,
                const 1 << 18, in("ecx") 0, in("eax") 7, in("edx") 0, options(nostack));
        }
    }
}

/// Whether vector registers are 32 bytes wide; probes use them so from now on.
pub fn is_wide() -> bool {
    let mut parts = 0_u32;
    if x86_64::__cpuid(1).ecx >> 27 & 1 == 1 {
        // SAFETY: the instruction is there; it reads what `set_up` wrote.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") parts, out("edx") _, options(nostack)) }
    }
    put(address!(WIDE), u64::from(parts >> 2 & 1));
    parts >> 2 & 1 == 1
}

/// The first 2 MiB by pages of 4 KiB, and the device.
fn tables(device: u64) {
    let table = |number: u64| address!(TABLES) + number * 4096;
    let entry = |address: u64| address | 0b11;
    let place = |address: u64, level: u32| (address >> (12 + 9 * level) & 511) * 8;
    put(table(0), entry(table(1)));
    put(table(1), entry(table(2)));
    put(table(2), entry(table(3)));
    for page in 0..512 {
        put(table(3) + page * 8, entry(page << 12));
    }
    put(table(1) + place(device, 2), entry(table(4)));
    put(table(4) + place(device, 1), entry(device) | 1 << 7);
    // SAFETY: the new tables map everything that the image uses where it was before.
    unsafe { asm!("mov cr3, {}", in(reg) table(0), options(nostack, preserves_flags)) }
}

/// Code, data and a task with the stack that interrupts use.
fn descriptors() {
    let at = address!(DESCRIPTORS);
    let task = at + 2048;
    put(at + 8, 0x00af_9b00_0000_ffff);
    put(at + 16, 0x00cf_9300_0000_ffff);
    put(at + 24, 103 | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56);
    put(at + 32, task >> 32);
    // The first interrupt stack is at byte 36 of a task.
    let stack = address!(INTERRUPT_STACK_END);
    put(task + 32, stack << 32);
    put(task + 40, stack >> 32);
    put(task + 96, 104 << 48);
    let pointer: [u16; 5] = [5 * 8 - 1, at as u16, (at >> 16) as u16, (at >> 32) as u16, 0];
    // SAFETY: the descriptors are flat segments like those of the VMM, and one task.
    unsafe {
        asm!("lgdt [{pointer}]", "mov ss, {data:x}", "mov ds, {data:x}", "mov es, {data:x}",
            "push 8", "lea {next}, [rip + 2f]", "push {next}", "retfq", "2:", "ltr {task:x}",
            pointer = in(reg) &pointer, data = in(reg) 16, task = in(reg) 24, next = out(reg) _);
    }
}

/// Faults end the guest, and the timer counts, all on the interrupt stack.
fn gates() {
    let at = address!(GATES);
    let gate = |vector: u64, handler: u64| {
        let low = handler & 0xffff | 8 << 16 | 0x8e01 << 32 | (handler >> 16 & 0xffff) << 48;
        put(at + vector * 16, low);
        put(at + vector * 16 + 8, handler >> 32);
    };
    for vector in 0..32 {
        gate(vector, on_trap as *const () as u64);
    }
    gate(TIMER, on_timer as *const () as u64);
    let pointer: [u16; 5] = [4095, at as u16, (at >> 16) as u16, (at >> 32) as u16, 0];
    // SAFETY: the gates lead to handlers of this image.
    unsafe { asm!("lidt [{}]", in(reg) &pointer, options(nostack, preserves_flags)) }
}

/// Sets CR2 and the bases of FS and GS, which nothing here uses.
pub fn set_control([cr2, fs, gs]: [u64; 3]) {
    // SAFETY: CR2 is written by page faults alone, of which there are none.
    unsafe { asm!("mov cr2, {}", in(reg) cr2, options(nostack, preserves_flags)) }
    write_msr(0xc000_0100, fs);
    write_msr(0xc000_0101, gs);
}

/// CR2 and the bases of FS and GS.
pub fn control() -> [u64; 3] {
    let cr2;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) cr2, options(nostack, preserves_flags)) }
    [cr2, read_msr(0xc000_0100), read_msr(0xc000_0101)]
}

/// Writes a register by its number.
pub fn write_msr(number: u32, value: u64) {
    // SAFETY: callers name registers of the timer, of memory types, or of segments unused here.
    unsafe {
        asm!("wrmsr", in("ecx") number, in("eax") value as u32, in("edx") (value >> 32) as u32,
            options(nostack, preserves_flags));
    }
}

/// Reads a register by its number.
pub fn read_msr(number: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: as for `write_msr`; reading changes nothing.
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high,
            options(nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Switches the interrupt controller on, with its registers by numbers.
pub fn set_up_timer() {
    write_msr(0x1b, read_msr(0x1b) | 1 << 10);
    write_msr(0x80f, 0x1ff);
    write_msr(0x83e, 0xb);
}

/// Lets the timer tick every so many nanoseconds, and forgets the ticks so far. Not once: whoever
/// hears the only tick between looking for it and halting would wait for ever.
pub fn start_timer(nanoseconds: u64) {
    put(address!(TICKS), 0);
    write_msr(0x832, TIMER | 1 << 17);
    write_msr(0x838, nanoseconds);
}

/// No more ticks.
pub fn stop_timer() {
    write_msr(0x838, 0);
}

/// The time-stamp counter.
pub fn time() -> u64 {
    // SAFETY: every 64-bit CPU has one.
    unsafe { x86_64::_rdtsc() }
}

/// How often the timer ticked since it was started.
pub fn ticks() -> u64 {
    look(address!(TICKS))
}

/// What the next probe finds in register word `word`.
pub fn want(word: usize, value: u64) {
    put(address!(WANTED) + word as u64 * 8, value);
}

/// What the last probe left in register word `word`.
pub fn seen(word: usize) -> u64 {
    look(address!(SEEN) + word as u64 * 8)
}

/// Makes one probe.
pub fn run_probe(number: usize) {
    // SAFETY: a probe keeps to the calling convention, writes its own statics, and names in
    // registers only what its row in the table says, which callers fill in.
    unsafe { PROBES[number % PROBES.len()]() }
}

/// What `cpuid` says of a leaf: eax, ebx, ecx, edx.
pub fn cpuid(leaf: u32) -> [u64; 4] {
    let x86_64::CpuidResult { eax, ebx, ecx, edx } = x86_64::__cpuid_count(leaf, 0);
    [eax, ebx, ecx, edx].map(u64::from)
}

/// `out` of one byte.
pub fn out_byte(port: u16, byte: u8) {
    // SAFETY: a port is not memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nostack, preserves_flags)) }
}

/// `out` of four bytes. Shared pages may change meanwhile; they are reached by volatile access.
pub fn out_double(port: u16, value: u32) {
    // SAFETY: a port is not memory.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack)) }
}

/// `in` of four bytes.
pub fn in_double(port: u16) -> u32 {
    let value;
    // SAFETY: a port is not memory.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack)) }
    value
}

/// A call to whoever is beneath. rsi shows at a call, too, so it is zero.
pub fn call(number: u64, [first, second, third]: [u64; 3]) -> u64 {
    let answer;
    // SAFETY: rbx is the compiler's and is given back; the call changes rax alone.
    unsafe {
        asm!("xchg rbx, {first}", "vmmcall", "xchg rbx, {first}", first = inout(reg) first => _,
            inout("rax") number => answer, in("rcx") second, in("rdx") third, in("rsi") 0,
            options(nostack));
    }
    answer
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        out_byte(crate::abi::port::END, 0xed);
    }
}

/// Asked for by `core`'s tables of unwinding; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// The same.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    loop {
        out_byte(crate::abi::port::END, 0xec);
    }
}
