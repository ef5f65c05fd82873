//! The keys of one incarnation of a VM, expanded: one cipher for each stream.

use view_core::key::{RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{PageCipher, Stream};
use view_core::{Epoch, VmId};

/// One cipher for each stream.
#[derive(Debug)]
pub struct Ciphers {
    view: SivCmac512,
    resident: SivCmac512,
    image: SivCmac512,
}

impl Ciphers {
    /// Derives the keys of an incarnation of a VM.
    pub fn new(root: &RootKey, vm: &VmId, (epoch, salt): (Epoch, &Salt)) -> Self {
        let epoch = root.vm(vm).epoch(epoch, salt, SivCmac512::SUITE);
        let cipher = |stream: Stream| SivCmac512::new(&epoch.siv(stream.id()));
        let [view, resident, image] = [Stream::View, Stream::Resident, Stream::Image].map(cipher);
        Self { view, resident, image }
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
