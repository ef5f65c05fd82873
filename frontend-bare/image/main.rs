//! The monitor's image: boots by the PVH protocol, looks at the machine, refuses what it cannot
//! protect, and shows on itself what it is for.

#![no_std]
#![no_main]

mod below;
mod console;
mod guards;
mod self_test;
mod start;
mod sys;

use console::{Ending, exit, say};
use frontend_bare::monitor::End;
use frontend_bare::vmcb::Vmcb;
use sys::{Cpu, Identity, Traps, own_frames};
use view_core::Page;

/// Where Rust begins. The start info is the loader's.
fn monitor(start_info: u64, traps: &'static mut Traps) -> ! {
    traps.load();
    let machine = match guards::look(start_info) {
        Ok(machine) => {
            say(format_args!("monitor: {machine}"));
            machine
        }
        Err(reason) => {
            say(format_args!("monitor: refuses: {reason}"));
            exit(Ending::Refused);
        }
    };
    let (mut saved, mut host) = (Page::zeroed(), Vmcb::zeroed());
    let mut cpu = Cpu::new(&mut saved, &mut host);
    let tested = match start::module(&machine.info) {
        Some(module) => match start::run(&mut cpu, (&machine.info, &module), &machine) {
            Ok(end) => {
                // All guests are scrubbed; what is left is the monitor itself.
                sys::wipe_stack();
                match end {
                    End::Shutdown | End::Reset | End::Off => Ok(()),
                    End::Invalid | End::Unexpected(_) => Err("it does not know how to go on"),
                }
            }
            Err(reason) => {
                say(format_args!("monitor: refuses: {reason}"));
                exit(Ending::Refused);
            }
        },
        None => self_test::run(&mut cpu, Identity { end: machine.end }, own_frames().end),
    };
    match tested {
        Ok(()) => exit(Ending::Passed),
        Err(what) => {
            say(format_args!("monitor: FAILED: {what}"));
            exit(Ending::Failed);
        }
    }
}
