//! The host's memory, by frames: the only way in which this crate touches any.
//!
//! Nothing is ever lent. Guests and the hypervisor go on running on other CPUs, and a Rust
//! reference to bytes that somebody else changes is undefined behaviour; so bytes are copied once,
//! out of memory and into it.

use view_core::{Frame, Page, Target};

/// How many entries a table has.
pub const ENTRIES: usize = 512;

/// Memory that the monitor can reach. Frames that are not there read as zeroes and swallow what is
/// written: no frame number comes from outside unchecked.
pub trait HostMemory {
    /// One entry of a table; `index` is below [`ENTRIES`].
    fn entry(&self, table: Frame, index: usize) -> u64;
    /// Changes one entry of a table, in one store.
    fn set_entry(&mut self, table: Frame, index: usize, entry: u64);
    /// Copies a frame's bytes out.
    fn read(&self, frame: Frame, to: &mut Page);
    /// Copies bytes into a frame.
    fn write(&mut self, frame: Frame, from: &Page);
    /// Fills a frame with zeroes.
    fn wipe(&mut self, frame: Frame);
}

/// What the machine below has to do beside keeping memory.
pub trait Host: HostMemory {
    /// On return no CPU acts on anything that it remembers of nested tables, for whichever guest.
    /// A CPU that is in the monitor may as well forget on its way out.
    fn flush(&mut self);

    /// Takes a sealed page that was asked for; false if nobody asked.
    fn send(&mut self, page: &Target, sealed: &Page) -> bool;
}
