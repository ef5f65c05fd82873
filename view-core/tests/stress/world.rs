//! What is known of every page outside the core, and what must be true when the threads are gone.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard};

use view_core::suite::Tag;
use view_core::{
    Act, Batch, Frame, Gfn, NotRunnable, Ownership, PageState, Perm, Refused, Request, Slot,
    Version, Vm, What,
};

use crate::worker::Worker;
use crate::{Dice, FRAMES, LEASES, PAGES, Seen};

/// What the world outside the table knows of one page. Only its holder looks or writes.
pub(crate) struct Page {
    /// What the last commit left.
    pub(crate) state: PageState,
    /// Someone dropped or failed with the page in hand: it may have been poisoned.
    pub(crate) at_risk: bool,
    /// The highest version that any row or seal has shown.
    pub(crate) version: Version,
    /// The tag of the latest seal that has to come back.
    pub(crate) tag: Tag,
    /// Whether its latest plan began or ended with a place of the replica pool: poisoned half way,
    /// the page keeps that place.
    pub(crate) in_pool: bool,
    /// What the platform lets each view reach.
    pub(crate) owner: Option<What>,
    pub(crate) management: Option<What>,
}

/// The VM with everything that outlives one thread.
pub(crate) struct World<'v> {
    pub(crate) vm: &'v Vm<'v>,
    slots: &'v [Slot],
    pub(crate) gentle: bool,
    pub(crate) pages: Vec<Mutex<Page>>,
    /// Which thread is in possession, by the threads' own word: 0 is nobody.
    pub(crate) holders: Vec<AtomicU64>,
    /// Every page id that was ever handed to `seal`, without its stream.
    pub(crate) sealed: Mutex<BTreeSet<(Gfn, Version)>>,
    pub(crate) seen: Mutex<Seen>,
}

impl<'v> World<'v> {
    pub(crate) fn new(vm: &'v Vm<'v>, slots: &'v [Slot], gentle: bool) -> Self {
        let page = || Page {
            state: PageState::Free,
            at_risk: false,
            version: Version::ZERO,
            tag: Tag::default(),
            in_pool: false,
            owner: None,
            management: None,
        };
        Self {
            vm,
            slots,
            gentle,
            pages: vm.gfns().map(|_| Mutex::new(page())).collect(),
            holders: vm.gfns().map(|_| AtomicU64::new(0)).collect(),
            sealed: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    pub(crate) fn page(&self, gfn: Gfn) -> MutexGuard<'_, Page> {
        self.pages[usize::try_from(gfn.number()).expect("small")].lock().expect("no thread died")
    }

    /// The version in the page's row, which the holder may look at while a plan is under way.
    pub(crate) fn version_in_row(&self, gfn: Gfn) -> u64 {
        let [_, version, ..] = self.slots[usize::try_from(gfn.number()).expect("small")].words();
        version & Version::MAX.number()
    }

    pub(crate) fn holder(&self, gfn: Gfn) -> &AtomicU64 {
        &self.holders[usize::try_from(gfn.number()).expect("small")]
    }

    pub(crate) fn count(&self, what: &'static str) {
        self.seen.lock().expect("no thread died").count(what);
    }

    /// Accepts and launches every page, several threads at once.
    pub(crate) fn build(&self) {
        let (vm, everything) = (self.vm, self.vm.gfns().collect::<Vec<_>>());
        let in_parallel = |make: &(dyn Fn(Gfn) -> Act + Sync)| {
            std::thread::scope(|scope| {
                for pages in everything.chunks(PAGES / 4) {
                    scope.spawn(move || {
                        for page in pages {
                            self.carry_out(*page, make(*page));
                        }
                    });
                }
            });
        };
        in_parallel(&|page| {
            let frame = Frame::new(page.number()).expect("small");
            vm.frames().offer(frame, vm.number(), page).expect("nobody else wants it");
            Act::Accept(frame)
        });
        assert_eq!(vm.launch(), Err(NotRunnable::StillBuilding(PAGES as u64)));
        in_parallel(&|_| Act::Launch);
        vm.launch().expect("every page was launched");
    }

    fn carry_out(&self, gfn: Gfn, act: Act) {
        let mut worker = Worker::new(self, Dice(1));
        worker.careful = true;
        let claim = worker.claim(gfn).expect("nobody else wants it");
        let plan = claim.act(act).expect("nothing stands against it");
        let mut batch = Batch::<8>::new();
        batch.push(plan).expect("room for one");
        assert!(worker.run(batch), "without faults a batch runs to its end");
    }

    /// After the last thread: the table, the lists and the platform agree about every page.
    pub(crate) fn settle(&self) {
        let vm = self.vm;
        let mut worker = Worker::new(self, Dice(1));
        worker.careful = true;
        let (mut open, mut owned, mut quarantined, mut replicas) = (vec![], 0, 0, 0);
        let mut backed = BTreeSet::new();
        for gfn in vm.gfns() {
            let claim = worker.claim(gfn).expect("Busy never sticks");
            let entry = *claim.entry();
            worker.let_go(gfn);
            drop(claim);
            let page = self.page(gfn);
            self.seen.lock().expect("no thread died").states.insert(entry.state);
            let poisoned = entry.state == PageState::Poisoned;
            replicas += u64::from(entry.state == PageState::Replica || poisoned && page.in_pool);
            match entry.state {
                PageState::Free | PageState::PagedOut => continue,
                PageState::Poisoned => quarantined += 1,
                PageState::Building
                | PageState::Private
                | PageState::Replica
                | PageState::Sealed
                | PageState::Open { .. }
                | PageState::Scrubbing => owned += 1,
            }
            assert!(backed.insert(entry.frame), "two pages in one frame");
            let expected = if entry.state == PageState::Poisoned {
                Ownership::Quarantined(vm.number(), gfn)
            } else {
                Ownership::Owned(vm.number(), gfn)
            };
            assert_eq!(vm.frames().owner(entry.frame), Some(expected), "{entry:?}");
            if entry.state.terms().is_some() {
                open.push(gfn);
            }
        }
        let count = |wanted: fn(Ownership) -> bool| {
            let frames = (0..FRAMES as u64).map(|frame| Frame::new(frame).expect("small"));
            frames.filter_map(|frame| vm.frames().owner(frame)).filter(|role| wanted(*role)).count()
        };
        assert_eq!(count(|role| matches!(role, Ownership::Owned(..))), owned);
        assert_eq!(count(|role| matches!(role, Ownership::Quarantined(..))), quarantined);
        assert_eq!(vm.replicas(), replicas, "places of the replica pool that are taken");
        // Every deadline is a finite one, so that the list of what is due is the list itself.
        let due: BTreeSet<_> = vm.leases().due(u64::MAX).collect();
        assert_eq!(due, open.iter().copied().collect(), "leases of pages that are not open");
        match vm.runnable() {
            Ok(()) => assert_eq!(quarantined, 0),
            Err(NotRunnable::Stopped(gfn)) => {
                assert_eq!(vm.state(gfn), Some(PageState::Poisoned));
                assert!(!self.gentle, "page {} was poisoned by nobody", gfn.number());
            }
            Err(other) => panic!("{other:?}: a page is counted as being built"),
        }
        self.room_comes_back(&open);
        self.poison_stays();
    }

    /// With everything closed, as many pages can be opened as the list has room for.
    fn room_comes_back(&self, open: &[Gfn]) {
        let (vm, mut worker) = (self.vm, Worker::new(self, Dice(1)));
        for gfn in open {
            self.carry_out(*gfn, Act::Unshare);
        }
        let private = |gfn: &Gfn| vm.state(*gfn) == Some(PageState::Private);
        let candidates: Vec<_> = vm.gfns().filter(private).take(LEASES + 1).collect();
        let mut plans = vec![];
        for (nth, gfn) in candidates.iter().enumerate() {
            let decided = worker.claim(*gfn).expect("free").act(worker.share(*gfn));
            worker.let_go(*gfn);
            assert_eq!(decided.as_ref().err(), (nth == LEASES).then_some(&Refused::ListFull));
            plans.extend(decided);
        }
        if candidates.len() > LEASES {
            self.count("list filled to the brim");
        }
    }

    /// Nothing brings a poisoned page back, and ending it leaves no view with a mapping.
    fn poison_stays(&self) {
        let mut worker = Worker::new(self, Dice(1));
        worker.careful = true;
        for gfn in self.vm.gfns().filter(|gfn| self.vm.state(*gfn) == Some(PageState::Poisoned)) {
            for request in [Request::Map(Perm::Read), Request::Seal, Request::PageOut] {
                let claim = worker.claim(gfn).expect("free");
                worker.let_go(gfn);
                assert_eq!(claim.request(request).err(), Some(Refused::Poisoned));
            }
            let plan = worker.claim(gfn).expect("free").request(Request::Destroy).expect("wiped");
            let mut batch = Batch::<8>::new();
            batch.push(plan).expect("room for one");
            assert!(worker.run(batch));
            assert_eq!(self.vm.state(gfn), Some(PageState::Poisoned));
            let page = self.page(gfn);
            assert_eq!((page.owner, page.management), (None, None), "a view outlived its page");
        }
    }
}
