//! A host as at a blackboard, in lockstep with the core: for everything that happens it says what
//! is refused, what becomes of pages, frames and VMs, and what an onlooker sees.
//!
//! It is small enough to be copied with every state that is explored, and has no bytes, tables or
//! ciphers. It has to be told what only a platform knows: whether a call failed, and whether sealed
//! bytes were genuine.

use crate::life::{Ask, Rights, State, Steps, after, burns, steps};

/// How many plans a batch can have.
pub const PLANS: usize = 2;

/// Something that happens. Pages, frames, VMs and CPUs are numbers from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The management side offers a frame to a page.
    Offer(u8, u8),
    /// The management side takes that offer back.
    Retract(u8, u8),
    /// The trusted side ends the building of a VM.
    LaunchVm(u8),
    /// A CPU begins a batch: page and ask.
    Begin(u8, u8, Ask),
    /// An ask joins the CPU's batch that has not taken a step.
    Join(u8, u8, Ask),
    /// A CPU takes one step of its batch, or commits it. Bit by bit: which pages were found
    /// genuine in this step.
    Step(u8, u32),
    /// The same, and the platform fails.
    Fault(u8),
    /// A CPU drops its batch.
    Drop(u8),
    /// The host loses its memory and starts again.
    Restart,
    /// Anything by which guests and the management side change bytes and mappings only.
    Elsewhere,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nobody was asked: the page is held, or there is no such batch.
    Unasked,
    /// Refused; everything is as it was.
    Refused,
    /// Done.
    Done,
}

/// Who a frame belongs to; pages by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the words of the glossary")]
pub enum Owner {
    Free,
    Offered(u8),
    Owned(u8),
    Quarantined(u8),
}

/// What an onlooker sees of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The name of its state.
    pub state: &'static str,
    /// What the management side may do with it, while it is open.
    pub rights: Option<Rights>,
    /// How many versions of it are used up.
    pub version: u64,
    /// Whether somebody holds it.
    pub held: bool,
    /// Whether checkpoints leave it out.
    pub excluded: bool,
    /// The frame that it rests in.
    pub frame: Option<u8>,
}

/// A page that nobody holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resting {
    /// What it is.
    pub state: State,
    /// The frame that it rests in.
    pub frame: Option<u8>,
    /// How many versions of it are used up.
    pub version: u64,
    /// Whether checkpoints leave it out.
    pub excluded: bool,
    /// Whether it was poisoned with a replica that nobody has wiped.
    pub owes_replica: bool,
}

/// What an onlooker sees of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmSight {
    /// Its CPUs may run.
    pub runs: bool,
    /// How many replicas of its pages are out or promised.
    pub replicas: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plan {
    ask: Ask,
    after: State,
    steps: Steps,
    begun: bool,
    forged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    state: State,
    frame: Option<u8>,
    version: u64,
    excluded: bool,
    has_replica: bool,
    plan: Option<Plan>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Batch {
    pages: [Option<u8>; PLANS],
    steps: u8,
}

/// Everything that the blackboard has: VMs with `PAGES / VMS` pages each, and a table of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host<const VMS: usize, const PAGES: usize, const FRAMES: usize, const CPUS: usize> {
    pages: [Page; PAGES],
    frames: [Owner; FRAMES],
    launched: [bool; VMS],
    stopped: [bool; VMS],
    batches: [Option<Batch>; CPUS],
    replicas_max: u8,
    leases_max: u8,
}

/// The steps of a batch: each for one plan, or for all that seal or open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    One(usize),
    Fence,
    Seal,
    Open,
}

impl<const VMS: usize, const PAGES: usize, const FRAMES: usize, const CPUS: usize>
    Host<VMS, PAGES, FRAMES, CPUS>
{
    /// A host that has just started. So many replicas may be out, and pages open, for each VM.
    pub const fn new(replicas_max: u8, leases_max: u8) -> Self {
        let page = Page {
            state: State::Free,
            frame: None,
            version: 0,
            excluded: false,
            has_replica: false,
            plan: None,
        };
        Self {
            pages: [page; PAGES],
            frames: [Owner::Free; FRAMES],
            launched: [false; VMS],
            stopped: [false; VMS],
            batches: [None; CPUS],
            replicas_max,
            leases_max,
        }
    }

    /// Says what a page that nobody holds is, and whether it still owes a replica.
    pub const fn rest(&mut self, page: u8, seen: Resting) {
        let Resting { state, frame, version, excluded, owes_replica } = seen;
        let has_replica = matches!(state, State::Replica) || owes_replica;
        self.pages[page as usize] =
            Page { state, frame, version, excluded, has_replica, plan: None };
    }

    /// Says whose a frame is.
    pub const fn own(&mut self, frame: u8, owner: Owner) {
        self.frames[frame as usize] = owner;
    }

    /// Says whether a VM was launched, and whether it was stopped.
    pub const fn set_vm(&mut self, vm: u8, launched: bool, stopped: bool) {
        self.launched[vm as usize] = launched;
        self.stopped[vm as usize] = stopped;
    }

    /// Lets something happen.
    pub fn step(&mut self, happening: Happening) -> Expect {
        match happening {
            Happening::Offer(frame, page) => self.turn(frame, Owner::Free, Owner::Offered(page)),
            Happening::Retract(frame, page) => self.turn(frame, Owner::Offered(page), Owner::Free),
            Happening::LaunchVm(vm) => self.launch(vm),
            Happening::Begin(cpu, page, ask) => self.begin(cpu, page, ask),
            Happening::Join(cpu, page, ask) => self.join(cpu, page, ask),
            Happening::Step(cpu, genuine) => self.advance(cpu, Some(genuine)),
            Happening::Fault(cpu) => self.advance(cpu, None),
            Happening::Drop(cpu) => self.drop_batch(cpu),
            Happening::Restart => {
                *self = Self::new(self.replicas_max, self.leases_max);
                Expect::Done
            }
            Happening::Elsewhere => Expect::Done,
        }
    }

    /// Whether a page is as in another host.
    pub fn same_page(&self, other: &Self, page: u8) -> bool {
        self.pages[usize::from(page)] == other.pages[usize::from(page)]
    }

    /// Whether a VM is as in another host, but for its pages.
    pub const fn same_vm(&self, other: &Self, vm: u8) -> bool {
        let vm = vm as usize;
        self.launched[vm] == other.launched[vm] && self.stopped[vm] == other.stopped[vm]
    }

    /// What an onlooker sees of a page.
    pub fn sight(&self, page: u8) -> Sight {
        let Page { state, frame, version, excluded, plan, .. } = self.pages[usize::from(page)];
        let shown = match plan {
            Some(Plan { begun: true, after: State::Free, .. }) => State::Scrubbing,
            Some(Plan { begun: true, .. }) => State::Poisoned,
            Some(_) | None => state,
        };
        let rights = if let State::Open(rights, _) = shown { Some(rights) } else { None };
        let held = plan.is_some();
        let frame = if held { None } else { frame };
        Sight { state: shown.name(), rights, version, held, excluded, frame }
    }

    /// Who a frame belongs to.
    pub const fn owner(&self, frame: u8) -> Owner {
        self.frames[frame as usize]
    }

    /// What an onlooker sees of a VM.
    pub fn vm_sight(&self, vm: u8) -> VmSight {
        let index = usize::from(vm);
        let runs = self.launched[index] && !self.stopped[index];
        VmSight { runs, replicas: self.count(vm, |page| page.has_replica) }
    }

    fn count(&self, vm: u8, counts: impl Fn(&Page) -> bool) -> u64 {
        let of_vm = self.pages.chunks(PAGES / VMS).nth(usize::from(vm)).unwrap_or_default();
        of_vm.iter().map(|page| u64::from(counts(page))).sum()
    }

    const fn vm_of(page: u8) -> usize {
        page as usize / (PAGES / VMS)
    }

    fn turn(&mut self, frame: u8, from: Owner, to: Owner) -> Expect {
        let owner = &mut self.frames[usize::from(frame)];
        if *owner == from {
            *owner = to;
            Expect::Done
        } else {
            Expect::Refused
        }
    }

    /// Nobody may be built any more, so no page may be half built.
    fn launch(&mut self, vm: u8) -> Expect {
        let building = |page: &Page| {
            let becoming = page.plan.is_some_and(|plan| plan.after == State::Building);
            page.state == State::Building || becoming
        };
        if !self.launched[usize::from(vm)] && self.count(vm, building) > 0 {
            return Expect::Refused;
        }
        self.launched[usize::from(vm)] = true;
        Expect::Done
    }

    fn begin(&mut self, cpu: u8, page: u8, ask: Ask) -> Expect {
        if self.batches[usize::from(cpu)].is_some() {
            return Expect::Unasked;
        }
        let decided = self.decide(page, ask);
        if decided == Expect::Done {
            let pages = std::array::from_fn(|place| (place == 0).then_some(page));
            self.batches[usize::from(cpu)] = Some(Batch { pages, steps: 0 });
        }
        decided
    }

    fn join(&mut self, cpu: u8, page: u8, ask: Ask) -> Expect {
        let Some(mut batch) = self.batches[usize::from(cpu)] else { return Expect::Unasked };
        let room = batch.pages.iter().position(Option::is_none);
        let (0, Some(room)) = (batch.steps, room) else { return Expect::Unasked };
        let decided = self.decide(page, ask);
        if decided == Expect::Done {
            batch.pages[room] = Some(page);
            self.batches[usize::from(cpu)] = Some(batch);
        }
        decided
    }

    /// Makes a plan, and takes what it needs from frames, pool and list: all of it, or nothing.
    fn decide(&mut self, number: u8, ask: Ask) -> Expect {
        let page = self.pages[usize::from(number)];
        if page.plan.is_some() {
            return Expect::Unasked;
        }
        let vm = Self::vm_of(number);
        let launched = self.launched[vm];
        let Some(after) = after(page.state, ask, launched) else { return Expect::Refused };
        let vm = u8::try_from(vm).unwrap_or(u8::MAX);
        let takes_replica = after == State::Replica && page.state != State::Replica;
        let replicas = || self.count(vm, |page| page.has_replica);
        let leases = || self.count(vm, |page| page.has_lease());
        let full = takes_replica && replicas() >= u64::from(self.replicas_max)
            || matches!(ask, Ask::Share(..)) && leases() >= u64::from(self.leases_max);
        let offered = ask.frame().is_none_or(|frame| self.owner(frame) == Owner::Offered(number));
        if full || !offered {
            return Expect::Refused;
        }
        if let Some(frame) = ask.frame() {
            self.frames[usize::from(frame)] = Owner::Owned(number);
        }
        let steps = steps(page.state, ask, launched);
        let page = &mut self.pages[usize::from(number)];
        page.version += u64::from(burns(page.state, ask));
        page.has_replica |= takes_replica;
        page.plan = Some(Plan { ask, after, steps, begun: false, forged: false });
        Expect::Done
    }

    /// One step, of which every page that it is about has begun; `None` if the platform fails.
    fn advance(&mut self, cpu: u8, genuine: Option<u32>) -> Expect {
        let Some(mut batch) = self.batches[usize::from(cpu)] else { return Expect::Unasked };
        let Some(phase) = self.phase(&batch) else {
            self.batches[usize::from(cpu)] = None;
            batch.pages.into_iter().flatten().for_each(|page| self.commit(page));
            return Expect::Done;
        };
        batch.steps += 1;
        self.batches[usize::from(cpu)] = Some(batch);
        for (place, number) in batch.pages.into_iter().enumerate() {
            let Some(number) = number else { continue };
            let Some(plan) = &mut self.pages[usize::from(number)].plan else { continue };
            plan.begun |= match phase {
                Phase::One(of) => of == place,
                Phase::Fence => false,
                Phase::Seal => plan.steps.seals,
                Phase::Open => plan.steps.opens,
            };
            if phase == Phase::Open && plan.steps.opens {
                plan.forged = genuine.is_some_and(|genuine| genuine >> number & 1 == 0);
            }
        }
        if genuine.is_none() { self.let_go(cpu) } else { Expect::Done }
    }

    /// The step that comes after those that were taken; `None` if only the commit is left.
    fn phase(&self, batch: &Batch) -> Option<Phase> {
        let mut left = batch.steps;
        let mut is_next = |times: u8| {
            let next = left < times;
            left = left.saturating_sub(times);
            next
        };
        let plan = |place: usize| {
            let number = batch.pages[place]?;
            self.pages[usize::from(number)].plan
        };
        let steps = std::array::from_fn::<_, PLANS, _>(|place| {
            plan(place).map(|plan| plan.steps).unwrap_or_default()
        });
        let one = |place: Option<usize>| place.map(Phase::One);
        let any = |wanted: fn(&Steps) -> bool| u8::from(steps.iter().any(wanted));
        let withdrawn = (0..PLANS).find(|place| is_next(steps[*place].withdraws));
        one(withdrawn)
            .or_else(|| is_next(any(|steps| steps.withdraws > 0)).then_some(Phase::Fence))
            .or_else(|| one((0..PLANS).find(|place| is_next(steps[*place].fetches.into()))))
            .or_else(|| is_next(any(|steps| steps.seals)).then_some(Phase::Seal))
            .or_else(|| is_next(any(|steps| steps.opens)).then_some(Phase::Open))
            .or_else(|| one((0..PLANS).find(|place| is_next(steps[*place].scrubs.into()))))
            .or_else(|| {
                // A page that is not genuine is granted to nobody.
                let forged = |place| plan(place).is_some_and(|plan| plan.forged);
                let grants = |place: usize| steps[place].grants && !forged(place);
                one((0..PLANS).find(|place| is_next(grants(*place).into())))
            })
    }

    fn commit(&mut self, number: u8) {
        let page = &mut self.pages[usize::from(number)];
        let Some(plan) = page.plan else { return };
        if plan.forged {
            return self.poison(number);
        }
        page.plan = None;
        if let Ask::Exclude(excluded) = plan.ask {
            page.excluded = excluded;
        }
        page.has_replica = plan.after == State::Replica;
        page.state = plan.after;
        page.frame = plan.ask.frame().or(page.frame);
        if !plan.after.has_frame()
            && let Some(frame) = page.frame.take()
        {
            self.frames[usize::from(frame)] = Owner::Free;
        }
    }

    fn drop_batch(&mut self, cpu: u8) -> Expect {
        if self.batches[usize::from(cpu)].is_none() {
            return Expect::Unasked;
        }
        self.let_go(cpu)
    }

    /// A batch ends half way: what has begun is poisoned, what has not is as it was.
    fn let_go(&mut self, cpu: u8) -> Expect {
        let batch = self.batches[usize::from(cpu)].take().unwrap_or_default();
        for number in batch.pages.into_iter().flatten() {
            let page = &mut self.pages[usize::from(number)];
            match page.plan {
                Some(plan) if plan.begun => self.poison(number),
                Some(plan) => {
                    page.plan = None;
                    // What was taken from the pool for this plan goes back to it.
                    page.has_replica &= !(plan.after == State::Replica && page.state != plan.after);
                    if let Some(frame) = plan.ask.frame() {
                        self.frames[usize::from(frame)] = Owner::Offered(number);
                    }
                }
                None => {}
            }
        }
        Expect::Done
    }

    /// Closed for good, with its frame and its VM; a replica stays owed until it is wiped.
    fn poison(&mut self, number: u8) {
        self.stopped[Self::vm_of(number)] = true;
        let page = &mut self.pages[usize::from(number)];
        let reserved = page.plan.and_then(|plan| plan.ask.frame());
        page.plan = None;
        page.state = State::Poisoned;
        page.frame = reserved.or(page.frame);
        if let Some(frame) = page.frame {
            self.frames[usize::from(frame)] = Owner::Quarantined(number);
        }
    }
}

impl Page {
    /// Whether the page is on the list of open pages, or about to be.
    fn has_lease(&self) -> bool {
        let sharing = self.plan.is_some_and(|plan| matches!(plan.ask, Ask::Share(..)));
        sharing || matches!(self.state, State::Open(..))
    }
}
