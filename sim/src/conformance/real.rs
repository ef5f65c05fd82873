//! The machine of real bytes and real ciphers, as a platform to be looked at.

use view_core::key::SivKey;
use view_core::suite::Tag;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::{Copies, Gfn, OpenStep, Page, Perm, Platform, SealStep, Target, View, What};

use super::{ConformingPlatform, Kept};
use crate::bytes::Label;
use crate::software::{NoSuchPage, Software, StreamCiphers};

/// [`Software`] under the shipped suite, and a manager that keeps what it is given.
#[derive(Debug)]
pub struct RealBytes {
    machine: Software<'static, SivCmac512>,
    kept: Kept,
}

impl Default for RealBytes {
    fn default() -> Self {
        let cipher = |byte| SivCmac512::new(&SivKey::new([byte; 64]));
        let (view, resident, image) = (cipher(1), cipher(2), cipher(3));
        let machine = Software::new(4, StreamCiphers { view, resident, image }, &[]);
        Self { machine, kept: Kept::default() }
    }
}

impl Platform for RealBytes {
    type Fault = NoSuchPage;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), NoSuchPage> {
        self.machine.withdraw(page, view)
    }

    fn fence(&mut self) -> Result<(), NoSuchPage> {
        self.machine.fence()
    }

    fn fetch(&mut self, page: &Target) -> Result<(), NoSuchPage> {
        if let Some(sealed) = self.kept.handed(page.gfn) {
            self.machine.hand_over(page.gfn, sealed);
        }
        self.machine.fetch(page)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), NoSuchPage> {
        self.machine.seal(steps, tags)?;
        self.kept.sealed(steps, |gfn| self.machine.take_wire(gfn));
        Ok(())
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
        self.machine.grant(page, view, what, perm)?;
        if view == View::Management {
            let shown = self.machine.management_load(page.gfn).cloned().map(Box::new);
            self.kept.granted(page, what, shown);
        }
        Ok(())
    }
}

impl ConformingPlatform for RealBytes {
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
        self.kept.tamper(gfn);
    }

    fn hand(&mut self, gfn: Gfn, seal: Label) -> bool {
        self.kept.hand(gfn, seal)
    }
}

/// The first eight bytes of a page.
pub fn first_word(page: &Page) -> u64 {
    let (words, _) = page.bytes().as_chunks::<8>();
    words.first().map_or(0, |word| u64::from_le_bytes(*word))
}
