//! A state in 128 bits: everything that can make a difference later, and nothing else.

use view_core::{Ownership, PageState, Perm};

use crate::bytes::{Bytes, Seal};
use crate::event::{PageRef, Phys};
use crate::mutant::Mutant;
use crate::world::{Ghost, World};

/// Two lanes of multiply and rotate; not for enemies, only for states.
#[derive(Clone, Copy, Debug)]
struct Digest(u64, u64);

impl Digest {
    const fn word(&mut self, word: u64) {
        let left = (self.0 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = left ^ left >> 29;
        let right = (self.1.rotate_left(23) ^ word).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.1 = right ^ right >> 32;
    }

    fn bytes(&mut self, bytes: Bytes) {
        self.word(bytes.packed());
    }

    fn place(&mut self, place: Option<Phys>) {
        self.word(place.map_or(0, |place| 1 + to_word(place.index())));
    }
}

fn to_word(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

const fn perm_word(perm: Option<Perm>) -> u64 {
    match perm {
        None => 0,
        Some(Perm::Read) => 1,
        Some(Perm::ReadWrite) => 2,
    }
}

impl World<'_> {
    /// The state's name. Two states with one name have the same future within the bounds.
    pub fn digest(&self) -> u128 {
        let mut digest = Digest(0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344);
        self.digest_core(&mut digest);
        self.digest_machine(&mut digest);
        self.digest_flights(&mut digest);
        let Digest(left, right) = digest;
        u128::from(left) << 64 | u128::from(right)
    }

    fn digest_core(&self, digest: &mut Digest) {
        for page in self.config.page_refs() {
            self.row(page).into_iter().for_each(|word| digest.word(word));
            self.digest_ghost(digest, self.ghost(page));
        }
        for frame in 0..self.config.frames {
            let (role, vm, gfn) = match self.ownership(frame) {
                Ownership::Free => (0, 0, 0),
                Ownership::Offered(vm, gfn) => (1, vm.0, gfn.number()),
                Ownership::Owned(vm, gfn) => (2, vm.0, gfn.number()),
                Ownership::Quarantined(vm, gfn) => (3, vm.0, gfn.number()),
            };
            digest.word(role | u64::from(vm) << 8 | gfn << 24);
        }
        for (vm, _) in (0_u8..).zip(self.config.pages) {
            let vm_runs = u64::from(self.vm(vm).runnable().is_ok());
            let launched = u64::from(self.launched[usize::from(vm)]);
            digest.word(vm_runs | launched << 1 | self.vm(vm).replicas() << 2);
        }
        let [stores, drops, faults] = self.used.map(u64::from);
        let rest = u64::from(self.ticked) | u64::from(self.flush_due) << 1;
        digest.word(stores | drops << 8 | faults << 16 | to_word(self.life) << 24 | rest << 32);
    }

    /// A page's row without what means nothing in its state.
    fn row(&self, page: PageRef) -> [u64; 4] {
        let [control, version, low, high] = self.words(page);
        let state = self.state(page);
        let (framed, tagged) = match state {
            PageState::Free => (false, false),
            PageState::PagedOut => (false, true),
            PageState::Sealed => (true, true),
            PageState::Building
            | PageState::Private
            | PageState::Replica
            | PageState::Open { .. }
            | PageState::Scrubbing
            | PageState::Poisoned => (true, false),
        };
        if self.is_busy(page) {
            return [control, version, low, high];
        }
        let control = if framed { control } else { control & 0xff_ffff };
        if tagged { [control, version, low, high] } else { [control, version, 0, 0] }
    }

    fn digest_ghost(&self, digest: &mut Digest, ghost: &Ghost) {
        digest.bytes(ghost.latest);
        let flags = [ghost.building, ghost.reclaimed, ghost.poisoned, ghost.closed];
        let flags = flags.into_iter().fold(0, |word, flag| word << 1 | u64::from(flag));
        let term = ghost.term.map_or(0, |term| 1 + term as u64);
        digest.word(flags | perm_word(ghost.consent) << 8 | term << 16 | ghost.highest << 24);
    }

    fn digest_machine(&self, digest: &mut Digest) {
        let machine = &self.machine;
        for place in Phys::all() {
            digest.bytes(machine.at(place));
            digest.word(perm_word(machine.host_table[place.index()]));
        }
        let mut tlbs = machine.tlbs.map(|tlb| {
            let host = tlb.host.into_iter().fold(0, |word, perm| word << 2 | perm_word(perm));
            let places = tlb.guest.into_iter();
            places.fold(host, |word, place| {
                word << 4 | place.map_or(0, |place| 1 + to_word(place.index()))
            })
        });
        // CPUs are interchangeable, unless a wrong fence makes one of them special.
        if self.mutant != Some(Mutant::FencesOneCpu) {
            tlbs.sort_unstable();
        }
        tlbs.into_iter().for_each(|word| digest.word(word));
        for page in self.config.page_refs() {
            digest.place(machine.guest_table[page.index()]);
            digest.place(machine.replica(page));
            digest.bytes(machine.handed[page.index()]);
            digest.place(self.first_frame[page.index()]);
        }
        // The order in which seals were made is forgotten.
        let mut known: Vec<&Seal> = machine.known.iter().collect();
        known.sort_unstable();
        known.into_iter().for_each(|seal| digest.bytes(Bytes::Sealed(*seal)));
    }

    fn digest_flights(&self, digest: &mut Digest) {
        for flight in &self.flights {
            let Some(flight) = flight else {
                digest.word(0);
                continue;
            };
            digest.word(1 | u64::from(flight.steps) << 8);
            digest.word(flight.answers);
            for (page, ask, before) in &flight.asks {
                digest.word(to_word(page.index()) << 32 | ask.packed());
                digest.word(*before);
            }
        }
    }
}
