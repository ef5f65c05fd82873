//! The parts of a monitor beneath an unmodified hypervisor, on AMD SVM with nested paging: what can
//! be tested without a machine.
//!
//! It decides nothing about pages: that is view-core's. It reaches memory through
//! [`memory::HostMemory`] alone and has no unsafe code, no heap and no clock.

#![no_std]

pub mod acpi;
pub mod ciphers;
pub mod cpuid;
pub mod entry_check;
pub mod exit_code;
pub mod linux;
pub mod memory;
pub mod permission_map;
pub mod platform;
pub mod pool;
pub mod start_info;
pub mod table;
pub mod views;
pub mod vmcb;
