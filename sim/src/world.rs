//! A whole run: the shipped core, the machine, batches in flight, and what only the checker knows.
//!
//! A world is built from nothing and driven by events. A batch borrows its VM, so a world cannot be
//! copied; to be where a trace ends is to play the trace.

use view_core::{Ownership, PageState, Perm, Refused, Vm, VmNumber};

use crate::bytes::{Bytes, Plain};
use crate::config::Config;
use crate::event::{Ask, Event, Handed, PageRef, Phys, Term};
use crate::flight::Flight;
use crate::host::{Storage, Vms, frame, gfn};
use crate::machine::{CPUS, Machine, Noted, PAGES, VMS};
use crate::mutant::Mutant;

/// What only the checker knows about a page.
#[derive(Clone, Copy, Debug)]
pub struct Ghost {
    /// What the owner would read: what it stored last, or what it was given.
    pub latest: Bytes,
    /// What the owner agreed to show, by its own act.
    pub consent: Option<Perm>,
    /// The management side may still fill it.
    pub building: bool,
    /// It was open and was closed again.
    pub reclaimed: bool,
    /// The highest version that its row showed in this epoch.
    pub highest: u64,
    /// It was poisoned in this epoch.
    pub poisoned: bool,
    /// It was closed after a fault of the platform.
    pub closed: bool,
    /// How long it is open.
    pub term: Option<Term>,
}

/// What the last event did, for `sometimes` properties and for properties of one step.
#[derive(Clone, Debug, Default)]
pub struct Just {
    /// A guest stored to this page.
    pub stored: Option<PageRef>,
    /// The management side reached what a guest stored to a page that was its own again.
    pub exposed: bool,
    /// A guest ran although the core says that it must not.
    pub ran_stopped: bool,
    /// The management side wrote here.
    pub wrote: Option<Phys>,
    /// These plans were committed.
    pub committed: Vec<(PageRef, Ask, PageState)>,
    /// A batch was dropped; whether a step had been taken.
    pub dropped: Option<bool>,
    /// A platform call failed.
    pub faulted: bool,
    /// The core refused.
    pub refused: Option<Refused>,
}

/// A run so far.
#[derive(Debug)]
pub struct World<'t> {
    /// Its bounds.
    pub config: &'t Config,
    /// What is wrong with it on purpose.
    pub mutant: Option<Mutant>,
    pub(crate) vms: &'t Vms<'t>,
    pub(crate) storage: &'t Storage,
    /// How often the host has started, less one.
    pub life: usize,
    /// The host.
    pub machine: Machine,
    /// One batch a CPU.
    pub flights: [Option<Flight<'t>>; CPUS],
    /// What only the checker knows of each page.
    pub ghosts: [Ghost; PAGES],
    /// How many stores, drops and faults there were, and plans if they are bounded.
    pub used: [u8; 4],
    /// Whether the clock ticked.
    pub ticked: bool,
    /// Which VMs were launched.
    pub launched: [bool; VMS],
    /// What the last event did.
    pub just: Just,
    /// A wrong platform's memory: where each page was first.
    pub first_frame: [Option<Phys>; PAGES],
    /// A wrong platform's flush that is still to come.
    pub flush_due: bool,
    /// What a store in private writes, if not something new: two runs may differ in it.
    pub writes: Option<Plain>,
}

/// Plays a trace on a new world and hands the world over.
pub fn play<R>(
    config: &Config,
    mutant: Option<Mutant>,
    trace: impl IntoIterator<Item = Event>,
    then: impl FnOnce(&mut World<'_>) -> R,
) -> R {
    roam(config, mutant, |world| {
        for event in trace {
            world.apply(event);
        }
        then(world)
    })
}

/// Hands over a new world, which can also [go to](World::go_to) any state.
pub fn roam<R>(
    config: &Config,
    mutant: Option<Mutant>,
    then: impl FnOnce(&mut World<'_>) -> R,
) -> R {
    let storage = Storage::new(config);
    let vms = storage.vms(config, mutant);
    then(&mut World::new(config, mutant, &storage, &vms))
}

impl<'t> World<'t> {
    /// A run that has not begun, on tables of its own.
    pub fn new(
        config: &'t Config,
        mutant: Option<Mutant>,
        storage: &'t Storage,
        vms: &'t Vms<'t>,
    ) -> Self {
        Self {
            config,
            mutant,
            vms,
            storage,
            life: 0,
            machine: Machine::new(usize::from(config.replicas)),
            flights: [None, None],
            ghosts: [Ghost::NEW; PAGES],
            used: [0; 4],
            ticked: false,
            launched: [false; VMS],
            just: Just::default(),
            first_frame: [None; PAGES],
            flush_due: false,
            writes: None,
        }
    }

    /// The VM with this number, in the present life.
    pub fn vm(&self, number: u8) -> &'t Vm<'t> {
        &self.vms[self.life][usize::from(number)]
    }

    /// A page's row.
    pub fn words(&self, page: PageRef) -> [u64; 4] {
        self.storage.slot(self.life, page).words()
    }

    /// What onlookers see of a page.
    pub fn state(&self, page: PageRef) -> PageState {
        let state = self.vm(page.vm).state(gfn(page));
        state.expect("pages of the configuration exist")
    }

    /// The frame that a page's row names.
    pub fn frame(&self, page: PageRef) -> Phys {
        Phys::Frame(u8::try_from(self.words(page)[0] >> 24).unwrap_or(u8::MAX))
    }

    /// How often a page was sealed.
    pub fn version(&self, page: PageRef) -> u64 {
        self.words(page)[1] & ((1 << 56) - 1)
    }

    /// Whether somebody holds a page.
    pub fn is_busy(&self, page: PageRef) -> bool {
        is_busy(self.words(page)[0])
    }

    /// Who owns a frame.
    pub fn ownership(&self, number: u8) -> Ownership {
        self.vm(0).frames().owner(frame(number)).expect("frames of the configuration exist")
    }

    /// What the checker knows of a page.
    pub fn ghost(&self, page: PageRef) -> &Ghost {
        &self.ghosts[page.index()]
    }

    /// Whether guest CPUs of a VM run. A wrong frontend does not ask the core.
    pub fn runs(&self, vm: u8) -> bool {
        let wrong = self.mutant == Some(Mutant::RunsStopped) && self.launched[usize::from(vm)];
        wrong || self.vm(vm).runnable().is_ok()
    }

    /// Whether no guest CPU of a VM may run: the core says so, or would have to.
    fn must_stop(&self, vm: u8) -> bool {
        let stops = |page| self.ghost(page).building || self.ghost(page).poisoned;
        let mut own = self.config.page_refs().filter(|page| page.vm == vm);
        self.vm(vm).runnable().is_err() || own.any(stops)
    }

    /// Lets something happen. What it does not find, it does not do.
    pub fn apply(&mut self, event: Event) {
        self.just = Just::default();
        self.machine.noted = Noted::default();
        match event {
            Event::GuestLoad(cpu, page) => self.guest(cpu, page, false),
            Event::GuestStore(cpu, page) => self.guest(cpu, page, true),
            Event::ManageLoad(cpu, place) => _ = self.machine.host_walk(cpu, place),
            Event::ManageStore(cpu, place) => self.manage_store(cpu, place),
            Event::ManageMap(number) => self.manage_map(number),
            Event::Offer(number, page) => {
                let owner = VmNumber(u16::from(page.vm));
                let _ = self.vm(0).frames().offer(frame(number), owner, gfn(page));
            }
            Event::Retract(number, page) => {
                let owner = VmNumber(u16::from(page.vm));
                let _ = self.vm(0).frames().retract(frame(number), owner, gfn(page));
            }
            Event::Hand(page, handed) => self.hand(page, handed),
            Event::Claim(page) => self.claim(page),
            Event::Begin(cpu, page, ask) => self.begin(cpu, page, ask),
            Event::Join(cpu, page, ask) => self.join(cpu, page, ask),
            Event::Step(cpu) => self.step(cpu, None),
            Event::Fault(cpu, time) => self.step(cpu, Some(time)),
            Event::Drop(cpu) => self.drop_batch(cpu),
            Event::LaunchVm(vm) => {
                self.launched[usize::from(vm)] |= self.vm(vm).launch().is_ok();
            }
            Event::Tick => self.ticked = true,
            Event::Restart => self.restart(),
        }
        if !event.leaves_rows() {
            self.watch();
        }
    }

    fn guest(&mut self, cpu: u8, page: PageRef, store: bool) {
        if !self.runs(page.vm) {
            return;
        }
        let Some(place) = self.machine.guest_walk(cpu, page) else { return };
        self.just.ran_stopped = self.must_stop(page.vm);
        if store {
            let number = self.used[0];
            self.used[0] += 1;
            let ghost = &mut self.ghosts[page.index()];
            let open = ghost.consent.is_some();
            let private = self.writes.unwrap_or(Plain::Secret(number));
            let plain = if open { Plain::Shared(number) } else { private };
            ghost.latest = Bytes::Plain(plain);
            self.machine.put(place, Bytes::Plain(plain));
            let own_again = self.ghosts[page.index()].reclaimed && !open;
            self.just.exposed = own_again && self.machine.host_reaches(self.frame(page));
            self.just.stored = Some(page);
            if std::mem::take(&mut self.flush_due) {
                self.machine.flush();
            }
        }
    }

    fn manage_store(&mut self, cpu: u8, place: Phys) {
        if self.machine.host_walk(cpu, place) != Some(Perm::ReadWrite) {
            return;
        }
        self.machine.put(place, Bytes::PUBLIC);
        self.just.wrote = Some(place);
        let Phys::Frame(number) = place else { return };
        if let Ownership::Owned(vm, gfn) = self.ownership(number) {
            let page = PageRef {
                vm: u8::try_from(vm.0).unwrap_or(u8::MAX),
                gfn: u8::try_from(gfn.number()).unwrap_or(u8::MAX),
            };
            let ghost = &mut self.ghosts[page.index()];
            if ghost.building || ghost.consent == Some(Perm::ReadWrite) {
                ghost.latest = Bytes::PUBLIC;
            }
        }
    }

    fn manage_map(&mut self, number: u8) {
        if matches!(self.ownership(number), Ownership::Free | Ownership::Offered(..)) {
            self.machine.host_table[Phys::Frame(number).index()] = Some(Perm::ReadWrite);
        }
    }

    fn hand(&mut self, page: PageRef, handed: Handed) {
        let bytes = match handed {
            Handed::Forged => Some(Bytes::PUBLIC),
            Handed::Known(label) => {
                let mut known = self.machine.known.iter().rev();
                known.find(|seal| seal.label == label).map(|seal| Bytes::Sealed(*seal))
            }
        };
        if let Some(bytes) = bytes {
            self.machine.handed[page.index()] = bytes;
        }
    }

    /// A sound frontend has no door for what the management side says of a page.
    fn claim(&mut self, page: PageRef) {
        if self.flights[0].is_none() {
            let ask = Ask::Share(Perm::Read, Term::Never);
            self.begin_as(0, page, ask, false);
        }
    }

    /// The page that evidence is about where the management side's word becomes some.
    pub(crate) fn believed(&self, page: PageRef) -> Option<PageRef> {
        let mutant = self.mutant?;
        let another = self.config.page_refs().find(|other| *other != page);
        if mutant == Mutant::TrustsClaim {
            Some(page)
        } else {
            another.filter(|_| mutant.takes_anothers())
        }
    }

    fn restart(&mut self) {
        if self.life + 1 >= self.vms.len() {
            return;
        }
        self.flights = [None, None];
        self.life += 1;
        self.machine.restart();
        self.launched = [false; VMS];
        self.first_frame = [None; PAGES];
        self.ticked = false;
        for ghost in &mut self.ghosts {
            // Same epoch, same versions: a wrong host forgets, the checker does not.
            let keeps_epoch = self.mutant == Some(Mutant::KeepsEpoch);
            let (highest, poisoned) = (ghost.highest, ghost.poisoned);
            *ghost = Ghost::NEW;
            if keeps_epoch {
                (ghost.highest, ghost.poisoned) = (highest, poisoned);
            }
        }
    }

    /// What the checker has to remember of what it sees.
    fn watch(&mut self) {
        for page in self.config.page_refs() {
            let (version, state, busy) = (self.version(page), self.state(page), self.is_busy(page));
            let ghost = &mut self.ghosts[page.index()];
            ghost.highest = ghost.highest.max(version);
            ghost.poisoned |= !busy && state == PageState::Poisoned;
            if !busy && !matches!(state, PageState::PagedOut | PageState::Sealed) {
                // Nothing will fetch it any more.
                self.machine.handed[page.index()] = Bytes::PUBLIC;
            }
        }
    }
}

/// Whether a row's first word says that somebody holds it.
pub(crate) const fn is_busy(control: u64) -> bool {
    control & 1 << 4 != 0
}

impl Ghost {
    const NEW: Self = Self {
        latest: Bytes::ZERO,
        consent: None,
        building: false,
        reclaimed: false,
        highest: 0,
        poisoned: false,
        closed: false,
        term: None,
    };
}
