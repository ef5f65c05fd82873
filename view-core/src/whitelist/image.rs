//! A restored image: a page that was open when it was sealed is open again after the restore,
//! because its record, authenticated under the owner's key, says so.

use super::{Evidence, EvidenceSource, Expiry, NoEvidence, Proposal, Rule};
use crate::addr::Gfn;
use crate::image::GenuineRecord;
use crate::state::PageState;
use crate::vm::Vm;

/// The rule itself. It has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct RestoredImage;

/// A page of an image whose manifest was verified.
#[derive(Clone, Copy, Debug)]
pub struct RestoredPage {
    /// Its record; only a verified manifest hands one out.
    pub record: GenuineRecord,
}

impl Rule for RestoredImage {
    const SOURCE: EvidenceSource = EvidenceSource::Image;
    type Fact = RestoredPage;

    fn infer(&self, vm: &Vm<'_>, fact: &RestoredPage) -> Result<Proposal, NoEvidence> {
        let gfn: Gfn = fact.record.gfn();
        vm.state(gfn).ok_or(NoEvidence::NoSuchPage(gfn.number()))?;
        match fact.record.state() {
            PageState::Open { kind, perm, mask } => Ok(Proposal::Share {
                evidence: Evidence::new(vm, gfn, kind, Self::SOURCE),
                gfn,
                perm,
                mask,
                expiry: Expiry::Never,
            }),
            PageState::Free
            | PageState::Building
            | PageState::Private
            | PageState::Replica
            | PageState::Sealed
            | PageState::PagedOut
            | PageState::Scrubbing
            | PageState::Poisoned => Ok(Proposal::Unshare { gfn }),
        }
    }
}
