//! A machine of real bytes and no hardware: the core's platform over plain vectors, with the
//! shipped cipher. Where there is no KVM, guests of the demo live here.
//!
//! One CPU, no caches: what is withdrawn is gone at once, so a fence has nothing to do. What can go
//! wrong between a withdrawal and a fence is the business of [`crate::machine`].

use std::collections::{BTreeMap, BTreeSet};

use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Stream, Tag};
use view_core::{
    Copies, Gfn, Mask, MaskId, OpenStep, Page, Perm, Place, Platform, SealStep, Source, Target,
    View, What, show_fields,
};

/// What the machine could not do: the page it was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchPage(pub Gfn);

/// One cipher for each stream.
#[derive(Debug)]
pub struct StreamCiphers<C> {
    /// Of [`Stream::View`].
    pub view: C,
    /// Of [`Stream::Resident`].
    pub resident: C,
    /// Of [`Stream::Image`].
    pub image: C,
}

impl<C> StreamCiphers<C> {
    const fn of(&self, stream: Stream) -> &C {
        match stream {
            Stream::View => &self.view,
            Stream::Resident => &self.resident,
            Stream::Image => &self.image,
        }
    }
}

/// A guest's memory and what each view of it is mapped to.
#[derive(Debug)]
pub struct Software<'m, C> {
    ciphers: StreamCiphers<C>,
    masks: &'m [Mask<'m>],
    memory: Vec<Page>,
    owner: BTreeSet<Gfn>,
    management: BTreeMap<Gfn, (What, Perm)>,
    replicas: BTreeMap<Gfn, Box<Page>>,
    masked: BTreeMap<Gfn, Box<Page>>,
    wire: BTreeMap<Gfn, Box<Page>>,
    inbox: BTreeMap<Gfn, Box<Page>>,
}

impl<'m, C: PageCipher<Id = PageId>> Software<'m, C> {
    /// A machine with `pages` pages of zeroes that nobody has mapped.
    pub fn new(pages: usize, ciphers: StreamCiphers<C>, masks: &'m [Mask<'m>]) -> Self {
        Self {
            ciphers,
            masks,
            memory: vec![Page::zeroed(); pages],
            owner: BTreeSet::new(),
            management: BTreeMap::new(),
            replicas: BTreeMap::new(),
            masked: BTreeMap::new(),
            wire: BTreeMap::new(),
            inbox: BTreeMap::new(),
        }
    }

    /// What a load of the guest finds; `None` is a fault.
    pub fn owner_load(&self, gfn: Gfn) -> Option<&Page> {
        self.owner.contains(&gfn).then(|| self.frame(gfn).ok()).flatten()
    }

    /// A store of the guest; false is a fault.
    #[must_use = "a store that faulted stored nothing"]
    pub fn owner_store(&mut self, gfn: Gfn, offset: usize, bytes: &[u8]) -> bool {
        let mapped = self.owner.contains(&gfn);
        let frame = if mapped { self.frame_mut(gfn).ok() } else { None };
        store(frame, offset, bytes)
    }

    /// What a load of the management side finds; `None` is a fault.
    pub fn management_load(&self, gfn: Gfn) -> Option<&Page> {
        match self.management.get(&gfn)?.0 {
            What::Plain | What::Sealed => self.frame(gfn).ok(),
            What::Replica => self.replicas.get(&gfn).map(Box::as_ref),
            What::Masked(_) => self.masked.get(&gfn).map(Box::as_ref),
        }
    }

    /// A store of the management side; false is a fault.
    #[must_use = "a store that faulted stored nothing"]
    pub fn management_store(&mut self, gfn: Gfn, offset: usize, bytes: &[u8]) -> bool {
        match self.management.get(&gfn) {
            Some((What::Plain, Perm::ReadWrite)) => store(self.frame_mut(gfn).ok(), offset, bytes),
            Some(_) | None => false,
        }
    }

    /// The trusted side fills a page before launch.
    ///
    /// # Errors
    /// [`NoSuchPage`].
    pub fn fill(&mut self, gfn: Gfn, page: &Page) -> Result<(), NoSuchPage> {
        self.frame_mut(gfn)?.clone_from(page);
        Ok(())
    }

    /// The sealed page that the last batch put on the wire.
    pub fn take_wire(&mut self, gfn: Gfn) -> Option<Box<Page>> {
        self.wire.remove(&gfn)
    }

    /// The management side hands over sealed bytes for a page.
    pub fn hand_over(&mut self, gfn: Gfn, sealed: Box<Page>) {
        self.inbox.insert(gfn, sealed);
    }

    fn frame(&self, gfn: Gfn) -> Result<&Page, NoSuchPage> {
        let index = usize::try_from(gfn.number()).map_err(|_| NoSuchPage(gfn))?;
        self.memory.get(index).ok_or(NoSuchPage(gfn))
    }

    fn frame_mut(&mut self, gfn: Gfn) -> Result<&mut Page, NoSuchPage> {
        let index = usize::try_from(gfn.number()).map_err(|_| NoSuchPage(gfn))?;
        self.memory.get_mut(index).ok_or(NoSuchPage(gfn))
    }

    fn show_masked(&mut self, gfn: Gfn, mask: MaskId) -> Result<(), NoSuchPage> {
        let mut shown = Box::new(Page::zeroed());
        // A mask that the VM has not shows nothing.
        let _ = show_fields(self.masks, mask, self.frame(gfn)?, &mut shown);
        self.masked.insert(gfn, shown);
        Ok(())
    }
}

fn store(frame: Option<&mut Page>, offset: usize, bytes: &[u8]) -> bool {
    let run = offset..offset.saturating_add(bytes.len());
    let target = frame.and_then(|frame| frame.bytes_mut().get_mut(run));
    target.map(|target| target.copy_from_slice(bytes)).is_some()
}

impl<C: PageCipher<Id = PageId>> Platform for Software<'_, C> {
    type Fault = NoSuchPage;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), NoSuchPage> {
        match view {
            View::Owner => {
                self.owner.remove(&page.gfn);
            }
            View::Management => {
                self.management.remove(&page.gfn);
                self.masked.remove(&page.gfn);
            }
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<(), NoSuchPage> {
        Ok(())
    }

    fn fetch(&mut self, page: &Target) -> Result<(), NoSuchPage> {
        let sealed = self.inbox.remove(&page.gfn).ok_or(NoSuchPage(page.gfn))?;
        self.fill(page.gfn, &sealed)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), NoSuchPage> {
        for (step, tag) in steps.iter().zip(tags) {
            let staged = match step.from {
                Source::Frame => Box::new(self.frame(step.target.gfn)?.clone()),
                Source::Zeroes => Box::new(Page::zeroed()),
            };
            let mut sealed = Box::new(Page::zeroed());
            let mut jobs = [SealJob::new(step.id, &staged, &mut sealed)];
            self.ciphers.of(step.id.stream).seal(&mut jobs, Landing::Hot);
            [*tag] = jobs.map(|job| job.tag());
            match step.to {
                Place::Replica => drop(self.replicas.insert(step.target.gfn, sealed)),
                Place::Wire => drop(self.wire.insert(step.target.gfn, sealed)),
                Place::InPlace => self.fill(step.target.gfn, &sealed)?,
            }
        }
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), NoSuchPage> {
        for (step, genuine) in steps.iter().zip(genuine) {
            let sealed = Box::new(self.frame(step.target.gfn)?.clone());
            let mut plain = Box::new(Page::zeroed());
            let (id, tag) = (step.id, step.tag);
            let mut jobs = [OpenJob::new(id, &sealed, tag, &mut plain)];
            self.ciphers.of(Stream::Resident).open(&mut jobs, Landing::Hot);
            [*genuine] = jobs.map(|job| job.genuine());
            self.fill(step.target.gfn, &plain)?;
        }
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), NoSuchPage> {
        if matches!(copies, Copies::Replica | Copies::All) {
            self.replicas.remove(&page.gfn);
            self.masked.remove(&page.gfn);
        }
        if matches!(copies, Copies::Original | Copies::All) {
            self.frame_mut(page.gfn)?.bytes_mut().fill(0);
        }
        Ok(())
    }

    fn grant(
        &mut self,
        page: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), NoSuchPage> {
        if let What::Masked(mask) = what {
            self.show_masked(page.gfn, mask)?;
        }
        match view {
            View::Owner => drop(self.owner.insert(page.gfn)),
            View::Management => drop(self.management.insert(page.gfn, (what, perm))),
        }
        Ok(())
    }
}
