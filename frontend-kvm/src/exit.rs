//! From a raw exit of a vCPU to an event that means something. Pure, bounded, and never trusting:
//! every number in an exit was chosen by the guest.

use view_core::{Gfn, MaskId, Perm};

use crate::abi::{code, port, rights};

/// What a vCPU came out with, copied out of what it shares with the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RawExit {
    /// `out`: the first byte, and how many there were.
    Out {
        /// To which port.
        port: u16,
        /// The first byte.
        byte: u8,
        /// Bytes in all.
        width: usize,
    },
    /// `in`, with the registers that carry a doorbell's arguments.
    In {
        /// From which port.
        port: u16,
        /// Bytes asked for.
        width: usize,
        /// rsi, rdi, r8.
        arguments: [u64; 3],
    },
    /// A load from where no memory is.
    MmioRead {
        /// Where.
        address: u64,
        /// Bytes asked for.
        width: usize,
    },
    /// A store to where no memory is.
    MmioWrite {
        /// Where.
        address: u64,
        /// Bytes stored.
        width: usize,
    },
    /// The vCPU can't go on.
    Dead(Crash),
}

/// Why a vCPU can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Crash {
    /// `hlt`, and nobody could wake it.
    #[error("the guest halted for good")]
    Halt,
    /// A fault in the delivery of a fault of a fault.
    #[error("the guest shut down (triple fault)")]
    Shutdown,
    /// The processor refused the state.
    #[error("the processor refused to enter the guest (reason {0:#x})")]
    Entry(u64),
    /// KVM met an instruction that it can't emulate.
    #[error("KVM could not go on (internal error)")]
    Internal,
    /// It touched a page that it is not shown, and the handler said to stop.
    #[error("the guest touched a page that it is not shown")]
    Fault,
    /// The handler panicked.
    #[error("the handler of the guest's doings panicked")]
    Handler,
    /// `KVM_RUN` failed with this error number.
    #[error("KVM_RUN failed: {}", std::io::Error::from_raw_os_error(*.0))]
    Run(i32),
    /// An exit that nothing here asks for.
    #[error("an exit that nothing here asks for")]
    Unasked,
}

/// What the guest did that the trusted process hears of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// A well-formed doorbell: it waits for an answer.
    Doorbell(Doorbell),
    /// One byte for the console.
    Console(u8),
    /// The guest is done, with its exit code.
    End(u8),
    /// A doorbell with arguments that mean nothing; already answered.
    Malformed(Malformed),
    /// A port or place where nobody answers; loads got all ones, stores were dropped.
    Unknown(RawExit),
    /// The vCPU can't go on.
    Crashed(Crash),
}

/// What a doorbell asks for. Pages are pages of the guest's memory; whose they are is not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// Share a page.
    Share {
        /// Which.
        gfn: Gfn,
        /// With which rights.
        perm: Perm,
        /// Through which mask.
        mask: MaskId,
        /// Until when; what it counts is the upper layer's.
        expiry: u64,
    },
    /// Take a page back.
    Unshare {
        /// Which.
        gfn: Gfn,
    },
    /// Leave pages out of every snapshot.
    Exclude {
        /// The first.
        first: Gfn,
        /// How many; at least one, and all of them are the guest's.
        count: u64,
    },
    /// So many steps are done.
    Step(u64),
}

/// A doorbell that was refused for its form: where it rang and what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("doorbell {port:#x}: {what}")]
pub struct Malformed {
    /// Where it rang.
    pub port: u16,
    /// What is wrong with it.
    pub what: Flaw,
}

/// What can be wrong with the form of a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// No such page.
    #[error("page {0:#x} is not the guest's memory")]
    Page(u64),
    /// No such rights, or bits that mean nothing.
    #[error("rights {0:#x} mean nothing")]
    Perm(u64),
    /// No such mask.
    #[error("there is no mask {0}")]
    Mask(u8),
    /// No pages, or more than there are.
    #[error("{0} pages from there on are too few or too many")]
    Count(u64),
    /// Not one access of four bytes, or in the wrong direction.
    #[error("{0} bytes, or the wrong direction")]
    Width(usize),
}

impl Flaw {
    /// What the guest is answered.
    pub const fn code(self) -> u32 {
        match self {
            Self::Page(_) => code::BAD_PAGE,
            Self::Perm(_) => code::BAD_PERM,
            Self::Mask(_) => code::BAD_MASK,
            Self::Count(_) => code::BAD_COUNT,
            Self::Width(_) => code::BAD_WIDTH,
        }
    }
}

const fn is_doorbell(port: u16) -> bool {
    matches!(port, port::SHARE | port::UNSHARE | port::EXCLUDE | port::STEP)
}

/// What an exit of a guest with `pages` pages of memory means.
pub const fn decode(exit: RawExit, pages: u64) -> GuestEvent {
    match exit {
        RawExit::Out { port: port::END, byte, width: 1 } => GuestEvent::End(byte),
        RawExit::Out { port: port::CONSOLE, byte, width: 1 } => GuestEvent::Console(byte),
        RawExit::Out { port, width, .. } if is_doorbell(port) => {
            GuestEvent::Malformed(Malformed { port, what: Flaw::Width(width) })
        }
        RawExit::In { port, width, arguments } if is_doorbell(port) => {
            match doorbell(port, width, arguments, pages) {
                Ok(doorbell) => GuestEvent::Doorbell(doorbell),
                Err(what) => GuestEvent::Malformed(Malformed { port, what }),
            }
        }
        RawExit::Dead(crash) => GuestEvent::Crashed(crash),
        // What a guest says to nobody is nobody's business.
        RawExit::In { port, width, .. } => {
            GuestEvent::Unknown(RawExit::In { port, width, arguments: [0; 3] })
        }
        RawExit::Out { port, width, .. } => {
            GuestEvent::Unknown(RawExit::Out { port, byte: 0, width })
        }
        RawExit::MmioRead { .. } | RawExit::MmioWrite { .. } => GuestEvent::Unknown(exit),
    }
}

const fn doorbell(
    port: u16,
    width: usize,
    [a, b, c]: [u64; 3],
    pages: u64,
) -> Result<Doorbell, Flaw> {
    if width != 4 {
        return Err(Flaw::Width(width));
    }
    if port == port::STEP {
        return Ok(Doorbell::Step(a));
    }
    let gfn = match Gfn::new(a) {
        Ok(gfn) if a < pages => gfn,
        Ok(_) | Err(_) => return Err(Flaw::Page(a)),
    };
    match port {
        port::SHARE => share(gfn, b, c),
        port::UNSHARE => Ok(Doorbell::Unshare { gfn }),
        _ if b == 0 || b > pages - a => Err(Flaw::Count(b)),
        _ => Ok(Doorbell::Exclude { first: gfn, count: b }),
    }
}

const fn share(gfn: Gfn, word: u64, expiry: u64) -> Result<Doorbell, Flaw> {
    let perm = match word & 0xff {
        rights::READ => Perm::Read,
        rights::READ_WRITE => Perm::ReadWrite,
        _ => return Err(Flaw::Perm(word)),
    };
    if word >> 16 != 0 {
        return Err(Flaw::Perm(word));
    }
    let number = (word >> 8) as u8;
    match MaskId::new(number) {
        Some(mask) => Ok(Doorbell::Share { gfn, perm, mask, expiry }),
        None => Err(Flaw::Mask(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;

    const PAGES: u64 = 0x1000;

    fn ring(port: u16, arguments: [u64; 3]) -> GuestEvent {
        decode(RawExit::In { port, width: 4, arguments }, PAGES)
    }

    fn gfn(number: u64) -> Gfn {
        Gfn::new(number).unwrap()
    }

    #[test]
    fn well_formed_doorbells_carry_their_arguments() {
        let share = Doorbell::Share {
            gfn: gfn(0x480),
            perm: Perm::Read,
            mask: MaskId::new(5).unwrap(),
            expiry: u64::MAX,
        };
        let asked = [0x480, rights::READ | 5 << 8, u64::MAX];
        assert_eq!(ring(port::SHARE, asked), GuestEvent::Doorbell(share));
        let unshare = Doorbell::Unshare { gfn: gfn(PAGES - 1) };
        assert_eq!(ring(port::UNSHARE, [PAGES - 1, 9, 9]), GuestEvent::Doorbell(unshare));
        let exclude = Doorbell::Exclude { first: gfn(PAGES - 2), count: 2 };
        assert_eq!(ring(port::EXCLUDE, [PAGES - 2, 2, 0]), GuestEvent::Doorbell(exclude));
        let step = GuestEvent::Doorbell(Doorbell::Step(u64::MAX));
        assert_eq!(ring(port::STEP, [u64::MAX, 0, 0]), step);
    }

    #[test]
    fn every_malformed_try_of_the_bad_guest_is_refused_with_its_code() {
        for number in 2..abi::TRIES - 1 {
            let attempt = abi::bad_try(number, PAGES);
            let GuestEvent::Malformed(bad) = ring(attempt.port, attempt.arguments) else {
                panic!("try {number} was taken for a well-formed one");
            };
            assert_eq!(bad.what.code(), attempt.answer);
        }
    }

    #[test]
    fn a_doorbell_is_one_access_of_four_bytes() {
        for width in [0, 1, 2, 8, 4096] {
            let exit = RawExit::In { port: port::SHARE, width, arguments: [1, 1, 0] };
            let bad = Malformed { port: port::SHARE, what: Flaw::Width(width) };
            assert_eq!(decode(exit, PAGES), GuestEvent::Malformed(bad));
        }
        let exit = RawExit::Out { port: port::UNSHARE, byte: 1, width: 4 };
        let bad = Malformed { port: port::UNSHARE, what: Flaw::Width(4) };
        assert_eq!(decode(exit, PAGES), GuestEvent::Malformed(bad));
    }

    #[test]
    fn no_page_behind_the_end_passes_whatever_the_arguments() {
        let corners = [0, 1, PAGES - 1, PAGES, PAGES + 1, 1 << 40, 1 << 63, u64::MAX];
        let doorbells = [port::SHARE, port::UNSHARE, port::EXCLUDE];
        for (port, a) in doorbells.into_iter().flat_map(|p| corners.map(|a| (p, a))) {
            for b in corners.into_iter().chain(0..0x400) {
                let GuestEvent::Doorbell(doorbell) = ring(port, [a, b, a]) else { continue };
                let (first, count) = match doorbell {
                    Doorbell::Share { gfn, .. } | Doorbell::Unshare { gfn } => (gfn, 1),
                    Doorbell::Exclude { first, count } => (first, count),
                    Doorbell::Step(_) => panic!("that port asks for something else"),
                };
                assert!(first.number() < PAGES && (1..=PAGES - first.number()).contains(&count));
            }
        }
    }

    #[test]
    fn other_ports_are_unknown_and_show_no_registers() {
        let quiet = RawExit::In { port: 0x60, width: 1, arguments: [0; 3] };
        let asked = RawExit::In { port: 0x60, width: 1, arguments: [7; 3] };
        assert_eq!(decode(asked, PAGES), GuestEvent::Unknown(quiet));
        let wide = RawExit::Out { port: port::CONSOLE, byte: 7, width: 2 };
        let quiet = RawExit::Out { port: port::CONSOLE, byte: 0, width: 2 };
        assert_eq!(decode(wide, PAGES), GuestEvent::Unknown(quiet));
        let dead = RawExit::Dead(Crash::Shutdown);
        assert_eq!(decode(dead, PAGES), GuestEvent::Crashed(Crash::Shutdown));
    }
}
