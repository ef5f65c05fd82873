//! The core of Pageveil: it decides, the platform acts, the core commits.
#![no_std]
#![forbid(unsafe_code)]
#![warn(
    clippy::alloc_instead_of_core,
    clippy::std_instead_of_core,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::float_arithmetic
)]

pub mod addr;
pub mod page;
pub mod perm;
pub mod suite;

pub use addr::{Epoch, Frame, Gfn, OutOfRange, Version, VmId, VmNumber};
pub use page::{PAGE_SIZE, Page};
pub use perm::{MaskId, PageKind, Perm};
