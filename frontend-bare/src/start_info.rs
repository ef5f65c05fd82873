//! What the loader of the PVH boot protocol leaves behind: above all, where there is memory.
//!
//! Layout: Xen, public/arch-x86/hvm/start_info.h. The loader is trusted as the monitor's own image
//! is, and it is checked all the same: what does not add up is refused before anything is built on
//! it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The fixed part, version 1.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    /// How many files came along.
    pub modules: u32,
    /// Where they are listed, as [`Module`]s.
    pub module_list: u64,
    /// Where the command line is, or 0.
    pub command_line: u64,
    /// Where ACPI begins, or 0.
    pub rsdp: u64,
    /// Where the memory map is, as [`Range`]s.
    pub memory_map: u64,
    /// How many ranges it has.
    pub memory_ranges: u32,
    reserved: u32,
}

/// A file that came along.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Module {
    /// Where it is.
    pub address: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Where its command line is, or 0.
    pub command_line: u64,
    reserved: u64,
}

/// Some addresses, and what is there.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Range {
    /// The first address.
    pub address: u64,
    /// How many bytes.
    pub size: u64,
    /// What is there, as in ACPI's table of ranges: 1 is memory.
    pub kind: u32,
    reserved: u32,
}

const _: () = assert!(size_of::<StartInfo>() == 56);
const _: () = assert!(size_of::<Module>() == 32);
const _: () = assert!(size_of::<Range>() == 24);

/// Why a start info is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStartInfo {
    /// It does not begin with the magic number.
    Magic(u32),
    /// It has no memory map: that came with version 1.
    Version(u32),
    /// There is no memory map, or more of it than [`RANGES_MAX`].
    Ranges(u32),
}

const MAGIC: u32 = 0x336e_c578;

/// More ranges than any firmware was seen to give.
pub const RANGES_MAX: u32 = 128;

impl StartInfo {
    /// Refuses a start info of another magic or version, or without ranges of memory.
    ///
    /// # Errors
    /// [`NoStartInfo`].
    pub const fn checked(self) -> Result<Self, NoStartInfo> {
        if self.magic != MAGIC {
            return Err(NoStartInfo::Magic(self.magic));
        }
        if self.version == 0 {
            return Err(NoStartInfo::Version(self.version));
        }
        if self.memory_map == 0 || self.memory_ranges == 0 || self.memory_ranges > RANGES_MAX {
            return Err(NoStartInfo::Ranges(self.memory_ranges));
        }
        Ok(self)
    }
}

impl Range {
    /// A range of this kind.
    pub const fn new(address: u64, size: u64, kind: u32) -> Self {
        Self { address, size, kind, reserved: 0 }
    }

    /// The frames that are wholly in it, if it is memory: from the first to the one behind the
    /// last.
    pub const fn frames(&self) -> Option<core::ops::Range<u64>> {
        let Some(end) = self.address.checked_add(self.size) else { return None };
        let (first, end) = (self.address.div_ceil(4096), end / 4096);
        if self.kind == 1 && first < end { Some(first..end) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(magic: u32, version: u32, memory_ranges: u32) -> Result<StartInfo, NoStartInfo> {
        let zero = StartInfo::read_from_bytes(&[0; 56]).expect("as many bytes as it has");
        StartInfo { magic, version, memory_map: 0x1000, memory_ranges, ..zero }.checked()
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        assert!(info(MAGIC, 1, 3).is_ok());
        assert_eq!(info(1, 1, 3).unwrap_err(), NoStartInfo::Magic(1));
        assert_eq!(info(MAGIC, 0, 3).unwrap_err(), NoStartInfo::Version(0));
        assert_eq!(info(MAGIC, 1, 0).unwrap_err(), NoStartInfo::Ranges(0));
        assert_eq!(info(MAGIC, 1, RANGES_MAX + 1).unwrap_err(), NoStartInfo::Ranges(129));
    }

    #[test]
    fn a_range_has_the_frames_that_are_wholly_in_it() {
        let range = |address, size, kind| Range::new(address, size, kind).frames();
        assert_eq!(range(0x1000, 0x3000, 1), Some(1..4));
        assert_eq!(range(0x1001, 0x3000, 1), Some(2..4));
        assert_eq!(range(0x1001, 0x1ffe, 1), None);
        assert_eq!(range(0x1000, 0x3000, 2), None, "reserved");
        assert_eq!(range(u64::MAX - 1, 2, 1), None, "past the end of addresses");
    }
}
