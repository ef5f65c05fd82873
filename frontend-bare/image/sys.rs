//! Everything that Rust does not vouch for: ports, registers of the CPU, and memory by address.

#![expect(unsafe_code, reason = "there is nothing below this but the machine")]

use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};
use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

use frontend_bare::linux::{self, Bytes};
use frontend_bare::memory::{ENTRIES, HostMemory};
use frontend_bare::switched::{Extended, Switched};
use frontend_bare::vmcb::{Vmcb, efer};
use view_core::{Frame, Page};
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::{lidt, load_tss};
use x86_64::registers::control::Cr4;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;
use zerocopy::{FromBytes, IntoBytes};

global_asm!(
    include_str!("boot.s"),
    include_str!("memory.s"),
    include_str!("run.s"),
    include_str!("traps.s")
);

unsafe extern "C" {
    static image_start: u8;
    static image_end: u8;
    static boot_stack: u8;
    static mut boot_pages: u8;
    static mut all_states: u64;
    static trap_stubs: [[u8; 16]; VECTORS];
    fn read_msr_or_not(number: u32, value: *mut u64) -> u32;
    fn write_msr_or_not(number: u32, value: u64) -> u32;
    fn run_guest(vmcb: *mut Vmcb, switched: *mut Switched, host: *mut Vmcb);
}

/// How many vectors the CPU keeps for itself.
const VECTORS: usize = 32;

/// A stack that no frame of the monitor is on: compiled code keeps things below its stack pointer.
#[repr(C, align(16))]
struct TrapStack([u8; 16384]);

/// What the CPU needs to find the trap stubs, for as long as the monitor runs.
pub(crate) struct Traps {
    stack: TrapStack,
    state: TaskStateSegment,
    table: GlobalDescriptorTable,
    gates: [[u64; 2]; VECTORS],
}

impl Traps {
    /// Nothing yet.
    pub(crate) const fn new() -> Self {
        let (stack, gates) = (TrapStack([0; 16384]), [[0; 2]; VECTORS]);
        Self { stack, state: TaskStateSegment::new(), table: GlobalDescriptorTable::new(), gates }
    }

    /// From now on whatever goes wrong in the monitor ends in [`trapped`].
    pub(crate) fn load(&'static mut self) {
        let Self { stack, state, table, gates } = self;
        state.interrupt_stack_table[0] = VirtAddr::new(stack.0.as_ptr_range().end as u64);
        let code = table.append(Descriptor::kernel_code_segment());
        let data = table.append(Descriptor::kernel_data_segment());
        let task = table.append(Descriptor::tss_segment(state));
        for (gate, vector) in gates.iter_mut().zip(0..) {
            let stub = (&raw const trap_stubs).cast::<[u8; 16]>().wrapping_add(vector) as u64;
            *gate = trap_gate(stub, code.0);
        }
        table.load();
        // SAFETY: the same kind of code segment as the loader's, from a table that stays.
        unsafe { CS::set_reg(code) }
        for set in [DS::set_reg, ES::set_reg, SS::set_reg] {
            // SAFETY: the same for data.
            unsafe { set(data) }
        }
        // SAFETY: a segment with a stack of its own, which stays.
        unsafe { load_tss(task) }
        let limit = (size_of_val(gates) - 1) as u16;
        let pointer = DescriptorTablePointer { limit, base: VirtAddr::new(gates.as_ptr() as u64) };
        // SAFETY: every gate leads to a stub.
        unsafe { lidt(&pointer) }
    }
}

/// An interrupt gate to a stub, on the first stack of the task state (APM volume 2, 4.8.4).
const fn trap_gate(stub: u64, code: u16) -> [u64; 2] {
    let (low, middle, high) = (stub & 0xffff, stub >> 16 & 0xffff, stub >> 32);
    [low | (code as u64) << 16 | 1 << 32 | 0x8e << 40 | middle << 48, high]
}

/// What a stub and the CPU have pushed, from the last on.
#[repr(C)]
struct Trap {
    vector: u64,
    error: u64,
    rip: u64,
}

#[unsafe(no_mangle)]
extern "C" fn trapped(trap: &Trap) -> ! {
    let Trap { vector, error, rip } = trap;
    crate::console::say(format_args!("monitor: trap {vector}, error {error:#x}, at {rip:#x}"));
    crate::console::exit(crate::console::Ending::Panicked)
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

/// Writes two bytes to a port.
pub(crate) fn out_half(port: u16, half: u16) {
    // SAFETY: as above.
    unsafe { asm!("out dx, ax", in("dx") port, in("ax") half, options(nomem, nostack)) }
}

/// Reads two bytes from a port.
pub(crate) fn in_half(port: u16) -> u16 {
    let half;
    // SAFETY: as above.
    unsafe { asm!("in ax, dx", in("dx") port, out("ax") half, options(nomem, nostack)) }
    half
}

/// Reads four bytes from a port.
pub(crate) fn in_word(port: u16) -> u32 {
    let word;
    // SAFETY: as above.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") word, options(nomem, nostack)) }
    word
}

/// DR0 to DR3.
pub(crate) fn breakpoints() -> [u64; 4] {
    let (first, second, third, fourth);
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {}, dr0", "mov {}, dr1", "mov {}, dr2", "mov {}, dr3",
            out(reg) first, out(reg) second, out(reg) third, out(reg) fourth,
            options(nomem, nostack));
    }
    [first, second, third, fourth]
}

/// Loads them. In the monitor none counts: #VMEXIT turns all off in DR7 (the manual, 15.6).
pub(crate) fn set_breakpoints([first, second, third, fourth]: [u64; 4]) {
    // SAFETY: addresses of breakpoints that are off.
    unsafe {
        asm!("mov dr0, {}", "mov dr1, {}", "mov dr2, {}", "mov dr3, {}",
            in(reg) first, in(reg) second, in(reg) third, in(reg) fourth,
            options(nomem, nostack));
    }
}

/// Writes back what caches hold.
pub(crate) fn write_back() {
    // SAFETY: changes no memory as anybody sees it.
    unsafe { asm!("wbinvd", options(nostack)) }
}

/// The time-stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: reads a register that every CPU with SVM has.
    unsafe { _rdtsc() }
}

/// Bytes from the CPU's source of randomness, which who calls has seen that there is (the manual,
/// volume 3, RDRAND: the carry flag says whether there was one).
pub(crate) fn random() -> [u8; 16] {
    let mut words = [0_u64; 2];
    for word in &mut words {
        let mut drawn: u8 = 0;
        while drawn == 0 {
            // SAFETY: writes two registers.
            unsafe {
                asm!("rdrand {0}", "setc {1}", out(reg) *word, out(reg_byte) drawn,
                    options(nomem, nostack));
            }
        }
    }
    zerocopy::transmute!(words)
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

/// Reads a model-specific register, if there is one.
pub(crate) fn try_read_msr(number: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: reading has no effect on memory but on `value`; a fault ends in 0.
    let done = unsafe { read_msr_or_not(number, &raw mut value) };
    (done != 0).then_some(value)
}

/// Writes a model-specific register; false if the CPU does not take it.
pub(crate) fn try_write_msr(number: u32, value: u64) -> bool {
    // SAFETY: what the hypervisor may write is decided in the library; a fault ends in 0.
    unsafe { write_msr_or_not(number, value) != 0 }
}

fn write_msr(number: u32, value: u64) {
    let (low, high) = (value as u32, (value >> 32) as u32);
    // SAFETY: what is written is EFER, the save area's address, or checked by the library.
    unsafe { asm!("wrmsr", in("ecx") number, in("eax") low, in("edx") high, options(nostack)) }
}

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
        save_all_states();
        write_msr(EFER, read_msr(EFER) | efer::SVME);
        write_msr(VM_HSAVE_PA, saved.bytes().as_ptr() as u64);
        // SAFETY: a whole page, which nobody else has.
        unsafe { asm!("vmsave rax", in("rax") &raw mut *host, options(nostack)) }
        Self { _saved: saved, host }
    }

    /// Runs a guest until it comes back. Its nested tables lead to no frame of this image.
    pub(crate) fn run(&mut self, vmcb: &mut Vmcb, switched: &mut Switched) {
        // SAFETY: all three are whole and ours alone; what the guest itself reaches is memory that
        // no Rust object is in.
        unsafe { run_guest(vmcb, switched, self.host) }
    }
}

/// Has XSAVE save all that the CPU has, if it has XSAVE (the manual, volume 2, 11.5). What does not
/// fit [`Extended`] is left off; nobody above can turn it on then, since XCR0 is the CPU's.
fn save_all_states() {
    const OSXSAVE: u64 = 1 << 18;
    if __cpuid(1).ecx & 1 << 26 == 0 {
        return;
    }
    let leaf = __cpuid_count(0xd, 0);
    assert!(leaf.ecx as usize <= Extended::BYTES, "the CPU's state is larger than the room for it");
    // SAFETY: the bit exists; code that saves and restores all states is in run.s.
    unsafe { Cr4::write_raw(Cr4::read_raw() | OSXSAVE) }
    let (low, high) = (leaf.eax, leaf.edx);
    // SAFETY: exactly what CPUID says that XCR0 can have.
    unsafe { asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nostack)) }
    let states = &raw mut all_states;
    // SAFETY: nothing else runs, and the assembly reads it only while guests are switched.
    unsafe { states.write(u64::from(high) << 32 | u64::from(low)) }
}

const EFER: u32 = 0xc000_0080;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// Copies something out of the first 4 GiB, where the loader left it.
pub(crate) fn copied<T: FromBytes + IntoBytes>(address: u64) -> Option<T> {
    let mut copy = T::new_zeroed();
    copy_out(address, copy.as_mut_bytes()).then_some(copy)
}

/// Copies bytes out of the first 4 GiB; false if they are not there.
pub(crate) fn copy_out(address: u64, to: &mut [u8]) -> bool {
    let end = address.checked_add(to.len() as u64);
    if address == 0 || end.is_none_or(|end| end > 1 << 32) {
        return false;
    }
    for (byte, at) in to.iter_mut().zip(address..) {
        // SAFETY: mapped, and read once.
        *byte = unsafe { (at as *const u8).read_volatile() };
    }
    true
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
    /// Whether a frame is somewhere.
    pub(crate) fn reaches(self, frame: Frame) -> bool {
        self.at(frame).is_some()
    }

    /// Where a frame is; nowhere if it is beyond the end or a part of this image.
    fn at(self, frame: Frame) -> Option<*mut u8> {
        let number = frame.number();
        let fine = number != 0 && number < self.end && !own_frames().contains(&number);
        fine.then_some((number << 12) as *mut u8)
    }
}

impl linux::Memory for Identity {
    fn copy(&mut self, from: Bytes, to: u64) {
        for offset in 0..from.size {
            let byte = ((from.address + offset) as *const u8, (to + offset) as *mut u8);
            // SAFETY: the plan keeps both out of the monitor's frames and below 4 GiB.
            let value = unsafe { byte.0.read_volatile() };
            // SAFETY: as above.
            unsafe { byte.1.write_volatile(value) }
        }
    }

    fn write(&mut self, to: u64, bytes: &[u8]) {
        for (at, byte) in (to..).zip(bytes) {
            // SAFETY: as above.
            unsafe { (at as *mut u8).write_volatile(*byte) }
        }
    }
}

/// Copies 4096 bytes, in one instruction.
///
/// # Safety
/// Both are aligned to words and whole, and do not overlap.
unsafe fn copy_frame(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's.
    unsafe {
        asm!("rep movsq", inout("rcx") ENTRIES => _, inout("rsi") from => _,
            inout("rdi") to => _, options(nostack, preserves_flags));
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
        // SAFETY: as above, and whole; a device that stores meanwhile makes bytes old or new, and
        // no Rust reference sees them.
        unsafe { copy_frame(at, to.bytes_mut().as_mut_ptr()) }
    }

    fn write(&mut self, frame: Frame, from: &Page) {
        let Some(at) = self.at(frame) else { return };
        // SAFETY: as above.
        unsafe { copy_frame(from.bytes().as_ptr(), at) }
    }

    fn wipe(&mut self, frame: Frame) {
        self.write(frame, &Page::zeroed());
    }
}

/// Wipes the stack below whoever calls: what was there, keys above all, is not there any more.
#[inline(never)]
pub(crate) fn wipe_stack() {
    // SAFETY: nothing is in use between the guard and what this very function has pushed.
    unsafe {
        asm!("lea rcx, [rsp - 256]", "sub rcx, rdi", "shr rcx, 3", "rep stosq",
            inout("rdi") (&raw const boot_stack) as u64 + 4096 => _, in("rax") 0, out("rcx") _);
    }
}

/// As many entries as a table has.
#[repr(C, align(4096))]
struct Table([u64; ENTRIES]);

/// Takes the page below the stack away: what is too deep ends in a trap, not in what lies there.
fn guard_stack() {
    static mut SPLIT: Table = Table([0; ENTRIES]);
    let guard = (&raw const boot_stack) as u64;
    let first = guard >> 21 << 21;
    let split = &raw mut SPLIT;
    for (index, page) in (first..).step_by(4096).take(ENTRIES).enumerate() {
        let entry = if page == guard { 0 } else { page | 3 };
        // SAFETY: the loader comes here once, and there is no other reference.
        unsafe { (*split).0[index] = entry }
    }
    let large = (&raw mut boot_pages).cast::<u64>().wrapping_add((guard >> 21) as usize);
    // SAFETY: the entry of the large page that the guard is in; the table says the same of all
    // other pages.
    unsafe { large.write_volatile(split as u64 | 3) }
    x86_64::instructions::tlb::flush_all();
}

/// Where the loader's entry ends up, with the address of its start info.
#[unsafe(no_mangle)]
extern "C" fn monitor_main(start_info: u32) -> ! {
    static mut TRAPS: Traps = Traps::new();
    guard_stack();
    let traps = &raw mut TRAPS;
    // SAFETY: the loader comes here once, so there is no other reference.
    crate::monitor(u64::from(start_info), unsafe { &mut *traps })
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
