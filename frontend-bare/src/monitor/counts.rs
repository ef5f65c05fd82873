//! How often whoever runs came out, why, and what that cost.

use core::fmt;

use crate::exit_code::ExitCode;

/// What the monitor was busy with between an exit and the next entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// An exit of the hypervisor's, of this kind.
    Hypervisor(ExitCode),
    /// An exit of a guest's.
    Guest(ExitCode),
    /// The hypervisor reached memory of its own for the first time, or again.
    PlainPage,
    /// The hypervisor read a page of a launched guest, which was sealed for it.
    SealedPage,
    /// The hypervisor wrote to one, and has its frame now.
    LeftPage,
    /// A launched guest touched a page of its own that its tables did not lead to.
    TouchedPage,
    /// A call of a guest's.
    Call,
}

/// How often, and how many ticks of the time-stamp counter in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// How often.
    pub count: u64,
    /// Ticks in all.
    pub ticks: u64,
}

/// Exits of intercepts, and all others.
const KINDS: usize = 0x100 + 1;

/// Counts of both levels.
#[derive(Clone, Debug)]
pub struct Counts {
    hypervisor: [Cost; KINDS],
    guest: [Cost; KINDS],
    pages: [Cost; 5],
    /// What the monitor is busy with, and since when.
    now: Option<(Work, u64)>,
}

impl Counts {
    pub(super) const fn new() -> Self {
        let none = Cost { count: 0, ticks: 0 };
        Self { hypervisor: [none; KINDS], guest: [none; KINDS], pages: [none; 5], now: None }
    }

    pub(super) const fn begin(&mut self, work: Work, ticks: u64) {
        self.now = Some((work, ticks));
    }

    /// It turns out that the work is this.
    pub(super) const fn turns_out(&mut self, work: Work) {
        if let Some((was, _)) = &mut self.now {
            *was = work;
        }
    }

    pub(super) fn end(&mut self, ticks: u64) {
        let Some((work, since)) = self.now.take() else { return };
        let cost = self.cost_mut(work);
        cost.count += 1;
        cost.ticks += ticks.saturating_sub(since);
    }

    /// What some work cost so far.
    pub fn cost(&self, work: Work) -> Cost {
        match work {
            Work::Hypervisor(exit) => self.hypervisor[kind(exit)],
            Work::Guest(exit) => self.guest[kind(exit)],
            Work::PlainPage => self.pages[0],
            Work::SealedPage => self.pages[1],
            Work::LeftPage => self.pages[2],
            Work::TouchedPage => self.pages[3],
            Work::Call => self.pages[4],
        }
    }

    fn cost_mut(&mut self, work: Work) -> &mut Cost {
        match work {
            Work::Hypervisor(exit) => &mut self.hypervisor[kind(exit)],
            Work::Guest(exit) => &mut self.guest[kind(exit)],
            Work::PlainPage => &mut self.pages[0],
            Work::SealedPage => &mut self.pages[1],
            Work::LeftPage => &mut self.pages[2],
            Work::TouchedPage => &mut self.pages[3],
            Work::Call => &mut self.pages[4],
        }
    }
}

fn kind(exit: ExitCode) -> usize {
    usize::try_from(exit.raw()).unwrap_or(KINDS).min(KINDS - 1)
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.ticks)
    }
}

impl fmt::Display for Counts {
    /// For each kind that came up its name, how often, and ticks in all: `hypervisor-0x72=15/4100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["plain-page", "sealed-page", "left-page", "touched-page", "call"];
        let pages = names.iter().zip(&self.pages).filter(|(_, cost)| cost.count > 0);
        for (name, cost) in pages {
            write!(f, "{name}={cost} ")?;
        }
        for (level, costs) in [("hypervisor", &self.hypervisor), ("guest", &self.guest)] {
            for (kind, cost) in costs.iter().enumerate().filter(|(_, cost)| cost.count > 0) {
                write!(f, "{level}-{kind:#x}={cost} ")?;
            }
        }
        Ok(())
    }
}
