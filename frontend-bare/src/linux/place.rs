//! Where kernel, initial RAM disk, command line and what belongs to them go.

use core::ops;

use heapless::Vec;

use super::start::TABLES;
use super::{Header, MAPPED_END, PAGE, TooManyRanges};
use crate::start_info::Range;

/// Some bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Where they begin.
    pub address: u64,
    /// How many they are.
    pub size: u64,
}

impl Bytes {
    /// Their addresses, if they have some.
    const fn span(self) -> Option<ops::Range<u64>> {
        match self.address.checked_add(self.size) {
            Some(end) => Some(self.address..end),
            None => None,
        }
    }
}

/// What is to be started, by where it lies now.
#[derive(Clone, Copy, Debug)]
pub struct Files {
    /// The kernel's whole file.
    pub kernel: Bytes,
    /// The initial RAM disk, if there is one.
    pub initrd: Option<Bytes>,
    /// The command line, without a zero at its end.
    pub command_line: Bytes,
}

/// The machine, as far as places go.
#[derive(Clone, Debug)]
pub struct Machine<'a> {
    /// What is where. A place is within one range of memory, and overlaps none that is not memory.
    pub ranges: &'a [Range],
    /// The frames that the monitor keeps for itself: the first, and the one behind the last.
    pub monitor: ops::Range<u64>,
}

/// Something that needs a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The kernel, with the room that it wants at first.
    Kernel,
    /// The initial RAM disk.
    Initrd,
    /// The command line.
    CommandLine,
    /// Page tables, descriptors and the zero page, and behind them the command line.
    FirstPages,
}

/// Why there is no plan. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// What is to be started lies in the monitor's frames, or past the last address.
    Source(Part),
    /// The kernel's file is shorter than it says.
    Truncated,
    /// The command line has more bytes than the kernel takes.
    CommandLine {
        /// How many it has.
        has: u64,
        /// How many it may have.
        max: u64,
    },
    /// There is no memory for it, in one piece and below 4 GiB, beside all that is there already.
    NoRoom {
        /// For what.
        part: Part,
        /// How many bytes it needs.
        size: u64,
    },
    /// The memory map is longer than Linux takes.
    TooManyRanges,
}

impl From<TooManyRanges> for NoPlace {
    fn from(_: TooManyRanges) -> Self {
        Self::TooManyRanges
    }
}

/// Where all goes. No two places overlap, none overlaps the monitor or where something is copied
/// from, and all are below 4 GiB; so copies may be made in any order. Only [`Plan::of`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Where the kernel goes, without its setup part.
    pub kernel: Bytes,
    /// Where the initial RAM disk goes. It may be where it is already.
    pub initrd: Option<Bytes>,
    /// Where the first of the page tables goes; the others are behind it.
    pub tables: u64,
    /// Where the descriptor table goes: a page, which the first stack is at the end of.
    pub descriptors: u64,
    /// Where the zero page goes.
    pub zero_page: u64,
    /// Where the command line goes, with a zero behind it.
    pub command_line: u64,
    /// Where they are copied from.
    pub(super) from: [Bytes; 3],
}

/// What is below is the firmware's or of an age in which Linux looks at it first.
const LOWEST: u64 = 0x1_0000;

/// Kernels are above the hole that the firmware keeps below 1 MiB.
const LOWEST_KERNEL: u64 = 0x10_0000;

impl Plan {
    /// Decides where all goes: the kernel at the first place from its preferred address on, or
    /// from 1 MiB on if it can be moved; the initial RAM disk where it is, or as high as it may;
    /// the rest as low as possible.
    ///
    /// # Errors
    /// [`NoPlace`].
    pub fn of(header: &Header, files: &Files, machine: &Machine<'_>) -> Result<Self, NoPlace> {
        let mut room = Room::new(machine);
        let code = room.code(header, files.kernel)?;
        let command_line = files.command_line;
        let max = header.command_line_max();
        if command_line.size > max {
            return Err(NoPlace::CommandLine { has: command_line.size, max });
        }
        room.avoid(Part::CommandLine, command_line)?;
        let initrd = files.initrd.filter(|file| file.size > 0);
        if let Some(file) = initrd {
            room.avoid(Part::Initrd, file)?;
        }
        let kernel = room.kernel(header, code)?;
        let first = room.first_pages(command_line)?;
        let none = Bytes { address: 0, size: 0 };
        Ok(Self {
            kernel: Bytes { address: kernel, size: code.size },
            initrd: initrd.map(|file| room.initrd(header, file)).transpose()?,
            tables: first,
            descriptors: first + TABLES * PAGE,
            zero_page: first + (TABLES + 1) * PAGE,
            command_line: first + (TABLES + 2) * PAGE,
            from: [code, initrd.unwrap_or(none), command_line],
        })
    }
}

/// What is free.
struct Room<'a> {
    machine: &'a Machine<'a>,
    /// The monitor, where things are copied from, and what got a place.
    taken: Vec<ops::Range<u64>, 8>,
}

impl<'a> Room<'a> {
    fn new(machine: &'a Machine<'a>) -> Self {
        let mut room = Self { machine, taken: Vec::new() };
        room.take(room.monitor());
        room
    }

    fn monitor(&self) -> ops::Range<u64> {
        let frames = &self.machine.monitor;
        frames.start.saturating_mul(PAGE)..frames.end.saturating_mul(PAGE)
    }

    fn take(&mut self, span: ops::Range<u64>) {
        let kept = self.taken.push(span);
        debug_assert!(kept.is_ok(), "there are six at most");
    }

    /// Keeps places away from where something is copied from.
    fn avoid(&mut self, part: Part, source: Bytes) -> Result<(), NoPlace> {
        let span = source.span().ok_or(NoPlace::Source(part))?;
        if overlap(&span, &self.monitor()) {
            return Err(NoPlace::Source(part));
        }
        self.take(span);
        Ok(())
    }

    /// The part of a kernel's file that runs.
    fn code(&mut self, header: &Header, file: Bytes) -> Result<Bytes, NoPlace> {
        self.avoid(Part::Kernel, file)?;
        let setup = header.setup_size();
        if file.size <= setup || file.size < header.file_size_min() {
            return Err(NoPlace::Truncated);
        }
        Ok(Bytes { address: file.address + setup, size: file.size - setup })
    }

    fn kernel(&mut self, header: &Header, code: Bytes) -> Result<u64, NoPlace> {
        let size = header.init_size().max(code.size);
        let (preferred, alignment) = (header.preferred(), header.alignment().max(PAGE));
        let place = if header.is_relocatable() {
            let lowest = |from| self.lowest(size, from, alignment);
            lowest(preferred.max(LOWEST_KERNEL)).or_else(|| lowest(LOWEST_KERNEL))
        } else {
            self.lowest(size, preferred, 1).filter(|place| *place == preferred)
        };
        self.settle(Part::Kernel, place, size)
    }

    fn first_pages(&mut self, command_line: Bytes) -> Result<u64, NoPlace> {
        // Behind the command line there is a zero.
        let size = (TABLES + 2 + command_line.size / PAGE + 1) * PAGE;
        let place = self.lowest(size, LOWEST, PAGE);
        self.settle(Part::FirstPages, place, size)
    }

    fn initrd(&mut self, header: &Header, file: Bytes) -> Result<Bytes, NoPlace> {
        let source = NoPlace::Source(Part::Initrd);
        let size = file.size.checked_next_multiple_of(PAGE).ok_or(source)?;
        let whole = file.address..file.address.checked_add(size).ok_or(source)?;
        let end = header.initrd_end_max().min(MAPPED_END);
        let address = if whole.end <= end && self.may_stay(file, &whole) {
            file.address
        } else {
            let place = self.highest(size, end);
            self.settle(Part::Initrd, place, size)?
        };
        Ok(Bytes { address, size: file.size })
    }

    fn settle(&mut self, part: Part, place: Option<u64>, size: u64) -> Result<u64, NoPlace> {
        let place = place.ok_or(NoPlace::NoRoom { part, size })?;
        self.take(place..place + size);
        Ok(place)
    }

    /// Whether the initial RAM disk may be used where it is, up to the end of its last page. Of
    /// what is taken so far none overlaps the file; what is behind it must be free, too.
    fn may_stay(&self, file: Bytes, whole: &ops::Range<u64>) -> bool {
        let in_memory = |span: ops::Range<u64>| span.start <= whole.start && whole.end <= span.end;
        file.address.is_multiple_of(PAGE)
            && self.memory().any(in_memory)
            && self.others().all(|span| !overlap(&span, whole))
            && self.obstacle(&(file.address + file.size..whole.end)).is_none()
    }

    /// The lowest free place from an address on.
    fn lowest(&self, size: u64, from: u64, alignment: u64) -> Option<u64> {
        let within = |span: ops::Range<u64>| {
            let mut place = span.start.max(from);
            // Each round leaves an obstacle behind.
            loop {
                place = place.checked_next_multiple_of(alignment)?;
                let end = place.checked_add(size)?;
                if end > span.end {
                    return None;
                }
                match self.obstacle(&(place..end)) {
                    Some(obstacle) => place = obstacle.end,
                    None => return Some(place),
                }
            }
        };
        self.memory().filter_map(within).min()
    }

    /// The highest free place before an address, at a page's beginning.
    fn highest(&self, size: u64, before: u64) -> Option<u64> {
        let within = |span: ops::Range<u64>| {
            let mut end = span.end.min(before);
            // The same from above.
            loop {
                let place = end.checked_sub(size)? / PAGE * PAGE;
                if place < span.start.max(LOWEST) {
                    return None;
                }
                match self.obstacle(&(place..place + size)) {
                    Some(obstacle) => end = obstacle.start,
                    None => return Some(place),
                }
            }
        };
        self.memory().filter_map(within).max()
    }

    /// Memory that the first page tables map.
    fn memory(&self) -> impl Iterator<Item = ops::Range<u64>> {
        let spans = self.spans(|kind| kind == 1);
        spans.map(|span| span.start..span.end.min(MAPPED_END))
    }

    /// What is not memory: it may be listed within memory all the same.
    fn others(&self) -> impl Iterator<Item = ops::Range<u64>> {
        self.spans(|kind| kind != 1)
    }

    fn spans(&self, kind: fn(u32) -> bool) -> impl Iterator<Item = ops::Range<u64>> {
        let ranges = self.machine.ranges.iter().filter(move |range| kind(range.kind));
        ranges.filter_map(|range| Bytes { address: range.address, size: range.size }.span())
    }

    fn obstacle(&self, place: &ops::Range<u64>) -> Option<ops::Range<u64>> {
        self.others().chain(self.taken.iter().cloned()).find(|span| overlap(span, place))
    }
}

const fn overlap(one: &ops::Range<u64>, other: &ops::Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
