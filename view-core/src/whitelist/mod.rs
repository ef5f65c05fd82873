//! The whitelist: which pages the management side may see in plain, on whose evidence, how long.
//!
//! The management side's word is never evidence. [`Evidence`] has one constructor, and only the
//! rules in this folder can call it: each rule turns one kind of fact into a proposal. A new rule
//! is a new file here and a line in spec/invariants.md's table of rules.

mod doorbell;
mod image;
mod lease;

pub use doorbell::{Doorbell, DoorbellFact};
pub use image::{RestoredImage, RestoredPage};
pub(crate) use lease::LeaseIndex;
pub use lease::{Expiry, Lease, Leases};

use crate::addr::{Epoch, Gfn, VmNumber};
use crate::perm::{MaskId, PageKind, Perm};
use crate::vm::Vm;

/// Where a fact comes from that makes a page harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EvidenceSource {
    /// The trusted side allocated the page for sharing itself.
    Trusted,
    /// The guest did it by an act of its own.
    Guest,
    /// The hypervisor's page-type system says so.
    Types,
    /// Authenticated data of a sealed image.
    Image,
}

/// Proof that a page may be opened: about one page of one VM in one epoch.
///
/// ```compile_fail,E0451
/// fn forge(gfn: view_core::Gfn) -> view_core::whitelist::Evidence {
///     view_core::whitelist::Evidence { gfn, ..todo!() }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    vm: VmNumber,
    epoch: Epoch,
    gfn: Gfn,
    kind: PageKind,
    source: EvidenceSource,
}

impl Evidence {
    /// The one constructor; its callers are the rules beside this file.
    fn new(vm: &Vm<'_>, gfn: Gfn, kind: PageKind, source: EvidenceSource) -> Self {
        Self { vm: vm.number(), epoch: vm.epoch(), gfn, kind, source }
    }

    /// Whether it is about this page of this VM in its present epoch.
    pub fn is_about(&self, vm: &Vm<'_>, gfn: Gfn) -> bool {
        self.vm == vm.number() && self.epoch == vm.epoch() && self.gfn == gfn
    }

    /// What the page is opened for.
    pub const fn kind(&self) -> PageKind {
        self.kind
    }

    /// Where the fact comes from.
    pub const fn source(&self) -> EvidenceSource {
        self.source
    }
}

/// What a rule concludes from a fact. Whether it can be done is the table's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// Open a page.
    Share {
        /// The proof.
        evidence: Evidence,
        /// Which page.
        gfn: Gfn,
        /// What the management side may do with it.
        perm: Perm,
        /// Which fields show.
        mask: MaskId,
        /// How long.
        expiry: Expiry,
    },
    /// Close a page.
    Unshare {
        /// Which page.
        gfn: Gfn,
    },
    /// Leave a page out of checkpoints, or take it in again.
    Exclude {
        /// Which page.
        gfn: Gfn,
        /// Whether it is left out.
        excluded: bool,
    },
}

impl Proposal {
    /// The page and the act that carries the proposal out.
    pub const fn act(self) -> (Gfn, crate::state::Act) {
        use crate::state::Act;
        match self {
            Self::Share { evidence, gfn, perm, mask, expiry } => {
                (gfn, Act::Share(evidence, perm, mask, expiry))
            }
            Self::Unshare { gfn } => (gfn, Act::Unshare),
            Self::Exclude { gfn, excluded } => (gfn, Act::Exclude(excluded)),
        }
    }
}

/// Why a fact proves nothing. Says which word of it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEvidence {
    /// The fact is about another VM.
    WrongVm,
    /// The VM has no page with this number.
    NoSuchPage(u64),
    /// There is no such call.
    NoSuchCall(u64),
    /// These are no permissions.
    NoSuchPermission(u64),
    /// The VM has no such mask.
    NoSuchMask(u64),
}

/// Turns one kind of fact into proposals. Everything in a fact may come from an enemy.
pub trait Rule {
    /// Where this rule's facts come from.
    const SOURCE: EvidenceSource;
    /// What the trusted side saw.
    type Fact;

    /// What the fact proves about a page of `vm`.
    ///
    /// # Errors
    /// [`NoEvidence`], naming the first word of the fact that is out of bounds.
    fn infer(&self, vm: &Vm<'_>, fact: &Self::Fact) -> Result<Proposal, NoEvidence>;
}
