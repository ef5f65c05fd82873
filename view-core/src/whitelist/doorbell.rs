//! The guest's own doorbell: the guest shares, unshares or excludes a page of its own by a call
//! that the trusted side intercepts before the management side sees it.

use super::{Evidence, EvidenceSource, Expiry, NoEvidence, Proposal, Rule};
use crate::addr::{Gfn, VmNumber};
use crate::perm::{MaskId, PageKind, Perm};
use crate::vm::Vm;

/// Five words as the guest had them in registers when it rang. Nothing in them is checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorbellFact {
    /// Which VM's CPU rang: the trusted side's own knowledge, not the guest's word.
    pub vm: VmNumber,
    /// The call: one of [`Doorbell::SHARE`], [`Doorbell::UNSHARE`], [`Doorbell::EXCLUDE`],
    /// [`Doorbell::INCLUDE`].
    pub call: u64,
    /// The page.
    pub gfn: u64,
    /// 1: the host may read; 3: read and write.
    pub perm: u64,
    /// The field mask, 0 for the whole page.
    pub mask: u64,
    /// 0: until the guest unshares; [`u64::MAX`]: until the host first unmaps; else a deadline in
    /// the trusted side's ticks.
    pub expiry: u64,
}

/// The rule itself. It has no state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Doorbell;

impl Doorbell {
    /// Open a page to the management side.
    pub const SHARE: u64 = 1;
    /// Take it back.
    pub const UNSHARE: u64 = 2;
    /// Leave a page out of checkpoints.
    pub const EXCLUDE: u64 = 3;
    /// Take it in again.
    pub const INCLUDE: u64 = 4;
}

impl Rule for Doorbell {
    const SOURCE: EvidenceSource = EvidenceSource::Guest;
    type Fact = DoorbellFact;

    fn infer(&self, vm: &Vm<'_>, fact: &DoorbellFact) -> Result<Proposal, NoEvidence> {
        if fact.vm != vm.number() {
            return Err(NoEvidence::WrongVm);
        }
        let no_page = NoEvidence::NoSuchPage(fact.gfn);
        let gfn = Gfn::new(fact.gfn).map_err(|_| no_page)?;
        vm.state(gfn).ok_or(no_page)?;
        match fact.call {
            Self::SHARE => Ok(Proposal::Share {
                evidence: Evidence::new(vm, gfn, PageKind::MAILBOX, Self::SOURCE),
                gfn,
                perm: match fact.perm {
                    1 => Perm::Read,
                    3 => Perm::ReadWrite,
                    other => return Err(NoEvidence::NoSuchPermission(other)),
                },
                mask: u8::try_from(fact.mask)
                    .ok()
                    .and_then(MaskId::new)
                    .ok_or(NoEvidence::NoSuchMask(fact.mask))?,
                expiry: match fact.expiry {
                    0 => Expiry::Never,
                    u64::MAX => Expiry::FirstUnmap,
                    tick => Expiry::At(tick),
                },
            }),
            Self::UNSHARE => Ok(Proposal::Unshare { gfn }),
            Self::EXCLUDE => Ok(Proposal::Exclude { gfn, excluded: true }),
            Self::INCLUDE => Ok(Proposal::Exclude { gfn, excluded: false }),
            other => Err(NoEvidence::NoSuchCall(other)),
        }
    }
}
