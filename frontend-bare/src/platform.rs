//! The core's platform over nested tables: carries out what the core decides.

use view_core::suite::{Landing, OpenJob, PageCipher, SealJob, Stream, Tag};
use view_core::{
    Copies, Mask, MaskId, OpenStep, Page, Perm, Place, Platform, SealStep, Source, Target, View,
    What, show_fields,
};
use zeroize::Zeroize;

use crate::ciphers::Ciphers;
use crate::memory::Host;
use crate::table::NestedTable;
use crate::views::{Kind, ViewFault, Views};

/// Two pages in the monitor's own memory, through which everything goes that is sealed or opened.
#[derive(Debug)]
pub struct Staging {
    plain: Page,
    sealed: Page,
}

impl Default for Staging {
    fn default() -> Self {
        Self { plain: Page::zeroed(), sealed: Page::zeroed() }
    }
}

/// One CPU's handle while it is in the monitor.
#[derive(Debug)]
pub struct BarePlatform<'b, H, const FRAMES: usize, const COPIES: usize> {
    /// The machine below.
    pub host: &'b mut H,
    /// What the hypervisor reaches.
    pub views: &'b mut Views<FRAMES, COPIES>,
    /// What the guest reaches, by its own page numbers.
    pub guest: &'b mut NestedTable,
    /// The guest's keys.
    pub ciphers: &'b Ciphers,
    /// Field masks; [`MaskId`] 1 is the first.
    pub masks: &'b [Mask<'b>],
    /// Where pages are sealed and opened.
    pub staging: &'b mut Staging,
}

impl<H: Host, const FRAMES: usize, const COPIES: usize> BarePlatform<'_, H, FRAMES, COPIES> {
    fn seal_one(&mut self, step: &SealStep) -> Result<Tag, ViewFault> {
        let Staging { plain, sealed } = &mut *self.staging;
        match step.from {
            Source::Frame => self.host.read(step.target.frame, plain),
            Source::Zeroes => plain.zeroize(),
        }
        let mut jobs = [SealJob::new(step.id, plain, sealed)];
        self.ciphers.of(step.id.stream).seal(&mut jobs, Landing::Hot);
        let tag = jobs[0].tag();
        plain.zeroize();
        match step.to {
            Place::InPlace => self.host.write(step.target.frame, sealed),
            Place::Replica => {
                let at = self.views.copy_or_new(&step.target, Kind::Replica)?;
                self.host.write(at, sealed);
            }
            Place::Wire if self.host.send(&step.target, sealed) => {}
            Place::Wire => return Err(ViewFault::NoWire(step.target)),
        }
        Ok(tag)
    }

    fn open_one(&mut self, step: &OpenStep) -> bool {
        let Staging { plain, sealed } = &mut *self.staging;
        self.host.read(step.target.frame, sealed);
        let mut jobs = [OpenJob::new(step.id, sealed, step.tag, plain)];
        self.ciphers.of(Stream::Resident).open(&mut jobs, Landing::Hot);
        let genuine = jobs[0].genuine();
        // What is not genuine was zeroed by the suite.
        self.host.write(step.target.frame, plain);
        plain.zeroize();
        genuine
    }

    fn show_masked(&mut self, page: &Target, mask: MaskId) -> Result<(), ViewFault> {
        let at = self.views.copy_or_new(page, Kind::Masked)?;
        let Staging { plain, sealed: shown } = &mut *self.staging;
        self.host.read(page.frame, plain);
        // A mask that the VM has not shows nothing.
        let _ = show_fields(self.masks, mask, plain, shown);
        plain.zeroize();
        self.host.write(at, shown);
        self.views.show_host(self.host, page, (at, Perm::Read))
    }
}

impl<H: Host, const FRAMES: usize, const COPIES: usize> Platform
    for BarePlatform<'_, H, FRAMES, COPIES>
{
    type Fault = ViewFault;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), ViewFault> {
        match view {
            View::Owner => self.guest.unmap(self.host, &mut self.views.pool, page.gfn),
            View::Management => self.views.hide_host(self.host, page),
        }
        Ok(())
    }

    fn fence(&mut self) -> Result<(), ViewFault> {
        self.host.flush();
        self.views.drop_leaving(self.host);
        Ok(())
    }

    /// The hypervisor handed the sealed bytes over in the frame itself, and reaches it no more.
    fn fetch(&mut self, _: &Target) -> Result<(), ViewFault> {
        Ok(())
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ViewFault> {
        for (step, tag) in steps.iter().zip(tags) {
            *tag = self.seal_one(step)?;
        }
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ViewFault> {
        for (step, genuine) in steps.iter().zip(genuine) {
            *genuine = self.open_one(step);
        }
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), ViewFault> {
        if matches!(copies, Copies::Original | Copies::All) {
            self.host.wipe(page.frame);
        }
        if matches!(copies, Copies::Replica | Copies::All) {
            self.views.drop_replica(self.host, page);
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
        match (view, what) {
            (View::Owner, _) => self.views.show_guest(self.host, self.guest, (page, perm)),
            (View::Management, What::Plain | What::Sealed) => {
                self.views.show_host(self.host, page, (page.frame, perm))
            }
            (View::Management, What::Replica) => {
                let at = self.views.copy(page, Kind::Replica).ok_or(ViewFault::NoCopy(*page))?;
                self.views.show_host(self.host, page, (at, Perm::Read))
            }
            (View::Management, What::Masked(mask)) => self.show_masked(page, mask),
        }
    }
}
