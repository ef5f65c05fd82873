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

macro_rules! say {
    ($($what:tt)*) => { crate::say::line(format_args!($($what)*)) };
}
pub(crate) use say;
