//! How an unmodified Linux begins above the monitor: by the 64-bit boot protocol of x86.
//!
//! Source: Linux, Documentation/arch/x86/boot.rst ("the protocol" in this module) and
//! zero-page.rst. The bytes of kernel, initial RAM disk and command line are somewhere in memory,
//! and nobody vouches for them. [`Header::of`] reads what the kernel says of itself, [`Plan::of`]
//! decides where all goes, and [`Plan::carry_out`] puts it there and says in which state the CPU
//! begins. None of it touches the monitor's own frames, and the memory map that Linux finds says
//! that they are taken.
//!
//! All that Linux is given lies below 4 GiB: so far reach the page tables that it begins with.

mod header;
mod memory_map;
mod place;
mod start;
mod zero_page;

pub use header::{Header, NotLinux};
pub use memory_map::{Entry, MemoryMap, TooManyRanges, memory_map};
pub use place::{Bytes, Files, Machine, NoPlace, Part, Plan};
pub use start::{Memory, Start};
pub use zero_page::ZeroPage;

/// Bytes in a page.
const PAGE: u64 = view_core::PAGE_SIZE as u64;

/// The end of what the first page tables map: 4 GiB.
const MAPPED_END: u64 = 1 << 32;
