//! The core's own interface against a model that fits two screens: claims, plans and batches of
//! one VM, committed, dropped or failed.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use sim::config::ALL_ASKS;
use sim::event::{Ask, PageRef, Term};
use sim::host::{decide, frame, gfn};
use sim::obliging::Obliging;
use sim::table;
use view_core::suite::Tag;
use view_core::whitelist::{Lease, Leases};
use view_core::{
    Batch, Copies, Epoch, Frames, MaskId, OpenStep, Owner, Ownership, PageKind, PageState, Perm,
    Platform, Progress, SealStep, Slot, Target, View, Vm, VmConfig, VmNumber, What,
};

const PAGES: usize = 4;
const FRAMES: usize = 5;
const REPLICAS: usize = 2;
const LEASES: usize = 2;

/// How far a batch gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Committed,
    /// Dropped before its first step.
    Dropped,
    /// Dropped after it.
    Interrupted,
    /// The platform's first call fails.
    Failed,
}

#[derive(Clone, Debug)]
enum Happens {
    Offer(u8, u8),
    Retract(u8, u8),
    Ask(u8, Ask, End),
    Launch,
}

/// A page as at a blackboard.
#[derive(Clone, Copy, Debug)]
struct Page {
    state: PageState,
    term: Option<Term>,
    excluded: bool,
    version: u64,
    frame: Option<u8>,
    /// It was poisoned while it had a place in the pool of replicas, and was not wiped since.
    owes: bool,
}

/// Everything that the core should know.
#[derive(Clone, Debug)]
struct Model {
    pages: [Page; PAGES],
    offers: [Option<u8>; FRAMES],
    launched: bool,
    stopped: bool,
}

impl Model {
    fn room(&self) -> bool {
        let out = |page: &&Page| page.owes || page.state == PageState::Replica;
        self.pages.iter().filter(out).count() < REPLICAS
    }

    /// What becomes of a page that is asked something, if it is not refused.
    fn asked(&self, page: u8, ask: Ask) -> Option<&'static str> {
        let own = &self.pages[usize::from(page)];
        let once = own.term == Some(Term::Once);
        let after = table::after(own.state, ask, once, self.launched)?;
        let open = self.pages.iter().filter(|page| page.state.terms().is_some()).count();
        let enters = after == "Replica" && own.state != PageState::Replica;
        let refused = match frame_of(ask) {
            Some(frame) => self.offers[usize::from(frame)] != Some(page),
            None if matches!(ask, Ask::Share(..)) => open == LEASES,
            None => enters && !self.room(),
        };
        (!refused).then_some(after)
    }

    fn ask(&mut self, page: u8, ask: Ask, end: End) {
        let Some(after) = self.asked(page, ask) else { return };
        let own = &mut self.pages[usize::from(page)];
        let before = own.state;
        let once = own.term == Some(Term::Once);
        own.version += u64::from(table::burns(before, ask) && (once || ask != Ask::Unmap));
        let acts =
            !matches!((ask, before), (Ask::Exclude(_), _) | (Ask::Destroy, PageState::PagedOut));
        let new_frame = frame_of(ask);
        if end == End::Dropped || end == End::Interrupted && !acts {
            return;
        }
        if let Some(frame) = new_frame {
            self.offers[usize::from(frame)] = None;
            own.frame = new_frame;
        }
        if end != End::Committed && acts {
            own.owes |= before == PageState::Replica || after == "Replica";
            (own.state, own.term) = (PageState::Poisoned, None);
            self.stopped = true;
            return;
        }
        own.owes &= ask != Ask::Destroy;
        own.state = named(after, ask, before);
        if let Ask::Share(_, term) = ask {
            own.term = Some(term);
        }
        if own.state.terms().is_none() {
            own.term = None;
        }
        if matches!(own.state, PageState::Free | PageState::PagedOut) {
            own.frame = None;
        }
        if let Ask::Exclude(excluded) = ask {
            own.excluded = excluded;
        }
    }
}

/// The frame that an ask is about.
const fn frame_of(ask: Ask) -> Option<u8> {
    if let Ask::Accept(frame) | Ask::PageIn(frame) = ask { Some(frame) } else { None }
}

/// The ask, about this frame if it is about one.
const fn in_frame(ask: Ask, frame: u8) -> Ask {
    if matches!(ask, Ask::Accept(_)) {
        Ask::Accept(frame)
    } else if matches!(ask, Ask::PageIn(_)) {
        Ask::PageIn(frame)
    } else {
        ask
    }
}

/// The state of a name.
fn named(name: &str, ask: Ask, before: PageState) -> PageState {
    match (name, ask) {
        ("Free", _) => PageState::Free,
        ("Building", _) => PageState::Building,
        ("Private", _) => PageState::Private,
        ("Replica", _) => PageState::Replica,
        ("Sealed", _) => PageState::Sealed,
        ("PagedOut", _) => PageState::PagedOut,
        ("Open", Ask::Share(perm, _)) => {
            PageState::Open { kind: PageKind::MAILBOX, perm, mask: MaskId::ALL }
        }
        ("Open", _) => before,
        _ => PageState::Poisoned,
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Happens;

    fn init_state() -> BoxedStrategy<Self> {
        let page = Page {
            state: PageState::Free,
            term: None,
            excluded: false,
            version: 0,
            frame: None,
            owes: false,
        };
        let offers = [None; FRAMES];
        Just(Self { pages: [page; PAGES], offers, launched: false, stopped: false }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Happens> {
        let page = || 0..u8::try_from(PAGES).expect("few");
        let frame = || 0..u8::try_from(FRAMES).expect("few");
        let end = prop_oneof![
            12 => Just(End::Committed),
            1 => Just(End::Dropped),
            1 => Just(End::Interrupted),
            1 => Just(End::Failed),
        ];
        let ask =
            (prop::sample::select(ALL_ASKS), frame()).prop_map(|(ask, frame)| in_frame(ask, frame));
        prop_oneof![
            3 => (frame(), page()).prop_map(|(frame, page)| Happens::Offer(frame, page)),
            1 => (frame(), page()).prop_map(|(frame, page)| Happens::Retract(frame, page)),
            12 => (page(), ask, end).prop_map(|(page, ask, end)| Happens::Ask(page, ask, end)),
            1 => Just(Happens::Launch),
        ]
        .boxed()
    }

    fn apply(mut state: Self, happens: &Happens) -> Self {
        match *happens {
            Happens::Offer(frame, page) => {
                let backs = state.pages.iter().any(|page| page.frame == Some(frame));
                let offer = &mut state.offers[usize::from(frame)];
                *offer = offer.or((!backs).then_some(page));
            }
            Happens::Retract(frame, page) => {
                let offer = &mut state.offers[usize::from(frame)];
                *offer = offer.filter(|to| *to != page);
            }
            Happens::Ask(page, ask, end) => state.ask(page, ask, end),
            Happens::Launch => {
                let building = |page: &Page| page.state == PageState::Building;
                state.launched |= !state.pages.iter().any(building);
            }
        }
        state
    }
}

/// The core, with storage that lives as long as the test.
struct Core {
    vm: Vm<'static>,
}

const PAGE_VM: VmNumber = VmNumber(0);

const fn page_ref(gfn: u8) -> PageRef {
    PageRef { vm: 0, gfn }
}

impl Core {
    /// Asks, and goes as far as it should. False says that it was refused.
    fn ask(&self, page: u8, ask: Ask, end: End) -> bool {
        let claim = self.vm.claim(gfn(page_ref(page))).expect("nobody holds it");
        assert!(self.vm.claim(gfn(page_ref(page))).is_err(), "claimed twice");
        let Ok(plan) = decide(&self.vm, claim, page_ref(page), ask) else { return false };
        let mut batch = Batch::<1>::new();
        batch.push(plan).expect("an empty batch has room");
        match end {
            End::Committed => batch.run(&mut Obliging).expect("it obliges").commit(),
            End::Dropped => drop(batch),
            End::Interrupted => {
                let _ = batch.step(&mut Obliging);
            }
            End::Failed => match batch.step(&mut Failing) {
                Ok(Progress::Done) => batch.finish().expect("done").commit(),
                Ok(progress) => panic!("{progress:?} though every call fails"),
                Err(()) => drop(batch),
            },
        }
        true
    }
}

impl StateMachineTest for Core {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        let slots: &'static [Slot] = Vec::leak((0..PAGES).map(|_| Slot::new()).collect());
        let owners: &'static [Owner] = Vec::leak((0..FRAMES).map(|_| Owner::new()).collect());
        let leases: &'static [Lease] = Vec::leak((0..LEASES).map(|_| Lease::new()).collect());
        let vm = Vm::new(VmConfig {
            number: PAGE_VM,
            epoch: Epoch(1),
            pages: 4,
            slots,
            frames: Frames::new(owners),
            leases: Leases::new(leases),
            masks: &[],
            replicas_max: 2,
        });
        Self { vm: vm.expect("as many rows as pages") }
    }

    fn apply(core: Self, _: &Model, happens: Happens) -> Self {
        match happens {
            Happens::Offer(number, page) => {
                let _ = core.vm.frames().offer(frame(number), PAGE_VM, gfn(page_ref(page)));
            }
            Happens::Retract(number, page) => {
                let _ = core.vm.frames().retract(frame(number), PAGE_VM, gfn(page_ref(page)));
            }
            Happens::Ask(page, ask, end) => _ = core.ask(page, ask, end),
            Happens::Launch => _ = core.vm.launch(),
        }
        core
    }

    fn check_invariants(core: &Self, model: &Model) {
        for (number, page) in (0..).zip(&model.pages) {
            let claim = core.vm.claim(gfn(page_ref(number))).expect("nobody holds it");
            let entry = claim.entry();
            let found = (entry.state, entry.excluded, entry.version.number());
            assert_eq!(found, (page.state, page.excluded, page.version), "page {number}");
        }
        for (number, offer) in (0..).zip(model.offers) {
            let of = |page: u8| gfn(page_ref(page));
            let backs = (0..).zip(&model.pages).find(|(_, page)| page.frame == Some(number));
            let expected = match (backs, offer) {
                (Some((at, page)), _) if page.state == PageState::Poisoned => {
                    Ownership::Quarantined(PAGE_VM, of(at))
                }
                (Some((at, _)), _) => Ownership::Owned(PAGE_VM, of(at)),
                (None, Some(page)) => Ownership::Offered(PAGE_VM, of(page)),
                (None, None) => Ownership::Free,
            };
            assert_eq!(core.vm.frames().owner(frame(number)), Some(expected), "frame {number}");
        }
        let out = |page: &&Page| page.owes || page.state == PageState::Replica;
        let out = model.pages.iter().filter(out).count();
        assert_eq!(core.vm.replicas(), u64::try_from(out).expect("few"));
        assert_eq!(core.vm.runnable().is_ok(), model.launched && !model.stopped);
        let due = model.pages.iter().filter(|page| page.term == Some(Term::Tick)).count();
        assert_eq!(core.vm.leases().due(1).count(), due);
    }
}

/// Every call fails.
struct Failing;

impl Platform for Failing {
    type Fault = ();

    fn withdraw(&mut self, _: &Target, _: View) -> Result<(), ()> {
        Err(())
    }

    fn fence(&mut self) -> Result<(), ()> {
        Err(())
    }

    fn fetch(&mut self, _: &Target) -> Result<(), ()> {
        Err(())
    }

    fn seal(&mut self, _: &[SealStep], _: &mut [Tag]) -> Result<(), ()> {
        Err(())
    }

    fn open(&mut self, _: &[OpenStep], _: &mut [bool]) -> Result<(), ()> {
        Err(())
    }

    fn scrub(&mut self, _: &Target, _: Copies) -> Result<(), ()> {
        Err(())
    }

    fn grant(&mut self, _: &Target, _: View, _: What, _: Perm) -> Result<(), ()> {
        Err(())
    }
}

fn cases() -> ProptestConfig {
    ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() }
}

prop_state_machine! {
    #![proptest_config(cases())]

    #[test]
    fn the_core_does_what_the_model_says(sequential 1..120 => Core);
}
