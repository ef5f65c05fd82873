//! The memory map that Linux finds: the machine's, with the monitor's frames taken out of it.

use core::ops;

use heapless::Vec;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::PAGE;
use crate::start_info::Range;

/// Some addresses, and what is there (zero-page.rst, e820_table; ACPI 6.5, table 15.4).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Entry {
    /// The first address.
    pub address: U64,
    /// How many bytes.
    pub size: U64,
    /// What is there: 1 is memory, 2 is taken.
    pub kind: U32,
}

const _: () = assert!(size_of::<Entry>() == 20);

/// How many entries the zero page has room for.
pub(super) const ENTRIES_MAX: usize = 128;

/// At most as many entries as the zero page has room for.
pub type MemoryMap = Vec<Entry, ENTRIES_MAX>;

/// The map has more entries than the zero page has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyRanges;

const MEMORY: u32 = 1;
const TAKEN: u32 = 2;

/// The map of a machine of which the monitor has these frames. Of memory it says that they are
/// taken; whatever else is there stays what it is. Ranges that are empty, or that reach past the
/// last address, are left out: nothing can be at them.
///
/// # Errors
/// [`TooManyRanges`].
pub fn memory_map(ranges: &[Range], monitor: &ops::Range<u64>) -> Result<MemoryMap, TooManyRanges> {
    let monitor = monitor.start.saturating_mul(PAGE)..monitor.end.saturating_mul(PAGE);
    let mut map = MemoryMap::new();
    let mut put = |span: ops::Range<u64>, kind: u32| {
        if span.is_empty() {
            return Ok(());
        }
        let size = (span.end - span.start).into();
        let entry = Entry { address: span.start.into(), size, kind: kind.into() };
        map.push(entry).map_err(|_| TooManyRanges)
    };
    for range in ranges {
        let Some(end) = range.address.checked_add(range.size) else { continue };
        let span = range.address..end;
        if range.kind != MEMORY {
            put(span, range.kind)?;
            continue;
        }
        let taken = monitor.start.clamp(span.start, span.end)..monitor.end.min(span.end);
        if taken.is_empty() {
            put(span, MEMORY)?;
            continue;
        }
        put(span.start..taken.start, MEMORY)?;
        put(taken.clone(), TAKEN)?;
        put(taken.end..span.end, MEMORY)?;
    }
    Ok(map)
}
