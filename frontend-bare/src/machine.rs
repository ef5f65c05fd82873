//! What the monitor asks of the machine below, beside memory: its own image does this for real, and
//! tests play it.
//!
//! The monitor's own memory is mapped to itself, so that the address of something of it is where
//! the CPU finds it.

use core::fmt;

use view_core::{Frame, Page};

use crate::memory::Host;
use crate::permission_map::IoAccess;

/// A machine with one CPU, which is in the monitor.
pub trait Machine: Host {
    /// Whether a frame is the monitor's own: of its image, or of what it keeps for tables.
    fn is_own(&self, frame: Frame) -> bool;
    /// Whether the monitor itself can read and write a frame. What it cannot wipe backs no page.
    fn reaches(&self, frame: Frame) -> bool;
    /// What the CPU says of itself.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Reads an MSR; `None` if the CPU raises an exception instead.
    fn read_msr(&mut self, msr: u32) -> Option<u64>;
    /// Writes an MSR; false if the CPU raises an exception instead.
    fn write_msr(&mut self, msr: u32, value: u64) -> bool;
    /// DR0 to DR3, which VMRUN does not switch.
    fn breakpoints(&self) -> [u64; 4];
    /// Loads DR0 to DR3.
    fn set_breakpoints(&mut self, addresses: [u64; 4]);
    /// Writes back all that caches hold, and empties them.
    fn write_back(&mut self);
    /// Reads from a device.
    fn read_port(&mut self, access: IoAccess) -> u32;
    /// Writes to a device.
    fn write_port(&mut self, access: IoAccess, value: u32);
    /// The time-stamp counter.
    fn ticks(&self) -> u64;
    /// Bytes that nobody can guess.
    fn random(&mut self) -> [u8; 16];
    /// A line for whoever looks at the machine's console.
    fn say(&mut self, line: fmt::Arguments<'_>);
    /// Moves what was [sent](Host::send) last to where it can be used; false if nothing was.
    fn take_sent(&mut self, to: &mut Page) -> bool;
    /// Whether the CPU has to forget what it remembers of nested tables before anybody runs; says
    /// so once.
    fn take_flush(&mut self) -> bool;
}
