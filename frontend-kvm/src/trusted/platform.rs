//! The core's platform on KVM: carries out what the core decides, one handle a thread.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Stream, Tag};
use view_core::{
    Copies, Gfn, Mask, MaskId, OpenStep, Page, Perm, Place, Platform, SealStep, Source, Target,
    View, What, show_fields,
};
use zeroize::Zeroize;

use super::ciphers::Ciphers;
use super::views::{ViewFault, Views};
use super::wear::StreamWear;
use crate::harden::SecretBox;

/// Pages that are staged together: they stay in a second-level cache until they are copied on.
/// Their jobs are on the stack.
const TURN: usize = 64;

/// What every thread's handle shares.
#[derive(Debug)]
pub struct Shared {
    /// Both views of the guest's memory.
    pub views: Views,
    /// One cipher for each stream.
    pub ciphers: SecretBox<Ciphers>,
    /// Field masks; [`MaskId`] 1 is the first.
    pub masks: &'static [Mask<'static>],
    /// How much each stream's key has sealed.
    pub wear: StreamWear,
    /// Sealed pages that the management side handed over, one a page.
    inbox: Mutex<BTreeMap<Gfn, Box<Page>>>,
}

impl Shared {
    /// What threads share of one VM.
    pub fn new(views: Views, ciphers: SecretBox<Ciphers>, masks: &'static [Mask<'static>]) -> Self {
        let (wear, inbox) = (StreamWear::default(), Mutex::new(BTreeMap::new()));
        Self { views, ciphers, masks, wear, inbox }
    }

    /// Keeps sealed bytes that came in for a page until the core fetches them.
    ///
    /// # Errors
    /// The guest has no such page.
    pub fn hand_over(&self, gfn: Gfn, sealed: Box<Page>) -> Result<(), ViewFault> {
        self.views.memory().index_of(gfn, 1)?;
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).insert(gfn, sealed);
        Ok(())
    }
}

/// One thread's handle. Its staging pages are wiped after every use.
#[derive(Debug)]
pub struct KvmPlatform {
    shared: Arc<Shared>,
    plain: Vec<Page>,
    sealed: Vec<Page>,
    /// Sealed pages on their way: replicas until they are granted, the rest until it is taken.
    outbox: BTreeMap<Gfn, Box<Page>>,
    /// Withdrawn from the management side, not yet from every CPU.
    withdrawn: Vec<Gfn>,
}

impl KvmPlatform {
    /// A handle of the calling thread.
    pub fn new(shared: Arc<Shared>) -> Self {
        let (plain, sealed, withdrawn) = (Vec::new(), Vec::new(), Vec::new());
        Self { shared, plain, sealed, outbox: BTreeMap::new(), withdrawn }
    }

    /// The sealed page that the last batch put on the wire.
    pub fn take_wire(&mut self, gfn: Gfn) -> Option<Box<Page>> {
        self.outbox.remove(&gfn)
    }

    fn stage(&mut self, pages: usize) {
        let grow = |staging: &mut Vec<Page>| {
            if staging.len() < pages {
                staging.resize_with(pages, Page::zeroed);
            }
        };
        grow(&mut self.plain);
        grow(&mut self.sealed);
    }

    /// At most [`TURN`] pages: copies them into staging, seals them there, wipes the copies.
    fn seal_turn(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ViewFault> {
        self.stage(steps.len());
        for (step, staged) in steps.iter().zip(&mut self.plain) {
            match step.from {
                Source::Frame => self.shared.views.read_guest(step.target.gfn, staged)?,
                Source::Zeroes => staged.zeroize(),
            }
        }
        let (mut staged, mut tags) = (self.plain.iter().zip(&mut self.sealed), tags.iter_mut());
        for run in steps.chunk_by(|a, b| a.id.stream == b.id.stream) {
            let Some(SealStep { id: PageId { stream, .. }, .. }) = run.first() else { continue };
            let job =
                |(step, (plain, sealed)): (&SealStep, _)| SealJob::new(step.id, plain, sealed);
            let mut jobs: heapless::Vec<SealJob<'_>, TURN> =
                run.iter().zip(staged.by_ref()).map(job).collect();
            // Hot: the next thing that happens to sealed pages is that they are copied on.
            self.shared.ciphers.of(*stream).seal(&mut jobs, Landing::Hot);
            for (job, tag) in jobs.iter().zip(tags.by_ref()) {
                *tag = job.tag();
            }
        }
        self.plain.iter_mut().take(steps.len()).for_each(Zeroize::zeroize);
        (0..).zip(steps).try_for_each(|(index, step)| self.place(index, step))
    }

    /// At most [`TURN`] pages, copied into staging, opened there and copied back.
    fn open_turn(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ViewFault> {
        self.stage(steps.len());
        for (step, staged) in steps.iter().zip(&mut self.sealed) {
            self.shared.views.memory().read_page(step.target.gfn, staged)?;
        }
        let job = |((sealed, plain), step): ((_, _), &OpenStep)| {
            let (id, tag): (PageId, Tag) = (step.id, step.tag);
            OpenJob::new(id, sealed, tag, plain)
        };
        let staged = self.sealed.iter().zip(&mut self.plain);
        let mut jobs: heapless::Vec<OpenJob<'_>, TURN> = staged.zip(steps).map(job).collect();
        // Hot: they are copied on below.
        self.shared.ciphers.of(Stream::Resident).open(&mut jobs, Landing::Hot);
        for ((job, step), genuine) in jobs.iter_mut().zip(steps).zip(genuine) {
            *genuine = job.genuine();
            // What is not genuine was zeroed by the suite.
            self.shared.views.memory().write_page(step.target.gfn, job.plain())?;
            job.zeroize();
        }
        Ok(())
    }

    fn place(&mut self, index: usize, step: &SealStep) -> Result<(), ViewFault> {
        let Some(sealed) = self.sealed.get(index) else { return Ok(()) };
        match step.to {
            Place::InPlace => Ok(self.shared.views.memory().write_page(step.target.gfn, sealed)?),
            Place::Replica | Place::Wire => {
                self.outbox.insert(step.target.gfn, Box::new(sealed.clone()));
                Ok(())
            }
        }
    }

    fn masked(&self, gfn: Gfn, mask: MaskId) -> Result<Page, ViewFault> {
        let (mut page, mut shown) = (Page::zeroed(), Page::zeroed());
        self.shared.views.read_guest(gfn, &mut page)?;
        // A mask that the VM has not shows nothing.
        let _ = show_fields(self.shared.masks, mask, &page, &mut shown);
        page.zeroize();
        Ok(shown)
    }
}

impl Drop for KvmPlatform {
    fn drop(&mut self) {
        self.plain.zeroize();
    }
}

impl Platform for KvmPlatform {
    type Fault = ViewFault;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), ViewFault> {
        let withdrawn = match view {
            View::Owner => self.shared.views.close_guest(page.gfn),
            View::Management => {
                self.withdrawn.push(page.gfn);
                self.shared.views.close_live(page.gfn)
            }
        };
        if let Err(fault) = withdrawn {
            // The guest may run on where others look, and no vCPU can be stopped from here in
            // time: without this process there is no guest.
            eprintln!(
                "pageveil: page {:#x} stays mapped: {fault}; the guest ends",
                page.gfn.number()
            );
            std::process::abort();
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<(), ViewFault> {
        // The guest's side needs none: replacing a mapping is synchronous.
        let mut withdrawn = std::mem::take(&mut self.withdrawn);
        withdrawn.sort_unstable();
        let runs = withdrawn.chunk_by(|a, b| a.number() + 1 == b.number());
        let runs = runs.filter_map(|run| Some((*run.first()?, run.len())));
        // A run that fails does not keep the others mapped.
        let mut done = Ok(());
        for (first, pages) in runs {
            done = done.and(self.shared.views.punch(first, pages));
        }
        done
    }

    fn fetch(&mut self, page: &Target) -> Result<(), ViewFault> {
        let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = inbox.remove(&page.gfn);
        let sealed = sealed.ok_or(ViewFault::NothingHandedOver(page.gfn.number()))?;
        self.shared.views.close_guest(page.gfn)?;
        Ok(self.shared.views.memory().write_page(page.gfn, &sealed)?)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ViewFault> {
        let mut turns = steps.chunks(TURN).zip(tags.chunks_mut(TURN));
        turns.try_for_each(|(steps, tags)| self.seal_turn(steps, tags))
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ViewFault> {
        let mut turns = steps.chunks(TURN).zip(genuine.chunks_mut(TURN));
        turns.try_for_each(|(steps, genuine)| self.open_turn(steps, genuine))
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), ViewFault> {
        if matches!(copies, Copies::Original | Copies::All) {
            self.shared.views.memory().punch(page.gfn)?;
        }
        // What is on its way out stays: it is sealed, and a page that is paged out is nowhere else.
        if matches!(copies, Copies::Replica | Copies::All) {
            self.shared.views.punch(page.gfn, 1)?;
        }
        Ok(())
    }

    fn grant(
        &mut self,
        page: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), ViewFault> {
        // Nobody but this process can write to the view file: stores of the management side come
        // as requests, and are let through by what was granted last.
        let views = &self.shared.views;
        match (view, what) {
            (View::Owner, _) => views.reopen_guest(page.gfn),
            (View::Management, What::Plain) => views.open_live(page.gfn, perm),
            (View::Management, What::Masked(mask)) => {
                let shown = self.masked(page.gfn, mask)?;
                views.show_copy(page.gfn, &shown)
            }
            (View::Management, What::Replica) => {
                let nothing = ViewFault::NothingHandedOver(page.gfn.number());
                let sealed = self.outbox.remove(&page.gfn).ok_or(nothing)?;
                views.show_copy(page.gfn, &sealed)
            }
            (View::Management, What::Sealed) => {
                let mut sealed = Page::zeroed();
                views.memory().read_page(page.gfn, &mut sealed)?;
                views.show_copy(page.gfn, &sealed)
            }
        }
    }
}
