//! How often whoever runs came out, and why.

use core::fmt;

use crate::exit_code::ExitCode;

/// How many kinds of exits are told apart: those of intercepts, nested page faults, and all others.
const KINDS: usize = 0x100 + 2;

/// Counts of both levels.
#[derive(Clone, Debug)]
pub struct Counts {
    hypervisor: [u64; KINDS],
    guest: [u64; KINDS],
}

impl Counts {
    pub(super) const fn new() -> Self {
        Self { hypervisor: [0; KINDS], guest: [0; KINDS] }
    }

    pub(super) fn note_hypervisor(&mut self, exit: ExitCode) {
        self.hypervisor[kind(exit)] += 1;
    }

    pub(super) fn note_guest(&mut self, exit: ExitCode) {
        self.guest[kind(exit)] += 1;
    }
}

fn kind(exit: ExitCode) -> usize {
    match exit.raw() {
        0x400 => KINDS - 2,
        code => usize::try_from(code).unwrap_or(KINDS).min(KINDS - 1),
    }
}

impl fmt::Display for Counts {
    /// `hypervisor 0x72:15 npf:40; guest 0x78:2`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = [("hypervisor", &self.hypervisor), ("; guest", &self.guest)];
        for (level, counts) in levels {
            f.write_str(level)?;
            for (kind, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                match KINDS - kind {
                    1 => write!(f, " other:{count}")?,
                    2 => write!(f, " npf:{count}")?,
                    _ => write!(f, " {kind:#x}:{count}")?,
                }
            }
        }
        Ok(())
    }
}
