//! Platforms, ciphers and frontends that are wrong on purpose: each must be caught.
//!
//! This is the list; how they are wrong is in [`wrong`](crate::wrong), and for cores in the core
//! itself.

mod cores;

use cores::CORES;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "MUTANTS or a study has a sentence for each")]
pub enum Mutant {
    MapsOriginal,
    ForgetsFence,
    FencesOneCpu,
    FlushesAfterStore,
    WithdrawsReplicaOnly,
    TrustsClaim,
    ReplicaPlain,
    SealsLate,
    SkipsScrub,
    ConstantVersion,
    KeepsEpoch,
    WritesBack,
    KeepsOwner,
    FencesHostOnly,
    StaleFrame,
    InstallsAnyway,
    OpensTwice,
    KeepsForged,
    TrustsVersion,
    TrustsGfn,
    OneKey,
    TrustsEpoch,
    TrustsStream,
    GivesUp,
    ForgetsPlan,
    RunsStopped,
    ShowsBlank,
    #[cfg(feature = "wrong-cores")]
    Core(view_core::WrongCore),
}

/// A mutant, what is wrong with it, and what must catch it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which one.
    pub mutant: Mutant,
    /// Its name in spec/invariants.md and reports.
    pub name: &'static str,
    /// What is wrong.
    pub sentence: &'static str,
    /// The configuration in which it is hunted.
    pub config: &'static str,
    /// Every invariant that must catch it by itself.
    pub caught_by: &'static [&'static str],
}

const fn entry(
    mutant: Mutant,
    name: &'static str,
    sentence: &'static str,
    config: &'static str,
    caught_by: &'static [&'static str],
) -> Entry {
    Entry { mutant, name, sentence, config, caught_by }
}

/// All of them: platforms, ciphers and frontends first, then cores.
pub const MUTANTS: &[Entry] = &{
    let mut all = [AROUND[0]; AROUND.len() + CORES.len()];
    let mut at = 1;
    while at < all.len() {
        all[at] = if at < AROUND.len() { AROUND[at] } else { CORES[at - AROUND.len()] };
        at += 1;
    }
    all
};

/// Whether wrong cores are compiled in.
pub const HAS_CORES: bool = !CORES.is_empty();

/// What is wrong around a sound core.
const AROUND: &[Entry] = &[
    entry(
        Mutant::MapsOriginal,
        "maps-original",
        "a read-only request is given the page's own frame instead of its replica",
        "page",
        &["C1", "C2"],
    ),
    entry(
        Mutant::ForgetsFence,
        "forgets-fence",
        "the fence returns without flushing anything",
        "page",
        &["C1", "C2", "C3", "I1"],
    ),
    entry(
        Mutant::FencesOneCpu,
        "fences-one-cpu",
        "the fence flushes only the CPU that runs the batch",
        "page",
        &["C1", "C2", "C3"],
    ),
    entry(
        Mutant::FlushesAfterStore,
        "flushes-after-store",
        "the flush is put off until after the guest's next store",
        "page",
        &["C2", "C3"],
    ),
    entry(
        Mutant::WithdrawsReplicaOnly,
        "withdraws-replica-only",
        "withdrawing from the management side leaves the page's own frame mapped",
        "page",
        &["C1", "C2", "C3"],
    ),
    entry(
        Mutant::TrustsClaim,
        "trusts-claim",
        "the frontend turns the management side's word into a doorbell fact",
        "page",
        &["C1", "C4"],
    ),
    entry(
        Mutant::ReplicaPlain,
        "replica-plain",
        "the replica is a copy of the page that nobody sealed",
        "page",
        &["C1"],
    ),
    entry(
        Mutant::SealsLate,
        "seals-late",
        "a seal is queued and written at the next fence, after the grant",
        "page",
        &["C1"],
    ),
    entry(
        Mutant::SkipsScrub,
        "skips-scrub",
        "a frame changes hands without being wiped",
        "build",
        &["C1", "C8", "I1"],
    ),
    entry(
        Mutant::ConstantVersion,
        "constant-version",
        "every seal of a page is made under version 1",
        "page",
        &["C6", "C7", "F2"],
    ),
    entry(
        Mutant::KeepsEpoch,
        "keeps-epoch",
        "a host that lost its table starts again under the same epoch",
        "restart",
        &["C6", "F2", "S3"],
    ),
    entry(
        Mutant::WritesBack,
        "writes-back",
        "a replica is copied back into its page when it is unmapped",
        "page",
        &["I1", "I5"],
    ),
    entry(
        Mutant::KeepsOwner,
        "keeps-owner",
        "withdrawing from the owner leaves the guest's mapping in place",
        "page",
        &["C1", "I1", "I3", "L1"],
    ),
    entry(
        Mutant::FencesHostOnly,
        "fences-host-only",
        "the fence flushes what CPUs remember for the management side, not for guests",
        "page",
        &["C1", "I1", "I3"],
    ),
    entry(
        Mutant::StaleFrame,
        "stale-frame",
        "the platform believes its own note of where a page was first",
        "swap",
        &["I1", "I3"],
    ),
    entry(
        Mutant::StaleFrame,
        "stale-frame-of-another",
        "the same, where the frame has gone to another VM meanwhile",
        "guests",
        &["C11", "I1", "I3"],
    ),
    entry(
        Mutant::InstallsAnyway,
        "installs-anyway",
        "bytes that are not genuine are installed and called genuine",
        "page",
        &["I1", "I2"],
    ),
    entry(
        Mutant::OpensTwice,
        "opens-twice",
        "what is installed is read again from the management side after it was checked",
        "replay",
        &["I1", "I2", "I6"],
    ),
    entry(
        Mutant::KeepsForged,
        "keeps-forged",
        "bytes that are not genuine stay in the frame instead of zeroes",
        "page",
        &["I7"],
    ),
    entry(
        Mutant::TrustsVersion,
        "trusts-version",
        "version and tag are taken from the record that came with the bytes",
        "replay",
        &["F1", "I1"],
    ),
    entry(
        Mutant::TrustsGfn,
        "trusts-gfn",
        "gfn and tag are taken from the record that came with the bytes",
        "swap",
        &["F3", "I1"],
    ),
    entry(
        Mutant::OneKey,
        "one-key",
        "all VMs share one key, and the tag is taken from the record",
        "guests",
        &["F3", "I1"],
    ),
    entry(
        Mutant::TrustsEpoch,
        "trusts-epoch",
        "epoch and tag are taken from the record that came with the bytes",
        "restart",
        &["F3", "I1"],
    ),
    entry(
        Mutant::TrustsStream,
        "trusts-stream",
        "stream, version and tag are taken from the record that came with the bytes",
        "replay",
        &["F1", "F3", "I1"],
    ),
    entry(
        Mutant::GivesUp,
        "gives-up",
        "after a fault the platform does nothing any more, not even close the page",
        "faults",
        &["S2"],
    ),
    entry(
        Mutant::ForgetsPlan,
        "forgets-plan",
        "the frontend leaks a batch instead of dropping it",
        "page",
        &["S1"],
    ),
    entry(
        Mutant::RunsStopped,
        "runs-stopped",
        "the frontend enters a guest without asking whether it may run",
        "page",
        &["I9"],
    ),
];
