//! The parts of a monitor beneath an unmodified hypervisor, on AMD SVM with nested paging: what can
//! be tested without a machine.
//!
//! It decides nothing about pages: that is view-core's. It reaches memory through
//! [`memory::HostMemory`] alone and has no unsafe code, no heap and no clock.

#![no_std]

pub mod acpi;
pub mod calls;
pub mod ciphers;
pub mod context;
pub mod cpuid;
pub mod desk;
pub mod entry_check;
pub mod exit_code;
pub mod general;
pub mod guest_walk;
pub mod hypervisor_table;
pub mod instruction;
pub mod launched;
pub mod linux;
pub mod machine;
pub mod memory;
pub mod monitor;
pub mod msr;
mod own_answer;
pub mod payload;
pub mod permission_map;
pub mod platform;
pub mod pool;
pub mod ports;
mod row;
pub mod start_info;
pub mod stopped;
pub mod switched;
pub mod table;
pub mod veiled;
pub mod views;
pub mod vmcb;
