//! The machine that sim explores, as a platform to be looked at. CPU 1 looks while CPU 0 runs
//! batches.

use view_core::suite::Tag;
use view_core::{Copies, Gfn, OpenStep, Perm, Platform, SealStep, Target, View, What};

use super::{ConformingPlatform, PUBLIC};
use crate::bytes::{Bytes, Label, Plain};
use crate::event::{PageRef, Phys};
use crate::machine::{Broken, Cpu, FRAMES, Machine, Noted, REPLICAS};

/// The sound machine, ready for the suite and for traces.
#[derive(Debug)]
pub struct SoundMachine(Machine);

impl Default for SoundMachine {
    fn default() -> Self {
        Self(Machine::new(REPLICAS))
    }
}

impl SoundMachine {
    const LOOKS: u8 = 1;

    fn cpu(&mut self) -> Cpu<'_> {
        // Notes are for the checker of one event; there is none here.
        self.0.noted = Noted::default();
        Cpu { machine: &mut self.0, number: 0 }
    }

    /// What the management side reaches of a page: its replica if there is one, else its frame.
    fn shown(&mut self, page: &Target) -> Option<(Phys, Perm)> {
        let replica = self.0.replica(PageRef::of(page));
        let frame = (page.frame.number() < FRAMES as u64).then(|| Phys::of(page.frame));
        let places = [replica, frame];
        let mut walk = |place: Phys| {
            let remembered = self.0.host_walk(Self::LOOKS, place)?;
            let mapped = self.0.host_table[place.index()].unwrap_or(remembered);
            // A CPU that may not by what it remembers walks the tables again before it faults.
            Some((place, mapped.max(remembered)))
        };
        places.into_iter().flatten().find_map(&mut walk)
    }
}

fn word(bytes: Bytes) -> u64 {
    match bytes {
        Bytes::Plain(Plain::Zero) => 0,
        Bytes::Plain(Plain::Public) => PUBLIC,
        Bytes::Plain(Plain::Secret(value) | Plain::Shared(value)) => u64::from(value),
        Bytes::Sealed(_) => bytes.packed(),
    }
}

impl ConformingPlatform for SoundMachine {
    fn guest_load(&mut self, gfn: Gfn) -> Option<u64> {
        let page = PageRef { vm: 0, gfn: u8::try_from(gfn.number()).ok()? };
        let place = self.0.guest_walk(Self::LOOKS, page)?;
        Some(word(self.0.at(place)))
    }

    fn guest_store(&mut self, gfn: Gfn, value: u64) -> bool {
        let page = PageRef { vm: 0, gfn: u8::try_from(gfn.number()).unwrap_or(u8::MAX) };
        let secret = Bytes::Plain(Plain::Secret(u8::try_from(value).unwrap_or(u8::MAX)));
        let found = self.0.guest_walk(Self::LOOKS, page);
        found.inspect(|place| self.0.put(*place, secret)).is_some()
    }

    fn management_load(&mut self, page: &Target) -> Option<u64> {
        self.shown(page).map(|(place, _)| word(self.0.at(place)))
    }

    fn management_store(&mut self, page: &Target, _value: u64) -> bool {
        let writable = self.shown(page).filter(|(_, perm)| *perm == Perm::ReadWrite);
        writable.inspect(|(place, _)| self.0.put(*place, Bytes::PUBLIC)).is_some()
    }

    fn tamper(&mut self, gfn: Gfn) {
        let page = PageRef { vm: 0, gfn: u8::try_from(gfn.number()).unwrap_or(u8::MAX) };
        self.0.handed[page.index()] = Bytes::PUBLIC;
    }

    fn hand(&mut self, gfn: Gfn, seal: Label) -> bool {
        let page = PageRef { vm: 0, gfn: u8::try_from(gfn.number()).unwrap_or(u8::MAX) };
        let found = self.0.known.iter().find(|known| known.label == seal);
        let found = found.map(|known| Bytes::Sealed(*known));
        found.inspect(|bytes| self.0.handed[page.index()] = *bytes).is_some()
    }
}

impl Platform for SoundMachine {
    type Fault = Broken;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), Broken> {
        self.cpu().withdraw(page, view)
    }

    fn fence(&mut self) -> Result<(), Broken> {
        self.cpu().fence()
    }

    fn fetch(&mut self, page: &Target) -> Result<(), Broken> {
        self.cpu().fetch(page)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), Broken> {
        self.cpu().seal(steps, tags)
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Broken> {
        self.cpu().open(steps, genuine)
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), Broken> {
        self.cpu().scrub(page, copies)
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), Broken> {
        self.cpu().grant(page, view, what, perm)
    }
}
