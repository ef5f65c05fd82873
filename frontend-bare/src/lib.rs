//! The parts of a monitor beneath an unmodified hypervisor, on AMD SVM with nested paging: what can
//! be tested without a machine.
//!
//! It decides nothing about pages: that is view-core's. It reaches memory through
//! [`memory::HostMemory`] alone and has no unsafe code, no heap and no clock.

#![no_std]

pub mod ciphers;
pub mod desk;
pub mod entry_check;
pub mod exit_code;
pub mod general;
pub mod hypervisor_table;
pub mod linux;
pub mod machine;
pub mod memory;
pub mod monitor;
pub mod payload;
pub mod permission_map;
pub mod platform;
pub mod pool;
pub mod start_info;
pub mod switched;
pub mod table;
pub mod veiled;
pub mod views;
pub mod vmcb;
