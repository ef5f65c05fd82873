//! Two runs of the page-view machine that differ only in what owners store in private: the
//! management side sees no difference.

use view_core::Perm;
use view_core::suite::Stream;

use crate::bytes::Plain;
use crate::config::{Config, PAGE};
use crate::event::{Ask, PageRef, Term};
use crate::mutant::Mutant;
use crate::product::{CHANGED_ONE, OPENED_APART, PARTED, Product, SEALED_APART, sight};
use crate::study::{Claim, Found, Study, Wanted, Wrong, explore};
use crate::world::World;

/// The study.
pub(crate) const STUDY: Study = Study {
    name: "two-runs",
    purpose: "two runs that differ in what owners store in private: management sees no difference",
    bounds: "four configurations: a page on two CPUs, with two stores and two versions; one store, \
             a drop and a fault; two VMs and three plans; a crash. Each store in private may write \
             zeroes, what the management side writes, or what was stored before",
    claims: &[Claim {
        id: "C10",
        sentence: "Two runs with the same events that differ only in what owners stored in private \
                   and never showed are the same to the management side: in tables, refusals and \
                   plain bytes, and in which of its sealed pages are equal.",
    }],
    wrongs: &[
        Wrong {
            name: "both-show-originals",
            sentence: "in both runs, a read-only request is given the page's own frame",
            caught_by: &["C10"],
        },
        Wrong {
            name: "both-forget-fences",
            sentence: "in both runs, the fence returns without flushing anything",
            caught_by: &["C10"],
        },
        Wrong {
            name: "both-copy-plainly",
            sentence: "in both runs, the replica is a copy of the page that nobody sealed",
            caught_by: &["C10"],
        },
        Wrong {
            name: "both-seal-late",
            sentence: "in both runs, a seal is written at the next fence, after the grant",
            caught_by: &["C10"],
        },
        Wrong {
            name: "both-skip-scrubs",
            sentence: "in both runs, a frame changes hands without being wiped",
            caught_by: &["C10"],
        },
        Wrong {
            name: "both-repeat-versions",
            sentence: "in both runs, every seal of a page is made under version 1",
            caught_by: &["C10"],
        },
        Wrong {
            name: "both-keep-epochs",
            sentence: "in both runs, a host that lost its table starts again under the same epoch",
            caught_by: &["C10"],
        },
        Wrong {
            name: "both-trust-claims",
            sentence: "in both runs, the management side's word opens a page",
            caught_by: &["C10"],
        },
        Wrong {
            name: "shows-blank-pages",
            sentence: "a page of zeroes is not sealed: there is nothing in it",
            caught_by: &["C10"],
        },
    ],
    reaches: &[PARTED, SEALED_APART, OPENED_APART, CHANGED_ONE],
    explore: explored,
};

/// How a machine is wrong, by the names of the list above, and where it is hunted.
const WRONG: &[(&str, Mutant, &Config)] = &[
    ("both-show-originals", Mutant::MapsOriginal, &VIEWS),
    ("both-forget-fences", Mutant::ForgetsFence, &VIEWS),
    ("both-copy-plainly", Mutant::ReplicaPlain, &VIEWS),
    ("both-seal-late", Mutant::SealsLate, &VIEWS),
    ("both-skip-scrubs", Mutant::SkipsScrub, &FRAMES),
    ("both-repeat-versions", Mutant::ConstantVersion, &VIEWS),
    ("both-keep-epochs", Mutant::KeepsEpoch, &LIVES),
    ("both-trust-claims", Mutant::TrustsClaim, &VIEWS),
    ("shows-blank-pages", Mutant::ShowsBlank, &VIEWS),
];

/// One page, stored to twice, seen in every way.
const VIEWS: Config = Config {
    name: "two-runs-views",
    purpose: "a page that is mapped, exported, sealed and opened while the two runs differ in it",
    stores: 2,
    drops: 0,
    raw: false,
    asks: &[
        Ask::Map(Perm::Read),
        Ask::Unmap,
        Ask::Export(Stream::Image),
        Ask::Seal,
        Ask::Touch,
        Ask::Share(Perm::ReadWrite, Term::Never),
        Ask::Unshare,
    ],
    reaches: &[],
    ..PAGE
};

/// One page whose frame comes and goes.
const FRAMES: Config = Config {
    name: "two-runs-frames",
    purpose: "a page that is paged out, destroyed or dropped half way, and its frame given back",
    cpus: 1,
    stores: 1,
    versions: 1,
    drops: 1,
    faults: 1,
    asks: &[Ask::PageOut, Ask::PageIn(0), Ask::Touch, Ask::Destroy, Ask::Accept(0)],
    reaches: &[],
    ..PAGE
};

/// Two pages of two VMs, in either of two frames.
const GUESTS: Config = Config {
    name: "two-runs-guests",
    purpose: "two VMs that hold the same bytes in one run and different ones in the other",
    pages: &[1, 1],
    frames: 2,
    cpus: 1,
    versions: 1,
    stores: 2,
    begins: 3,
    drops: 0,
    raw: false,
    asks: &[Ask::Map(Perm::Read), Ask::Seal, Ask::Touch, Ask::Share(Perm::Read, Term::Never)],
    reaches: &[],
    ..PAGE
};

/// One page of a host that crashes.
const LIVES: Config = Config {
    name: "two-runs-lives",
    purpose: "the host crashes and starts again; what was sealed before stays in sight",
    cpus: 1,
    versions: 1,
    stores: 2,
    drops: 0,
    restarts: 1,
    launched: false,
    raw: false,
    asks: &[Ask::Accept(0), Ask::Seal, Ask::Touch],
    reaches: &[],
    ..PAGE
};

/// Where the sound machine is explored.
const SOUND: [&Config; 4] = [&VIEWS, &FRAMES, &GUESTS, &LIVES];

/// Zeroes, what the management side writes itself, and whatever was stored before.
fn anything(world: &World<'_>, _: PageRef) -> Vec<Plain> {
    let stored = (0..world.used[0]).map(Plain::Secret);
    [Plain::Zero, Plain::Public].into_iter().chain(stored).collect()
}

fn explored(wanted: Wanted) -> Found {
    let wrong = wanted.wrong.and_then(|name| WRONG.iter().find(|(known, ..)| *known == name));
    let product = |config, mutant| Product {
        config,
        mutant,
        parts: anything,
        sees: sight::management,
        claim: "C10",
    };
    if let Some((_, mutant, config)) = wrong {
        return explore(&product(config, Some(*mutant)), wanted);
    }
    let mut found = Found::default();
    for config in SOUND {
        let one = explore(&product(config, None), wanted);
        found.distinct_states += one.distinct_states;
        found.transitions += one.transitions;
        found.reached.extend(one.reached);
        found.cut |= one.cut;
        found.violation = found.violation.or(one.violation);
    }
    found
}
