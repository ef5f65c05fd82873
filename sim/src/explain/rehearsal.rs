//! Which steps a batch will take: the shipped core is asked, on a world of its own.
//!
//! Nothing here repeats the core's table. A plan is decided again where it was decided in the
//! trace, and its batch runs to its end on a platform that only writes down what it is told.

use std::convert::Infallible;

use view_core::suite::Tag;
use view_core::{
    Batch, Copies, OpenStep, Perm, Place, Platform, SealStep, Source, Target, View, What,
};

use super::words::{perm_word, view_word};
use crate::bytes::Label;
use crate::config::Config;
use crate::event::{Ask, Event, PageRef, Phys};
use crate::flight::PLANS;
use crate::host::{decide, gfn};
use crate::mutant::Mutant;
use crate::world::play;

/// One call to the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// What it asks for.
    pub(super) kind: Kind,
    /// The same in words.
    pub(super) words: String,
}

/// Which call, as far as anybody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Withdraw(PageRef, View),
    Fence,
    Fetch,
    /// Into replicas, as far as the list goes.
    Seal(Vec<PageRef>),
    Open(Vec<PageRef>),
    Scrub(Phys, Copies),
    Grant(PageRef, View),
}

/// The calls of a batch with these plans, begun after these events; `None` if the core refuses.
pub(super) fn calls(
    config: &Config,
    mutant: Option<Mutant>,
    before: &[Event],
    asks: &[(PageRef, Ask)],
) -> Option<Vec<Call>> {
    play(config, mutant, before.iter().copied(), |world| {
        let mut batch = Batch::<PLANS>::new();
        for (page, ask) in asks {
            let vm = world.vm(page.vm);
            let plan = decide(vm, vm.claim(gfn(*page)).ok()?, *page, *ask).ok()?;
            batch.push(plan).ok()?;
        }
        let mut scribe = Scribe::default();
        let Ok(receipts) = batch.run(&mut scribe);
        receipts.commit();
        Some(scribe.calls)
    })
}

#[derive(Debug, Default)]
struct Scribe {
    calls: Vec<Call>,
}

impl Scribe {
    fn note(&mut self, kind: Kind, words: String) -> Result<(), Infallible> {
        self.calls.push(Call { kind, words });
        Ok(())
    }
}

impl Platform for Scribe {
    type Fault = Infallible;

    fn withdraw(&mut self, target: &Target, view: View) -> Result<(), Infallible> {
        let page = PageRef::of(target);
        self.note(
            Kind::Withdraw(page, view),
            format!("withdraw page {page} from {}", view_word(view)),
        )
    }

    fn fence(&mut self) -> Result<(), Infallible> {
        self.note(Kind::Fence, "fence: no CPU remembers what was withdrawn".to_owned())
    }

    fn fetch(&mut self, target: &Target) -> Result<(), Infallible> {
        let (page, frame) = (PageRef::of(target), Phys::of(target.frame));
        self.note(Kind::Fetch, format!("fetch the sealed bytes of page {page} into {frame}"))
    }

    fn seal(&mut self, steps: &[SealStep], _tags: &mut [Tag]) -> Result<(), Infallible> {
        let words: Vec<String> = steps.iter().map(sealing).collect();
        let replicas = steps.iter().filter(|step| step.to == Place::Replica);
        let replicas = replicas.map(|step| PageRef::of(&step.target)).collect();
        self.note(Kind::Seal(replicas), format!("seal {}", words.join(", and ")))
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Infallible> {
        genuine.fill(true);
        let pages: Vec<PageRef> = steps.iter().map(|step| PageRef::of(&step.target)).collect();
        let words: Vec<String> = steps
            .iter()
            .map(|step| {
                let expected = Label::new(step.target.vm, &step.id);
                format!("page {} if it is genuine {expected}", PageRef::of(&step.target))
            })
            .collect();
        self.note(Kind::Open(pages), format!("open {}", words.join(", and ")))
    }

    fn scrub(&mut self, target: &Target, copies: Copies) -> Result<(), Infallible> {
        let (page, frame) = (PageRef::of(target), Phys::of(target.frame));
        self.note(
            Kind::Scrub(frame, copies),
            match copies {
                Copies::Original => format!("wipe {frame}"),
                Copies::Replica => format!("wipe the replica of page {page}"),
                Copies::All => format!("wipe {frame} and any replica of page {page}"),
            },
        )
    }

    fn grant(
        &mut self,
        target: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), Infallible> {
        let (page, frame) = (PageRef::of(target), Phys::of(target.frame));
        let given = match what {
            What::Plain => format!("{frame}, plain"),
            What::Sealed => format!("{frame}, sealed"),
            What::Replica => "its sealed replica".to_owned(),
            What::Masked(_) => "a masked copy".to_owned(),
        };
        let (who, perm) = (view_word(view), perm_word(perm));
        self.note(Kind::Grant(page, view), format!("grant {who} page {page}: {given}, {perm}"))
    }
}

fn sealing(step: &SealStep) -> String {
    let (page, label) = (PageRef::of(&step.target), Label::new(step.target.vm, &step.id));
    let to = match step.to {
        Place::Replica => "into a replica",
        Place::InPlace => "in its own frame",
        Place::Wire => "to the wire",
    };
    let instead = match step.from {
        Source::Frame => "",
        Source::Zeroes => ", with zeroes for its bytes",
    };
    format!("page {page} {to} as {label}{instead}")
}
