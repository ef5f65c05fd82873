//! A guest from a sealed image. Everything is verified before anything runs; what fails leaves
//! nothing behind.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use view_core::image::{
    GenuineManifest, GenuineRecord, HEADER_SIZE, ImageError, ImageReader, ImageRoot, Record,
    TRAILER_SIZE,
};
use view_core::key::RootKey;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{OpenJob, PageCipher};
use view_core::whitelist::{RestoredImage, RestoredPage, Rule};
use view_core::{Act, Epoch, PAGE_SIZE, Page};
use zeroize::{Zeroize, Zeroizing};

use super::{Denied, Incarnation, StartError, TrustedVm, fresh_salt};
use crate::machine::{Kvm, MachineError};
use crate::memory::MemoryError;
use crate::state::{StateError, VcpuState};

/// Pages that are opened together.
const RUN: usize = 64;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The file can't be read.
    #[error("the image can't be read: {0}; nothing was restored")]
    Io(#[from] io::Error),
    /// The image is not what it should be.
    #[error("{0}; nothing was restored")]
    Image(ImageError),
    /// The machine could not be made.
    #[error("{0}; nothing was restored")]
    Start(#[from] StartError),
    /// A page was denied.
    #[error("{0}; nothing was restored")]
    Denied(#[from] Denied),
    /// The machine refused the state.
    #[error("{0}; nothing was restored")]
    Machine(#[from] MachineError),
    /// The genuine state is none of ours.
    #[error("{0}; nothing was restored")]
    State(#[from] StateError),
    /// The machine's memory is another.
    #[error("{0}; nothing was restored")]
    Memory(#[from] MemoryError),
    /// More pages than this process can count.
    #[error("{0} pages are too many for this machine; nothing was restored")]
    TooLarge(u64),
}

impl From<ImageError> for RestoreError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// An image whose header, trailer and records were verified, with the file it is in.
struct Opened {
    reader: ImageReader,
    records: Vec<Record>,
    trailer: [u8; TRAILER_SIZE],
}

impl Opened {
    fn new(root: &RootKey, file: &File) -> Result<Self, RestoreError> {
        let length = file.metadata()?.len();
        let mut block = vec![0; HEADER_SIZE.min(usize::try_from(length).unwrap_or(HEADER_SIZE))];
        file.read_exact_at(&mut block, 0)?;
        let reader = ImageReader::open(root, &block, Some(length))?;
        let geometry = reader.geometry();
        let pages = usize::try_from(geometry.pages());
        let pages = pages.map_err(|_| RestoreError::TooLarge(geometry.pages()))?;
        let mut records = vec![Record::default(); pages];
        file.read_exact_at(Record::bytes_mut(&mut records), geometry.records().start)?;
        let mut trailer = [0; TRAILER_SIZE];
        file.read_exact_at(&mut trailer, geometry.trailer().start)?;
        Ok(Self { reader, records, trailer })
    }

    fn verify(&self, pinned: Option<ImageRoot>) -> Result<GenuineManifest<'_>, RestoreError> {
        Ok(self.reader.verify(&self.records, &self.trailer, pinned)?)
    }

    fn state(
        &self,
        manifest: &GenuineManifest<'_>,
        file: &File,
    ) -> Result<Zeroizing<Vec<u8>>, RestoreError> {
        let range = self.reader.geometry().state();
        let length = usize::try_from(range.end - range.start).unwrap_or_default();
        let mut state = Zeroizing::new(vec![0; length]);
        file.read_exact_at(&mut state, range.start)?;
        let opened = manifest.open_state(&mut state)?.len();
        state.truncate(opened);
        Ok(state)
    }

    /// Opens every body, in order, and shows each page to `each`.
    fn bodies(
        &self,
        manifest: &GenuineManifest<'_>,
        file: &File,
        mut each: impl FnMut(&GenuineRecord, &Page) -> Result<(), RestoreError>,
    ) -> Result<(), RestoreError> {
        let cipher = SivCmac512::new(&self.reader.page_key());
        let records: Vec<GenuineRecord> = manifest.records().collect();
        let mut at = self.reader.geometry().bodies().start;
        let mut sealed = vec![Page::zeroed(); RUN];
        let mut plain = vec![Page::zeroed(); RUN];
        for some in records.chunks(RUN) {
            let Some(sealed) = sealed.get_mut(..some.len()) else { break };
            file.read_exact_at(zerocopy::IntoBytes::as_mut_bytes(sealed), at)?;
            at += (some.len() * PAGE_SIZE) as u64;
            let job = |((record, sealed), plain): ((&GenuineRecord, _), _)| {
                let (id, tag) = (record.page_id(), record.tag());
                OpenJob { id, sealed, tag, plain, genuine: false }
            };
            let staged = some.iter().zip(&*sealed).zip(&mut plain);
            let mut jobs: Vec<OpenJob<'_>> = staged.map(job).collect();
            cipher.open(&mut jobs);
            for (job, record) in jobs.iter_mut().zip(some) {
                if !job.genuine {
                    return Err(ImageError::PageForged(record.gfn()).into());
                }
                each(record, job.plain)?;
                job.plain.zeroize();
            }
        }
        Ok(())
    }
}

/// What a whole, verified image is.
#[derive(Clone, Copy, Debug)]
pub struct Verified {
    /// What the header says.
    pub header: view_core::image::Header,
    /// Its name.
    pub root: ImageRoot,
}

/// Verifies a whole image, every page and the state, and opens it for nobody.
///
/// # Errors
/// [`RestoreError`].
pub fn verify(
    root: &RootKey,
    file: &File,
    pinned: Option<ImageRoot>,
    mut each: impl FnMut(&Page),
) -> Result<Verified, RestoreError> {
    let opened = Opened::new(root, file)?;
    let manifest = opened.verify(pinned)?;
    let state = opened.state(&manifest, file)?;
    VcpuState::from_bytes(&state)?;
    opened.bodies(&manifest, file, |_, page| {
        each(page);
        Ok(())
    })?;
    Ok(Verified { header: *opened.reader.header(), root: manifest.root() })
}

impl TrustedVm {
    /// A VM as it was when the image was taken, in the next epoch; nothing runs yet. `pinned`
    /// refuses every image but one.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing was restored.
    pub fn restore(
        kvm: &Kvm,
        root: &RootKey,
        file: &File,
        pinned: Option<ImageRoot>,
    ) -> Result<Self, RestoreError> {
        let opened = Opened::new(root, file)?;
        let manifest = opened.verify(pinned)?;
        let state = VcpuState::from_bytes(&opened.state(&manifest, file)?)?;
        let header = opened.reader.header();
        let epoch = Epoch(header.epoch.0.saturating_add(1));
        let incarnation = Incarnation { vm: header.vm, epoch, salt: fresh_salt()? };
        let this = Self::build(kvm, root, incarnation, opened.records.len())?;
        this.sequence
            .store(header.sequence.saturating_add(1), std::sync::atomic::Ordering::Relaxed);
        opened.bodies(&manifest, file, |record, page| {
            // A page of zeroes is there already, and costs no memory.
            if page.bytes().iter().any(|byte| *byte != 0) {
                this.machine.memory().write_page(record.gfn(), page)?;
            }
            Ok(())
        })?;
        this.launch()?;
        this.reopen(&manifest)?;
        this.machine.load(0, &state)?;
        Ok(this)
    }

    /// What was open is open again, on the image's evidence; what was left out stays left out.
    fn reopen(&self, manifest: &GenuineManifest<'_>) -> Result<(), RestoreError> {
        for record in manifest.records() {
            if record.state().terms().is_some() {
                let fact = RestoredPage { record };
                if let Ok(proposal) = RestoredImage.infer(self.guard.vm(), &fact) {
                    let (gfn, act) = proposal.act();
                    self.guard.act(gfn, act)?;
                }
            }
            if record.excluded() {
                self.guard.act(record.gfn(), Act::Exclude(true))?;
            }
        }
        Ok(())
    }
}
