//! The keys of one incarnation of a VM, expanded: one cipher for each stream.

use view_core::key::{EpochKey, RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{PageCipher, Stream};
use view_core::{Epoch, VmId};

/// Which incarnation of which VM: what keys are derived from, none of it secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// The VM's name for life.
    pub vm: VmId,
    /// How often it was restored.
    pub epoch: Epoch,
    /// Fresh random bytes for this epoch.
    pub salt: Salt,
}

/// One cipher for each stream, and the key that they were derived from.
#[derive(Debug)]
pub struct Ciphers {
    /// For headers, state and manifests of images.
    pub epoch: EpochKey,
    view: SivCmac512,
    resident: SivCmac512,
    image: SivCmac512,
}

impl Ciphers {
    /// Derives every key of an incarnation.
    pub fn new(root: &RootKey, incarnation: &Incarnation) -> Self {
        let Incarnation { vm, epoch, salt } = incarnation;
        let epoch = root.vm(vm).epoch(*epoch, salt, SivCmac512::SUITE);
        let cipher = |stream: Stream| SivCmac512::new(&epoch.siv(stream.id()));
        let [view, resident, image] = [Stream::View, Stream::Resident, Stream::Image].map(cipher);
        Self { epoch, view, resident, image }
    }

    /// The cipher of one stream.
    pub const fn of(&self, stream: Stream) -> &SivCmac512 {
        match stream {
            Stream::View => &self.view,
            Stream::Resident => &self.resident,
            Stream::Image => &self.image,
        }
    }
}
