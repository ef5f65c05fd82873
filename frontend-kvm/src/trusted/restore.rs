//! A guest from a sealed image. Everything is verified before anything runs; what fails leaves
//! nothing behind.

use std::fs::File;
use std::sync::atomic::Ordering;

use view_core::image::{GenuineManifest, ImageError, ImageRoot};
use view_core::key::RootKey;
use view_core::whitelist::{RestoredImage, RestoredPage, Rule};
use view_core::{Act, Epoch, Page};

use super::{Denied, Incarnation, StartError, TrustedVm, fresh_salt};
use crate::image_file::{ImageFile, ImageFileError};
use crate::machine::{Kvm, MachineError};
use crate::memory::MemoryError;
use crate::state::{StateError, VcpuState};

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The image is not what it should be, or can't be read.
    #[error("{0}; nothing was restored")]
    Image(#[from] ImageFileError),
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
}

impl From<ImageError> for RestoreError {
    fn from(error: ImageError) -> Self {
        Self::Image(error.into())
    }
}

/// Why an image is not genuine, or not one of this frontend's.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The image is not what it should be, or can't be read.
    #[error(transparent)]
    Image(#[from] ImageFileError),
    /// Its genuine state is none of ours.
    #[error(transparent)]
    State(#[from] StateError),
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
/// [`VerifyError`].
pub fn verify(
    root: &RootKey,
    file: &File,
    pinned: Option<ImageRoot>,
    mut each: impl FnMut(&Page),
) -> Result<Verified, VerifyError> {
    let image = ImageFile::open(root, file)?;
    let manifest = image.verify(pinned)?;
    VcpuState::from_bytes(&image.state(&manifest)?)?;
    image.bodies::<VerifyError>(&manifest, |_, page| {
        each(page);
        Ok(())
    })?;
    Ok(Verified { header: *image.header(), root: manifest.root() })
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
        let image = ImageFile::open(root, file)?;
        let manifest = image.verify(pinned)?;
        let state = VcpuState::from_bytes(&image.state(&manifest)?)?;
        let header = image.header();
        let epoch = Epoch(header.epoch.0.saturating_add(1));
        let incarnation = Incarnation { vm: header.vm, epoch, salt: fresh_salt()? };
        let this = Self::build(kvm, root, incarnation, image.pages())?;
        this.sequence.store(header.sequence.saturating_add(1), Ordering::Relaxed);
        image.bodies::<RestoreError>(&manifest, |record, page| {
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
