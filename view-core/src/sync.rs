//! The one atomic type of the core; loom's under `--cfg loom`, so that the shipped protocol is
//! what the model checker explores.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
