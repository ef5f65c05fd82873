//! Real threads on one VM: they claim, decide, drop, fault and commit at once, and nothing is lost.
//!
//! Not a replay: the seed fixes what every thread tries, the machine decides who comes first.
#![cfg(not(loom))]

mod worker;
mod world;

use std::collections::{BTreeMap, BTreeSet};

use view_core::whitelist::{Lease, Leases};
use view_core::{Epoch, Frames, Owner, PageState, Slot, Vm, VmConfig, VmNumber};
use worker::Worker;
use world::World;

const ROUNDS: u64 = 300;
const THREADS: u64 = 6;
const PAGES: usize = 24;
const FRAMES: usize = 32;
const LEASES: usize = 4;
const REPLICAS: u64 = 3;

#[test]
fn threads_on_one_vm_lose_no_page_no_version_no_frame_and_no_room() {
    let text = std::env::var("PAGEVEIL_SEED").unwrap_or_else(|_| "24301".into());
    let seed: u64 = text.parse().expect("PAGEVEIL_SEED is a number");
    println!("repeat what the threads try: PAGEVEIL_SEED={seed}");
    let mut seen = Seen::default();
    for round in 0..ROUNDS {
        // Every third round drops plans but fails and abandons nothing: no page may be poisoned.
        seen.merge(play(seed.wrapping_add(round << 32), round % 3 == 0));
    }
    seen.assert_not_vacuous();
}

/// One VM from its building to its end.
fn play(seed: u64, gentle: bool) -> Seen {
    let slots = [const { Slot::new() }; PAGES];
    let owners = [const { Owner::new() }; FRAMES];
    let leases = [const { Lease::new() }; LEASES];
    let vm = Vm::new(VmConfig {
        number: VmNumber(3),
        epoch: Epoch(1),
        pages: PAGES as u64,
        slots: &slots,
        frames: Frames::new(&owners),
        leases: Leases::new(&leases),
        masks: &[],
        replicas_max: REPLICAS,
    })
    .expect("as many rows as pages");
    let world = World::new(&vm, &slots, gentle);
    world.build();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let world = &world;
            scope.spawn(move || Worker::new(world, Dice(seed ^ (thread + 1))).work());
        }
    });
    world.settle();
    world.seen.into_inner().expect("no thread died")
}

/// What must have happened somewhere, so that the test cannot pass by doing nothing.
#[derive(Default)]
struct Seen {
    states: BTreeSet<PageState>,
    refusals: BTreeSet<String>,
    counts: BTreeMap<&'static str, u64>,
}

impl Seen {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn merge(&mut self, other: Self) {
        self.states.extend(other.states);
        self.refusals.extend(other.refusals);
        for (what, count) in other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    fn assert_not_vacuous(&self) {
        println!("{:?}\n{:?}\n{:?}", self.states, self.refusals, self.counts);
        for state in [
            PageState::Free,
            PageState::Private,
            PageState::Replica,
            PageState::Sealed,
            PageState::PagedOut,
            PageState::Poisoned,
        ] {
            assert!(self.states.contains(&state), "no page was ever {state:?}");
        }
        assert!(self.states.iter().any(|state| state.terms().is_some()), "no page was ever open");
        for refusal in ["ListFull", "PoolFull", "NotOffered", "Poisoned", "WrongEvidence"] {
            assert!(self.refusals.contains(refusal), "nothing was ever refused as {refusal}");
        }
        for event in ["busy", "committed", "plan dropped", "batch dropped", "fault", "forged"] {
            assert!(self.counts.contains_key(event), "never: {event}");
        }
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit
    }
}
