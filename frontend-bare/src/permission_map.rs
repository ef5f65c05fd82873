//! The maps by which ports and MSRs are intercepted, one bit for each (the manual, 15.10 and
//! 15.11).
//!
//! A guest runs under the union of two maps: what the hypervisor wants to see, and what the
//! [monitor insists on](insisted). So no bit of the hypervisor's takes one of the monitor's away.
//! No CPU runs under a union while it is made.

use core::fmt;
use core::ops::Range;

use view_core::{Frame, PAGE_SIZE, Page};

use crate::memory::HostMemory;

pub mod insisted;

/// How many bits a page of a map has.
const PAGE_BITS: usize = PAGE_SIZE * 8;

/// How many bits an entry of a table has, as which words of memory are read.
const WORD_BITS: usize = u64::BITS as usize;

/// How many MSRs each of the three ranges has.
const MSRS: u32 = 0x2000;

/// Where the three ranges begin (the manual, 15.11, table of ranges).
const MSR_RANGES: [u32; 3] = [0, 0xc000_0000, 0xc001_0000];

/// Bits in whole pages.
#[repr(transparent)]
struct Bits<const PAGES: usize>([Page; PAGES]);

impl<const PAGES: usize> Bits<PAGES> {
    const fn empty() -> Self {
        Self([const { Page::zeroed() }; PAGES])
    }

    fn has(&self, bit: usize) -> bool {
        self.0[bit / PAGE_BITS].bytes()[bit % PAGE_BITS / 8] & 1 << (bit % 8) != 0
    }

    fn set(&mut self, bit: usize) {
        self.0[bit / PAGE_BITS].bytes_mut()[bit % PAGE_BITS / 8] |= 1 << (bit % 8);
    }

    /// One page at a time: read out of memory, and never looked at there again.
    fn join(&mut self, insisted: &Self, memory: &impl HostMemory, first: Frame) {
        for (index, (page, ours)) in self.0.iter_mut().zip(&insisted.0).enumerate() {
            match Frame::new(first.number() + index as u64) {
                Ok(frame) => memory.read(frame, page),
                Err(_) => page.bytes_mut().fill(u8::MAX),
            }
            for (byte, more) in page.bytes_mut().iter_mut().zip(ours.bytes()) {
                *byte |= more;
            }
        }
    }
}

/// Whether a bit is set in the map that begins with this frame. What has no number is.
fn is_set(memory: &impl HostMemory, first: Frame, bit: usize) -> bool {
    let frame = Frame::new(first.number() + (bit / PAGE_BITS) as u64);
    let word = |frame| memory.entry(frame, bit % PAGE_BITS / WORD_BITS);
    frame.map_or(true, |frame| word(frame) & 1 << (bit % WORD_BITS) != 0)
}

/// The map of ports: a bit for each byte of the space of ports, and three more for accesses that
/// begin at its end (the manual, 15.10.1).
#[repr(transparent)]
pub struct IoMap(Bits<{ Self::PAGES }>);

/// An access to ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoAccess {
    /// The first port.
    pub port: u16,
    /// How many ports it touches.
    pub width: IoWidth,
}

/// How many bytes go through a port at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IoWidth {
    /// One byte.
    One = 1,
    /// Two bytes.
    Two = 2,
    /// Four bytes.
    Four = 4,
}

impl IoAccess {
    /// The access that an exit for ports speaks of in EXITINFO1; `None` if that is none (the
    /// manual, 15.10.2).
    pub const fn from_exit_info(info: u64) -> Option<Self> {
        let width = match info >> 4 & 7 {
            1 => IoWidth::One,
            2 => IoWidth::Two,
            4 => IoWidth::Four,
            _ => return None,
        };
        Some(Self { port: (info >> 16) as u16, width })
    }

    /// The places of its bits.
    fn bits(self) -> Range<usize> {
        let first = usize::from(self.port);
        first..first + self.width as usize
    }

    /// Whether the hypervisor, whose map is in these frames, wants to see this access. It may have
    /// changed its mind since the union was made; what the monitor insists on it cannot change.
    pub fn is_wanted(self, memory: &impl HostMemory, first: Frame) -> bool {
        self.bits().any(|bit| is_set(memory, first, bit))
    }
}

impl IoMap {
    /// How many pages it has.
    pub const PAGES: usize = 3;

    /// No port is intercepted.
    pub const fn empty() -> Self {
        Self(Bits::empty())
    }

    /// Whether an access is intercepted: so it is if any port that it touches is.
    pub fn intercepts(&self, access: IoAccess) -> bool {
        access.bits().any(|bit| self.0.has(bit))
    }

    /// Intercepts a port.
    pub fn insist(&mut self, port: u16) {
        self.0.set(usize::from(port));
    }

    /// Becomes the union of the hypervisor's map, read from these frames on, and of the monitor's.
    /// A frame without a number counts as one in which everything is intercepted.
    pub fn join(&mut self, insisted: &Self, memory: &impl HostMemory, first: Frame) {
        self.0.join(&insisted.0, memory, first);
    }

    /// The bytes.
    pub const fn pages(&self) -> &[Page; Self::PAGES] {
        &self.0.0
    }
}

impl fmt::Debug for IoMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IoMap(..)")
    }
}

/// The map of MSRs: two bits for each in three ranges, for reads and for writes (the manual,
/// 15.11).
#[repr(transparent)]
pub struct MsrMap(Bits<{ Self::PAGES }>);

/// An access to an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsrAccess {
    /// Which one.
    pub msr: u32,
    /// Whether it is written.
    pub write: bool,
}

impl MsrAccess {
    /// The place of its bit; `None` outside the three ranges.
    fn bit(self) -> Option<usize> {
        let range = MSR_RANGES.iter().position(|first| self.msr & !(MSRS - 1) == *first)?;
        let number = range * MSRS as usize + (self.msr % MSRS) as usize;
        Some(number * 2 + usize::from(self.write))
    }

    /// Whether the hypervisor, whose map is in these frames, wants to see this access. It may have
    /// changed its mind since the union was made; what the monitor insists on it cannot change.
    pub fn is_wanted(self, memory: &impl HostMemory, first: Frame) -> bool {
        self.bit().is_none_or(|bit| is_set(memory, first, bit))
    }
}

impl MsrMap {
    /// How many pages it has.
    pub const PAGES: usize = 2;

    /// No MSR within the three ranges is intercepted.
    pub const fn empty() -> Self {
        Self(Bits::empty())
    }

    /// Whether an access is intercepted. Outside the three ranges every one is.
    pub fn intercepts(&self, access: MsrAccess) -> bool {
        access.bit().is_none_or(|bit| self.0.has(bit))
    }

    /// Intercepts an access.
    pub fn insist(&mut self, access: MsrAccess) {
        if let Some(bit) = access.bit() {
            self.0.set(bit);
        }
    }

    /// Becomes the union of the hypervisor's map, read from these frames on, and of the monitor's.
    /// A frame without a number counts as one in which everything is intercepted.
    pub fn join(&mut self, insisted: &Self, memory: &impl HostMemory, first: Frame) {
        self.0.join(&insisted.0, memory, first);
    }

    /// The bytes.
    pub const fn pages(&self) -> &[Page; Self::PAGES] {
        &self.0.0
    }
}

impl fmt::Debug for MsrMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MsrMap(..)")
    }
}

const _: () = assert!(size_of::<IoMap>() == 0x3000);
const _: () = assert!(size_of::<MsrMap>() == 0x2000);
const _: () = assert!(align_of::<IoMap>() == PAGE_SIZE);
const _: () = assert!(align_of::<MsrMap>() == PAGE_SIZE);
