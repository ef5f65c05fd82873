//! What the management side of a platform of real bytes keeps: every sealed page that it was ever
//! given, and what it will hand over for a page that is paged in.

use std::collections::BTreeMap;

use view_core::suite::{PageId, Stream};
use view_core::{Gfn, Page, Place, SealStep, Target, What};

use super::PUBLIC;
use crate::bytes::Label;

/// Sealed pages, in the management side's own memory.
#[derive(Debug, Default)]
pub struct Kept {
    given: BTreeMap<Label, Box<Page>>,
    handed: BTreeMap<Gfn, Box<Page>>,
    /// Seals of pages that will be granted next: their bytes are read then.
    coming: BTreeMap<Gfn, (Target, PageId)>,
}

impl Kept {
    /// Pages were sealed; `wire` has those that went out.
    pub fn sealed(&mut self, steps: &[SealStep], mut wire: impl FnMut(Gfn) -> Option<Box<Page>>) {
        for SealStep { target, id, to, .. } in steps {
            match (to, target.gfn) {
                (Place::Wire, gfn) => {
                    if let Some(page) = wire(gfn) {
                        self.learn(target, id, page);
                    }
                }
                (Place::Replica | Place::InPlace, gfn) => {
                    self.coming.insert(gfn, (*target, *id));
                }
            }
        }
    }

    /// The management side was granted a page, and reads at once what it shows.
    pub fn granted(&mut self, page: &Target, what: What, shown: Option<Box<Page>>) {
        let sealed = matches!(what, What::Replica | What::Sealed);
        if let (true, Some((target, id)), Some(shown)) =
            (sealed, self.coming.remove(&page.gfn), shown)
        {
            self.learn(&target, &id, shown);
        }
    }

    fn learn(&mut self, target: &Target, id: &PageId, page: Box<Page>) {
        if id.stream == Stream::Resident {
            self.handed.insert(target.gfn, page.clone());
        }
        self.given.insert(Label::new(target.vm, id), page);
    }

    /// What is handed over for a page when the core has it fetched.
    pub fn handed(&self, gfn: Gfn) -> Option<Box<Page>> {
        self.handed.get(&gfn).cloned()
    }

    /// Spoils it.
    pub fn tamper(&mut self, gfn: Gfn) {
        if let Some([word, ..]) =
            self.handed.get_mut(&gfn).map(|page| page.bytes_mut().as_chunks_mut::<8>().0)
        {
            *word = PUBLIC.to_le_bytes();
        }
    }

    /// Has other bytes handed over; false if these were never given out.
    pub fn hand(&mut self, gfn: Gfn, seal: Label) -> bool {
        let Some(page) = self.given.get(&seal) else { return false };
        self.handed.insert(gfn, page.clone());
        true
    }
}
