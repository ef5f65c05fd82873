//! The machine below the monitor, as the library asks for it.

use core::arch::x86_64::__cpuid_count;
use core::fmt;
use core::ops::Range;

use frontend_bare::machine::Machine;
use frontend_bare::memory::{Host, HostMemory};
use frontend_bare::permission_map::{IoAccess, IoWidth};
use view_core::{Frame, Page, Target};

use crate::console::say;
use crate::sys::{self, Identity};

/// This machine.
pub(crate) struct Below {
    memory: Identity,
    /// The monitor's frames: its image, and behind it those for tables.
    own: Range<u64>,
    /// Nobody runs before the CPU has forgotten.
    flush_due: bool,
    sent: Page,
    has_sent: bool,
}

impl Below {
    pub(crate) const fn new(memory: Identity, own: Range<u64>) -> Self {
        Self { memory, own, flush_due: true, sent: Page::zeroed(), has_sent: false }
    }
}

impl HostMemory for Below {
    fn entry(&self, table: Frame, index: usize) -> u64 {
        self.memory.entry(table, index)
    }

    fn set_entry(&mut self, table: Frame, index: usize, entry: u64) {
        self.memory.set_entry(table, index, entry);
    }

    fn read(&self, frame: Frame, to: &mut Page) {
        self.memory.read(frame, to);
    }

    fn write(&mut self, frame: Frame, from: &Page) {
        self.memory.write(frame, from);
    }

    fn wipe(&mut self, frame: Frame) {
        self.memory.wipe(frame);
    }
}

impl Host for Below {
    fn flush(&mut self) {
        self.flush_due = true;
    }

    fn send(&mut self, _: &Target, sealed: &Page) -> bool {
        self.sent.clone_from(sealed);
        self.has_sent = true;
        true
    }
}

impl Machine for Below {
    fn is_own(&self, frame: Frame) -> bool {
        self.own.contains(&frame.number())
    }

    fn reaches(&self, frame: Frame) -> bool {
        self.memory.reaches(frame)
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let answer = __cpuid_count(leaf, subleaf);
        [answer.eax, answer.ebx, answer.ecx, answer.edx]
    }

    fn read_msr(&mut self, msr: u32) -> Option<u64> {
        sys::try_read_msr(msr)
    }

    fn write_msr(&mut self, msr: u32, value: u64) -> bool {
        sys::try_write_msr(msr, value)
    }

    fn breakpoints(&self) -> [u64; 4] {
        sys::breakpoints()
    }

    fn set_breakpoints(&mut self, addresses: [u64; 4]) {
        sys::set_breakpoints(addresses);
    }

    fn write_back(&mut self) {
        sys::write_back();
    }

    fn read_port(&mut self, IoAccess { port, width }: IoAccess) -> u32 {
        match width {
            IoWidth::One => sys::in_byte(port).into(),
            IoWidth::Two => sys::in_half(port).into(),
            IoWidth::Four => sys::in_word(port),
        }
    }

    fn write_port(&mut self, IoAccess { port, width }: IoAccess, value: u32) {
        match width {
            IoWidth::One => sys::out_byte(port, value as u8),
            IoWidth::Two => sys::out_half(port, value as u16),
            IoWidth::Four => sys::out_word(port, value),
        }
    }

    fn ticks(&self) -> u64 {
        sys::ticks()
    }

    fn random(&mut self) -> [u8; 16] {
        sys::random()
    }

    fn say(&mut self, line: fmt::Arguments<'_>) {
        say(line);
    }

    fn take_sent(&mut self, to: &mut Page) -> bool {
        to.clone_from(&self.sent);
        core::mem::take(&mut self.has_sent)
    }

    fn take_flush(&mut self) -> bool {
        core::mem::take(&mut self.flush_due)
    }
}
