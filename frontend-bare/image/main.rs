//! The monitor's image: boots by the PVH protocol, looks at the machine, refuses what it cannot
//! protect, and shows on itself what it is for.

#![no_std]
#![no_main]

mod console;
mod guards;
mod self_test;
mod sys;

use console::{Ending, exit, say};
use frontend_bare::vmcb::Vmcb;
use sys::{Cpu, Identity, own_frames};
use view_core::Page;

/// Where Rust begins. The start info is the loader's.
fn monitor(start_info: u64) -> ! {
    let memory = match guards::look(start_info) {
        Ok(machine) => {
            say(format_args!("monitor: {machine}"));
            Identity { end: machine.end }
        }
        Err(reason) => {
            say(format_args!("monitor: refuses: {reason}"));
            exit(Ending::Refused);
        }
    };
    let (mut saved, mut host) = (Page::zeroed(), Vmcb::zeroed());
    let mut cpu = Cpu::new(&mut saved, &mut host);
    match self_test::run(&mut cpu, memory, own_frames().end) {
        Ok(()) => exit(Ending::Passed),
        Err(what) => {
            say(format_args!("monitor: FAILED: {what}"));
            exit(Ending::Failed);
        }
    }
}
