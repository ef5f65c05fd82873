//! Attacks that only the kernel can make, by a module that makes one each time it is loaded.

use rustix::io::Errno;

use crate::Result;
use crate::linux;

/// Where a monitor's image begins, if there is one: out of all memory that Linux was given.
const ADDRESS: &str = "0x200000";

/// Plays them all.
pub(crate) fn play() -> Result<()> {
    for attempt in ["peek", "hsave", "vmload", "vmrun"] {
        let parameters = format!("attempt={attempt} address={ADDRESS}");
        let parameters = std::ffi::CString::new(parameters)?;
        match linux::load("ringzero", &parameters) {
            Err(Errno::AGAIN) => println!("attack {attempt}: fooled: the CPU carried it out"),
            Err(Errno::FAULT) => println!("attack {attempt}: stopped: the CPU refused"),
            other => return Err(format!("attack {attempt}: {other:?}").into()),
        }
    }
    Ok(())
}
