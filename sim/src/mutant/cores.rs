//! Cores that are wrong on purpose: the shipped core, switched wrong in one place.
//!
//! The switch is compiled only with the feature `wrong-cores`, which sim's own tests turn on. What
//! is not compiled in is not in the list either.

#[cfg(feature = "wrong-cores")]
use view_core::WrongCore;

use super::{Entry, Mutant};

#[cfg(not(feature = "wrong-cores"))]
pub(super) const CORES: &[Entry] = &[];

/// All of them.
#[cfg(feature = "wrong-cores")]
pub(super) const CORES: &[Entry] = &[
    entry(
        WrongCore::KeepsVersion,
        "core-keeps-version",
        "the core does not use a version up with the seal that is made under it",
        "page",
        &["C6", "C7", "F2"],
    ),
    entry(
        WrongCore::SkipsFence,
        "core-skips-fence",
        "the core does not fence what it withdrew",
        "page",
        &["C1", "C2", "C3", "I1"],
    ),
    entry(
        WrongCore::FencesLate,
        "core-fences-late",
        "the core seals and grants first, and fences then",
        "page",
        &["C1"],
    ),
    entry(
        WrongCore::WithdrawsOwnerOnly,
        "core-withdraws-owner-only",
        "the core withdraws pages from their owners and never from the management side",
        "page",
        &["C1", "C2", "C3"],
    ),
    entry(
        WrongCore::SkipsScrub,
        "core-skips-scrub",
        "the core wipes nothing",
        "build",
        &["C1", "C8", "I1"],
    ),
    entry(
        WrongCore::CommitsForged,
        "core-commits-forged",
        "the core grants and commits a page that is not genuine",
        "page",
        &["I1", "I7"],
    ),
    entry(
        WrongCore::ForgetsFirstUnmap,
        "core-forgets-first-unmap",
        "a page that is open until it is first unmapped stays open",
        "terms",
        &["C4"],
    ),
    entry(
        WrongCore::IgnoresEvidence,
        "core-ignores-evidence",
        "the core opens a page on evidence about another",
        "pages",
        &["C1", "C4"],
    ),
    entry(
        WrongCore::TakesAnyFrame,
        "core-takes-any-frame",
        "the core takes a frame for a page that it was not offered to",
        "guests",
        &["C11", "I1", "I3"],
    ),
    entry(
        WrongCore::OneEpoch,
        "core-one-epoch",
        "the core makes the seals of every epoch as if it were the first",
        "restart",
        &["C6", "F2"],
    ),
    entry(
        WrongCore::SparesDropped,
        "core-spares-dropped",
        "a page whose steps were dropped half way is as it was",
        "page",
        &["I5"],
    ),
    entry(
        WrongCore::ClosesNothing,
        "core-closes-nothing",
        "after a fault the core leaves pages whose steps had begun where they are reached",
        "faults",
        &["S2"],
    ),
    entry(
        WrongCore::HoldsDropped,
        "core-holds-dropped",
        "a plan that is dropped before its first step keeps its page",
        "page",
        &["S1"],
    ),
    entry(
        WrongCore::RunsPoisoned,
        "core-runs-poisoned",
        "the core lets a VM go on after one of its pages was poisoned",
        "page",
        &["I9", "S3"],
    ),
    entry(
        WrongCore::FreesPoisoned,
        "core-frees-poisoned",
        "the core gives the frame of a poisoned page back",
        "page",
        &["C8", "I3", "S3"],
    ),
    entry(
        WrongCore::RunsUnbuilt,
        "core-runs-unbuilt",
        "the core lets a VM run that was never launched",
        "build",
        &["I9"],
    ),
];

#[cfg(feature = "wrong-cores")]
const fn entry(
    wrong: WrongCore,
    name: &'static str,
    sentence: &'static str,
    config: &'static str,
    caught_by: &'static [&'static str],
) -> Entry {
    super::entry(Mutant::Core(wrong), name, sentence, config, caught_by)
}

impl Mutant {
    /// Whether the core grants what is not genuine.
    #[cfg(feature = "wrong-cores")]
    pub(crate) const fn grants_forged(self) -> bool {
        matches!(self, Self::Core(WrongCore::CommitsForged))
    }

    /// Whether the core grants what is not genuine.
    #[cfg(not(feature = "wrong-cores"))]
    pub(crate) const fn grants_forged(self) -> bool {
        false
    }

    /// Whether the core minds neither whose evidence it is given nor whose frame.
    #[cfg(feature = "wrong-cores")]
    pub(crate) const fn takes_anothers(self) -> bool {
        matches!(self, Self::Core(WrongCore::IgnoresEvidence | WrongCore::TakesAnyFrame))
    }

    /// Whether the core minds neither whose evidence it is given nor whose frame.
    #[cfg(not(feature = "wrong-cores"))]
    pub(crate) const fn takes_anothers(self) -> bool {
        false
    }
}
