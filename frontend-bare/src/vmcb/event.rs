//! An event that a guest is given on entry, or whose delivery an exit cut short.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// EVENTINJ or EXITINTINFO (the manual, 15.20 and 15.7.2). Not an event at all unless it
/// [is valid](Self::is_valid).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Event(u64);

/// What an event is (the manual, 15.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// From outside, or a virtual one.
    Interrupt = 0,
    /// Its vector is ignored.
    Nmi = 2,
    /// A fault or a trap.
    Exception = 3,
    /// From an INT instruction.
    SoftwareInterrupt = 4,
}

impl Event {
    /// No event.
    pub const NONE: Self = Self(0);
    const KIND: u64 = 7 << 8;
    const HAS_ERROR_CODE: u64 = 1 << 11;
    const VALID: u64 = 1 << 31;
    /// What the manual keeps for later: bits 12 to 30.
    pub const RESERVED: u64 = 0x7fff_f000;

    /// An event, with its error code if it pushes one.
    pub const fn new(kind: EventKind, vector: u8, error_code: Option<u32>) -> Self {
        let event = Self::VALID | (kind as u64) << 8 | vector as u64;
        match error_code {
            Some(code) => Self(event | Self::HAS_ERROR_CODE | (code as u64) << 32),
            None => Self(event),
        }
    }

    /// The field's bits as they are.
    pub const fn from_raw(field: u64) -> Self {
        Self(field)
    }

    /// The bits.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// Whether there is an event; if not, no other bit says anything.
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// What it is; `None` for a value that is reserved.
    pub const fn kind(self) -> Option<EventKind> {
        match (self.0 & Self::KIND) >> 8 {
            0 => Some(EventKind::Interrupt),
            2 => Some(EventKind::Nmi),
            3 => Some(EventKind::Exception),
            4 => Some(EventKind::SoftwareInterrupt),
            _ => None,
        }
    }

    /// Which interrupt or exception.
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// What the guest finds on its stack beside it, if anything.
    pub const fn error_code(self) -> Option<u32> {
        if self.0 & Self::HAS_ERROR_CODE != 0 { Some((self.0 >> 32) as u32) } else { None }
    }
}

impl fmt::Debug for Event {
    /// Without the error code, which says what the guest did.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_valid(), self.kind()) {
            (false, _) => f.write_str("Event(none)"),
            (true, Some(kind)) => write!(f, "Event({kind:?} {})", self.vector()),
            (true, None) => f.write_str("Event(reserved)"),
        }
    }
}
