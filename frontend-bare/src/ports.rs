//! What becomes of the hypervisor's writes to ports that the monitor insists on seeing: those that
//! reset the machine or put it to sleep.
//!
//! Memory keeps its bytes across a reset, and whoever starts then may read it. So the monitor
//! scrubs all guests' memory first. Sleep states are not told apart: from none of them does the
//! machine come back to the monitor. Reads harm nobody.

use heapless::Vec;

use crate::acpi::{Register, Reset, Survey};
use crate::permission_map::IoAccess;

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAnswer {
    /// The device itself is to have it.
    PassOn,
    /// Written, as far as the hypervisor can tell: the device does not have it.
    Done,
    /// The machine is about to start anew: when all guests' memory is scrubbed, the device is to
    /// have it.
    Reset,
    /// The machine is about to sleep, or to be off: the same.
    Off,
}

/// Ports of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// Ports of one byte, with the bit of it that puts the machine to sleep.
    sleep: Vec<(u16, u8), 5>,
    /// A port of one byte, with the value that resets the machine.
    reset: Option<(u16, u8)>,
}

/// The machine has a register of power where nobody watches: not at a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAPort(pub Register);

const KEYBOARD_COMMAND: u16 = 0x64;
const SYSTEM_CONTROL: u16 = 0x92;
const PCI_ADDRESS: u16 = 0xcf8;
const RESET_CONTROL: u16 = 0xcf9;

impl Ports {
    /// Those that a machine's tables name, beside those that every machine has.
    ///
    /// # Errors
    /// [`NotAPort`].
    pub fn of(survey: &Survey) -> Result<Self, NotAPort> {
        let mut ports = Self::default();
        // Bit 13 of two bytes, and bit 5 of one (ACPI 6.5, 4.8.3.2.1 and 4.8.3.7).
        let second = |port: u16| port.wrapping_add(1);
        for register in &survey.pm1 {
            ports.add(*register, second)?;
        }
        if let Some(register) = survey.sleep_control {
            ports.add(register, |port| port)?;
        }
        if let Some(Reset { register, value }) = survey.reset {
            ports.reset = Some((port(register)?, value));
        }
        Ok(ports)
    }

    fn add(&mut self, register: Register, byte: fn(u16) -> u16) -> Result<(), NotAPort> {
        let port = byte(port(register)?);
        self.sleep.push((port, 1 << 5)).map_err(|_| NotAPort(register))
    }

    /// The ports to intercept, beside those that the monitor insists on for every machine.
    pub fn to_insist_on(&self) -> impl Iterator<Item = u16> {
        let sleep = self.sleep.iter().map(|(port, _)| *port);
        sleep.chain(self.reset.map(|(port, _)| port))
    }

    /// What becomes of a write of some bytes at once. Of its bytes the worst counts.
    pub fn write(&self, access: IoAccess, value: u32) -> PortAnswer {
        let width = access.width as usize;
        if access.port == PCI_ADDRESS && width == 4 {
            return PortAnswer::PassOn;
        }
        let bytes = value.to_le_bytes();
        let lanes = (0..).map(|lane| access.port.wrapping_add(lane)).zip(bytes).take(width);
        let worst = lanes.map(|(port, byte)| self.byte(port, byte)).max_by_key(|one| *one as u8);
        worst.unwrap_or(PortAnswer::PassOn)
    }

    fn byte(&self, port: u16, byte: u8) -> PortAnswer {
        if self.sleep.iter().any(|(sleep, bit)| *sleep == port && byte & bit != 0) {
            return PortAnswer::Off;
        }
        if self.reset == Some((port, byte)) {
            return PortAnswer::Reset;
        }
        match port {
            KEYBOARD_COMMAND => keyboard(byte),
            SYSTEM_CONTROL => system_control(byte),
            RESET_CONTROL if byte & RESET_CPU != 0 => PortAnswer::Reset,
            _ => PortAnswer::PassOn,
        }
    }
}

/// Bit of the reset control register: by its change the CPU is reset.
const RESET_CPU: u8 = 1 << 2;

/// A command to the keyboard controller. Its outputs are the CPU's reset (bit 0, low) and address
/// line 20 (bit 1): without that line the monitor finds other memory than its own.
const fn keyboard(command: u8) -> PortAnswer {
    const WRITE_OUTPUTS: u8 = 0xd1;
    const LINE_20_OFF: u8 = 0xdd;
    match command {
        // Outputs whose bit is clear go low for a moment.
        0xf0..=0xff if command & 1 == 0 => PortAnswer::Reset,
        0xf0..=0xfe | WRITE_OUTPUTS | LINE_20_OFF => PortAnswer::Done,
        _ => PortAnswer::PassOn,
    }
}

/// System control port A: reset (bit 0) and the same address line (bit 1).
const fn system_control(byte: u8) -> PortAnswer {
    match byte & 0b11 {
        0b01 | 0b11 => PortAnswer::Reset,
        0b10 => PortAnswer::PassOn,
        _ => PortAnswer::Done,
    }
}

const fn port(register: Register) -> Result<u16, NotAPort> {
    match register {
        Register::Port(port) => Ok(port),
        Register::Memory(_) | Register::Elsewhere(_) => Err(NotAPort(register)),
    }
}
