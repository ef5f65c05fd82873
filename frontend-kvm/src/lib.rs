//! Runs guests on Linux KVM: the floor that the core's platform stands on.
//!
//! It makes a VM, boots the toy guest, turns exits and doorbells into events, switches and
//! protects single pages under a running guest, and saves and loads vCPUs. It decides nothing about
//! pages, and it seals nothing.
//!
//! What is guaranteed: nothing that a guest does reaches more than its own memory and the handler's
//! typed events. What is assumed: the host's kernel is honest, and so is who has our descriptors.

#[path = "../guest/abi.rs"]
pub mod abi;
pub mod control;
mod error;
pub mod exit;
pub mod guest;
pub mod harden;
pub mod image_file;
pub mod jail;
pub mod machine;
pub mod memory;
pub mod plain;
pub mod socket;
pub mod state;
pub mod sys;
pub mod trusted;
pub mod uffd;
mod vcpu;

pub use error::SysError;
pub use exit::{Crash, Doorbell, Flaw, GuestEvent, Malformed, RawExit};
pub use guest::{Mode, Program};
pub use machine::{Handler, Kvm, Machine, MachineError, OnFault, Reply, Unusable};
pub use memory::{GuestMemory, MemoryError};
pub use state::{StateError, VcpuState};
pub use vcpu::VcpuStatus;
