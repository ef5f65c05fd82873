//! The core of Pageveil: it decides, the platform acts, the core commits.
#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]
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
mod batch;
mod claim;
pub mod image;
pub mod key;
pub mod mask;
mod owner;
pub mod page;
pub mod page_table;
pub mod perm;
mod platform;
pub mod registers;
mod slot;
mod state;
pub mod suite;
mod sync;
mod vm;
pub mod whitelist;
mod wrong;

pub use addr::{Epoch, Frame, Gfn, OutOfRange, Version, VmId, VmNumber};
pub use batch::{Batch, Progress, Receipt, Receipts};
pub use claim::{Claim, Plan};
pub use mask::{Field, Mask, NoSuchMask, PastPage, show_fields};
pub use owner::{Frames, NotYours, Owner, Ownership};
pub use page::{PAGE_SIZE, Page};
pub use perm::{MaskId, PageKind, Perm};
pub use platform::{Copies, OpenStep, Place, Platform, SealStep, Source, Target, View, What};
pub use slot::{Entry, Slot};
pub use state::{Act, PageState, Refused, Request};
pub use vm::{BadTable, NotRunnable, Unclaimed, Vm, VmConfig};
#[cfg(feature = "wrong-cores")]
pub use wrong::WrongCore;
