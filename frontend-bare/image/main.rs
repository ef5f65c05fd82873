//! The monitor's image: boots by the PVH protocol, looks at the machine, and refuses what it cannot
//! protect.

#![no_std]
#![no_main]

mod console;
mod guards;
mod sys;

use console::{Ending, exit, say};

/// Where Rust begins. The start info is the loader's.
fn monitor(start_info: u64) -> ! {
    say(format_args!("monitor: begins, start info at {start_info:#x}"));
    match guards::look() {
        Ok(machine) => say(format_args!("monitor: {machine}")),
        Err(reason) => {
            say(format_args!("monitor: refuses: {reason}"));
            exit(Ending::Refused);
        }
    }
    exit(Ending::Passed)
}
