//! Lines on the console.

use core::fmt::{Arguments, Write};

use crate::abi::port;
use crate::sys::out_byte;

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        text.bytes().for_each(|byte| out_byte(port::CONSOLE, byte));
        Ok(())
    }
}

/// One line.
pub fn line(what: Arguments<'_>) {
    // The console takes whatever comes.
    let _ = Console.write_fmt(what);
    out_byte(port::CONSOLE, b'\n');
}

/// Bytes of words, in the order in which they are in memory.
pub struct Hex<'w>(pub &'w [u64]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|word| write!(f, "{:016x}", word.swap_bytes()))
    }
}

macro_rules! say {
    ($($what:tt)*) => { crate::say::line(format_args!($($what)*)) };
}
pub(crate) use say;
