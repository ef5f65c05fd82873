//! What the first program of a Linux does: file systems, modules, power.

use std::fs::{File, create_dir_all};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::stdio::{dup2_stdout, stdout};
use rustix::system::{RebootCommand, finit_module, reboot};
use rustix::termios::tcdrain;

use crate::Result;

/// Mounts what is needed and loads KVM.
pub(crate) fn set_up() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("devtmpfs", "/dev")] {
        create_dir_all(place)?;
        mount(kind, place, kind, MountFlags::empty(), None)?;
    }
    // A line of its own, on which neither the kernel speaks nor anybody beneath it.
    if let Ok(line) = File::options().write(true).open("/dev/ttyS1") {
        dup2_stdout(&line)?;
    }
    for module in ["irqbypass", "kvm", "kvm-amd"] {
        load(module, c"").map_err(|why| format!("{module}: {why}"))?;
    }
    let version = std::fs::read_to_string("/proc/version")?;
    println!("stage: {}", version.trim());
    // Linux leaves the flag out where it does not use them.
    let five = std::fs::read_to_string("/proc/cpuinfo")?.contains(" la57");
    println!("stage: tables of {} levels", if five { 5 } else { 4 });
    Ok(())
}

/// Loads a module with its parameters.
pub(crate) fn load(module: &str, parameters: &std::ffi::CStr) -> std::result::Result<(), Errno> {
    let file = File::open(format!("/modules/{module}.ko"));
    let file = file.map_err(|why| Errno::from_io_error(&why).unwrap_or(Errno::IO))?;
    finit_module(&file, parameters, 0)
}

/// Ends the machine.
pub(crate) fn power_off() {
    // What was said last is still on its way.
    if let Err(why) = tcdrain(stdout()) {
        eprintln!("stage: {why}");
    }
    if let Err(why) = reboot(RebootCommand::PowerOff) {
        println!("stage: no power off: {why}");
    }
}
