//! States that were seen, and how they were first reached: in halves, one a worker.

use crate::diamonds::Origin;
use crate::fingerprint::Fingerprint;
use crate::seen::Seen;
use crate::state::State;

/// How many workers there are, and how many halves of the names that were seen.
pub const WORKERS: usize = 2;

/// How a state was first reached: from which, by which of its events.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    pub(crate) from: u32,
    pub(crate) event: u16,
}

impl Way {
    /// The start's: there is no such event.
    pub(crate) const START: Self = Self { from: 0, event: u16::MAX };

    pub(crate) const fn is_start(self) -> bool {
        self.event == u16::MAX
    }
}

/// A state that waits to be gone on from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) number: u32,
    pub(crate) origin: Origin,
    pub(crate) state: State,
}

/// What one event leads to, not seen before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The place in the block of the state that it was found from.
    pub(crate) at: u32,
    pub(crate) name: Fingerprint,
    pub(crate) way: Way,
    pub(crate) origin: Origin,
    pub(crate) represents: u64,
    pub(crate) state: State,
}

impl Found {
    /// A state that has no name yet, and was not reached from anywhere.
    pub(crate) const fn unnamed(state: &State) -> Self {
        let (way, origin) = (Way::START, Origin::OTHER);
        Self { at: 0, name: 0, way, origin, represents: 0, state: *state }
    }
}

/// What one worker owns: the names whose lowest bits are its number.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    pub(crate) seen: Seen,
    pub(crate) ways: Vec<Way>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) represented: u64,
}

impl Shard {
    /// Takes in a state, if it is new.
    pub(crate) fn take(&mut self, shard: usize, found: &Found) {
        if self.seen.insert(found.name) {
            let number = self.ways.len() * WORKERS + shard;
            let number = u32::try_from(number).expect("memory ends before numbers do");
            self.ways.push(found.way);
            self.represented += found.represents;
            self.waiting.push(Waiting { number, origin: found.origin, state: found.state });
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.seen.bytes()
            + self.ways.capacity() * size_of::<Way>()
            + self.waiting.capacity() * size_of::<Waiting>()
    }
}

/// The half that a name belongs to.
pub(crate) const fn shard_of(name: Fingerprint) -> usize {
    name as usize % WORKERS
}

/// How a state was first reached.
pub(crate) fn way_of(shards: &[Shard; WORKERS], number: u32) -> Way {
    let number = number as usize;
    shards[number % WORKERS].ways[number / WORKERS]
}
