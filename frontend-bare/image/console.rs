//! The monitor's own voice: the first serial port, and an end that a script can tell.

use core::fmt::{Arguments, Write};

use crate::sys::{halt, in_byte, out_byte, out_word};

/// The first serial port; the firmware or the machine has set it up.
const SERIAL: u16 = 0x3f8;

/// QEMU's isa-debug-exit; on other machines nobody listens.
const EXIT: u16 = 0xf4;

/// How the monitor ends. QEMU makes `2 * n + 1` of it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// Everything that was tried did what it should.
    Passed = 0x10,
    /// The machine is not one that it can run on.
    Refused = 0x20,
    /// A check failed.
    Failed = 0x30,
    /// It broke.
    Panicked = 0x40,
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            // Whoever else has the port may keep it busy; the byte goes out all the same.
            let is_busy = |_: &u32| in_byte(SERIAL + 5) & 0x20 == 0;
            let _ = (0..1_u32 << 16).take_while(is_busy).count();
            out_byte(SERIAL, byte);
        }
        Ok(())
    }
}

/// Prints a line.
pub(crate) fn say(what: Arguments<'_>) {
    let _ = Serial.write_fmt(what);
    let _ = Serial.write_str("\r\n");
}

/// Ends.
pub(crate) fn exit(how: Ending) -> ! {
    out_word(EXIT, how as u32);
    halt()
}
