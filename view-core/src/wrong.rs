//! Cores that are wrong on purpose, each in one place: what sim's tests must catch.
//!
//! Never for use. Without the feature `wrong-cores`, which nothing that is shipped asks for, no VM
//! is wrong: [`Vm::is_wrong`](crate::Vm::is_wrong) is a constant, and what it guards is not
//! compiled in. What each of these breaks is in spec/invariants.md.

/// What is wrong with a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(not(feature = "wrong-cores"), expect(unreachable_pub, reason = "nobody can name it"))]
pub enum WrongCore {
    /// A version is not used up by the seal that is made under it.
    KeepsVersion,
    /// What was withdrawn is not fenced.
    SkipsFence,
    /// The fence comes after what depends on it was sealed and granted.
    FencesLate,
    /// Pages are withdrawn from their owners only.
    WithdrawsOwnerOnly,
    /// Nothing is wiped.
    SkipsScrub,
    /// A page that was opened and is not genuine is granted and committed like any other.
    CommitsForged,
    /// A page that is open until it is first unmapped stays open.
    ForgetsFirstUnmap,
    /// Evidence about one page opens another.
    IgnoresEvidence,
    /// A frame is taken for a page that it was not offered to.
    TakesAnyFrame,
    /// Seals of every epoch are made as if it were the first.
    OneEpoch,
    /// A page whose steps were dropped half way is as it was.
    SparesDropped,
    /// After a fault, pages whose steps had begun are not withdrawn.
    ClosesNothing,
    /// A plan that is dropped before its first step keeps its page.
    HoldsDropped,
    /// A VM goes on after one of its pages was poisoned.
    RunsPoisoned,
    /// The frame of a poisoned page is given back.
    FreesPoisoned,
    /// A VM may run before it was launched.
    RunsUnbuilt,
}
