//! Batches under way: how they begin, go on, end, and are brought back to where they were.

use view_core::suite::Tag;
use view_core::{Batch, PageState, Plan, Progress, Refused};

use crate::bytes::Bytes;
use crate::echo::Echo;
use crate::event::{Ask, FaultTime, PageRef, Term};
use crate::host::{decide, gfn};
use crate::mutant::Mutant;
use crate::world::World;
use crate::wrong::Wrong;

/// How many plans a batch can have.
pub const PLANS: usize = 2;

/// The most answers that a batch can have had: a tag and a verdict for each plan.
pub const ANSWERS: usize = 2 * PLANS;

/// A batch under way on a CPU, and what two equal batches have in common.
#[derive(Debug)]
pub struct Flight<'t> {
    batch: Batch<'t, PLANS>,
    /// What was asked.
    pub asks: heapless::Vec<Asked, PLANS>,
    /// How many steps were taken.
    pub steps: u8,
    /// What the platform answered so far.
    pub answers: Answers,
}

/// One plan of a batch, and what its claim changed.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// Of which page.
    pub page: PageRef,
    /// What.
    pub ask: Ask,
    /// The page's row before it was claimed.
    pub row: [u64; 4],
    /// Whether the plan counts as a page being built.
    pub building: bool,
    /// Whether the plan took a place in the pool of replicas.
    pub replica: bool,
}

/// What a platform answered to a batch: tags and verdicts, in order.
pub type Answers = heapless::Vec<Answer, ANSWERS>;

/// What a platform answered about one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was sealed, and this is its tag.
    Tag(Tag),
    /// It was opened; whether its tag matched.
    Genuine(bool),
}

impl Flight<'_> {
    /// Whether the platform said of its only page that it is not genuine.
    pub fn was_refused(&self) -> bool {
        self.asks.len() == 1 && self.answers.contains(&Answer::Genuine(false))
    }

    fn new() -> Self {
        Self {
            batch: Batch::new(),
            asks: heapless::Vec::new(),
            steps: 0,
            answers: heapless::Vec::new(),
        }
    }
}

impl<'t> World<'t> {
    pub(crate) fn begin(&mut self, cpu: u8, page: PageRef, ask: Ask) {
        if self.flights[usize::from(cpu)].is_none() {
            self.begin_as(cpu, page, ask, true);
        }
    }

    pub(crate) fn begin_as(&mut self, cpu: u8, page: PageRef, ask: Ask, consent: bool) {
        let mut flight = Flight::new();
        if self.add(&mut flight, page, ask, consent) {
            self.flights[usize::from(cpu)] = Some(flight);
        }
    }

    pub(crate) fn join(&mut self, cpu: u8, page: PageRef, ask: Ask) {
        let room = |flight: &mut Flight<'_>| flight.steps == 0 && flight.asks.len() < PLANS;
        if let Some(mut flight) = self.flights[usize::from(cpu)].take_if(room) {
            self.add(&mut flight, page, ask, true);
            self.flights[usize::from(cpu)] = Some(flight);
        }
    }

    /// Claims, decides and pushes; false if the core refuses.
    fn add(&mut self, flight: &mut Flight<'t>, page: PageRef, ask: Ask, consent: bool) -> bool {
        let about = if consent { Some(page) } else { self.believed(page) };
        let planned = about.and_then(|about| self.claimed(page, ask, about));
        let plan = match planned {
            Some(Ok((asked, plan))) => {
                flight.asks.push(asked).expect("the batch has room");
                plan
            }
            Some(Err(refused)) => {
                self.just.refused = Some(refused);
                return false;
            }
            None => return false,
        };
        self.agree(page, ask, consent);
        self.used[3] += u8::from(self.config.begins != u8::MAX);
        assert!(flight.batch.push(plan).is_ok(), "the batch has room");
        true
    }

    /// Claims and decides, on evidence about a page if any is needed. `None` if somebody holds the
    /// page.
    fn claimed(
        &self,
        page: PageRef,
        ask: Ask,
        about: PageRef,
    ) -> Option<Result<(Asked, Plan<'t>), Refused>> {
        let vm = self.vm(page.vm);
        let (row, [building, replicas, _]) = (self.words(page), vm.words());
        let claim = vm.claim(gfn(page)).ok()?;
        Some(decide(self.vm(about.vm), claim, about, ask).map(|plan| {
            let [building_now, replicas_now, _] = vm.words();
            let (building, replica) = (building_now != building, replicas_now != replicas);
            (Asked { page, ask, row, building, replica }, plan)
        }))
    }

    /// Notes what the owner agreed to.
    fn agree(&mut self, page: PageRef, ask: Ask, consent: bool) {
        let frame = self.frame(page);
        let ghost = &mut self.ghosts[page.index()];
        if matches!(ask, Ask::Accept(_)) {
            ghost.latest = Bytes::ZERO;
        }
        if let Ask::Share(perm, term) = ask {
            ghost.term = Some(term);
            if consent {
                ghost.consent = Some(perm);
                ghost.latest = ghost.latest.declassified();
                let shown = self.machine.at(frame).declassified();
                self.machine.put(frame, shown);
            }
        }
    }

    /// A batch as it was under way: claimed, decided and stepped again, from what the platform
    /// answered then.
    pub(crate) fn flown(
        &self,
        asks: impl Iterator<Item = (PageRef, Ask)>,
        steps: u8,
        answers: Answers,
    ) -> Flight<'t> {
        let mut flight = Flight { steps, ..Flight::new() };
        for (page, ask) in asks {
            let Some(Ok((asked, plan))) = self.claimed(page, ask, page) else {
                unreachable!("what was planned once can be planned again")
            };
            flight.asks.push(asked).expect("as many as before");
            assert!(flight.batch.push(plan).is_ok(), "as many as before");
        }
        let mut echo = Echo { answers: &answers, heard: 0 };
        for _ in 0..steps {
            let _ = flight.batch.step(&mut echo);
        }
        flight.answers = answers;
        flight
    }

    pub(crate) fn step(&mut self, cpu: u8, fault: Option<FaultTime>) {
        let Some(mut flight) = self.flights[usize::from(cpu)].take() else { return };
        self.machine.fault = fault;
        self.machine.noted.answers.clone_from(&flight.answers);
        let mut platform = Wrong { world: self, cpu };
        let progress = flight.batch.step(&mut platform);
        flight.answers.clone_from(&self.machine.noted.answers);
        flight.steps += 1;
        match progress {
            Ok(Progress::More) => self.flights[usize::from(cpu)] = Some(flight),
            Ok(Progress::Done) => self.commit(flight),
            Ok(Progress::Failed) | Err(_) => {
                self.used[2] += 1;
                self.just.faulted = true;
                drop(flight.batch);
                self.settle(&flight.asks, true);
            }
        }
        self.machine.fault = None;
    }

    fn commit(&mut self, flight: Flight<'t>) {
        let Ok(receipts) = flight.batch.finish() else { return };
        let states: Vec<PageState> = receipts.iter().map(|receipt| receipt.state).collect();
        receipts.commit();
        for (Asked { page, ask, .. }, state) in flight.asks.iter().zip(states) {
            self.just.committed.push((*page, *ask, state));
            let ghost = &mut self.ghosts[page.index()];
            ghost.building = state == PageState::Building;
            if (*ask, ghost.term) == (Ask::Unmap, Some(Term::Once)) {
                ghost.consent = None;
            }
            ghost.reclaimed |= *ask == Ask::Unshare;
            ghost.reclaimed &= state != PageState::Free;
        }
        self.settle(&flight.asks, false);
    }

    pub(crate) fn drop_batch(&mut self, cpu: u8) {
        let Some(flight) = self.flights[usize::from(cpu)].take() else { return };
        self.used[1] += 1;
        self.just.dropped = Some(flight.steps > 0);
        if self.mutant == Some(Mutant::ForgetsPlan) {
            std::mem::forget(flight.batch);
        } else {
            drop(flight.batch);
        }
        self.settle(&flight.asks, false);
    }

    /// A batch is over, one way or the other: what the checker knows follows the table.
    fn settle(&mut self, asks: &[Asked], faulted: bool) {
        for Asked { page, row: [control, ..], .. } in asks {
            let state = self.state(*page);
            // A page that a dropped batch left poisoned, and open, may not have begun in this one.
            let was_poisoned = control & 0xf == 0xf;
            let ghost = &mut self.ghosts[page.index()];
            if state.terms().is_none() {
                ghost.consent = None;
                ghost.term = None;
            }
            if state == PageState::Free {
                ghost.latest = Bytes::ZERO;
            }
            ghost.closed |= faulted && state == PageState::Poisoned && !was_poisoned;
        }
    }
}
