//! The machine of real bytes under the conformance suite, with the shipped cipher.

use std::collections::BTreeSet;

use sim::conformance::{ConformingPlatform, suite};
use sim::software::{NoSuchPage, Software, StreamCiphers};
use view_core::key::SivKey;
use view_core::suite::Tag;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::{Copies, Gfn, OpenStep, Page, Perm, Platform, SealStep, Target, View, What};

/// Software, and a manager that keeps what is paged out and may spoil it.
struct Kept {
    machine: Software<'static, SivCmac512>,
    spoilt: BTreeSet<Gfn>,
}

impl Kept {
    fn new() -> Self {
        let cipher = |byte| SivCmac512::new(&SivKey::new([byte; 64]));
        let (view, resident, image) = (cipher(1), cipher(2), cipher(3));
        let machine = Software::new(2, StreamCiphers { view, resident, image }, &[]);
        Self { machine, spoilt: BTreeSet::new() }
    }
}

impl Platform for Kept {
    type Fault = NoSuchPage;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), NoSuchPage> {
        self.machine.withdraw(page, view)
    }

    fn fence(&mut self) -> Result<(), NoSuchPage> {
        self.machine.fence()
    }

    fn fetch(&mut self, page: &Target) -> Result<(), NoSuchPage> {
        if let Some(mut sealed) = self.machine.take_wire(page.gfn) {
            sealed.bytes_mut()[7] ^= u8::from(self.spoilt.contains(&page.gfn));
            self.machine.hand_over(page.gfn, sealed);
        }
        self.machine.fetch(page)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), NoSuchPage> {
        self.machine.seal(steps, tags)
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), NoSuchPage> {
        self.machine.open(steps, genuine)
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), NoSuchPage> {
        self.machine.scrub(page, copies)
    }

    fn grant(
        &mut self,
        page: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), NoSuchPage> {
        self.machine.grant(page, view, what, perm)
    }
}

impl ConformingPlatform for Kept {
    fn guest_load(&mut self, gfn: Gfn) -> Option<u64> {
        self.machine.owner_load(gfn).map(first_word)
    }

    fn guest_store(&mut self, gfn: Gfn, value: u64) -> bool {
        self.machine.owner_store(gfn, 0, &value.to_le_bytes())
    }

    fn management_load(&mut self, page: &Target) -> Option<u64> {
        self.machine.management_load(page.gfn).map(first_word)
    }

    fn management_store(&mut self, page: &Target, value: u64) -> bool {
        self.machine.management_store(page.gfn, 0, &value.to_le_bytes())
    }

    fn tamper(&mut self, gfn: Gfn) {
        self.spoilt.insert(gfn);
    }
}

fn first_word(page: &Page) -> u64 {
    let (words, _) = page.bytes().as_chunks::<8>();
    words.first().map_or(0, |word| u64::from_le_bytes(*word))
}

#[test]
fn the_machine_of_real_bytes_conforms() {
    assert_eq!(suite(Kept::new), Ok(9));
}
