//! The same events on two machines: the symbolic one, and one of real bytes under the shipped
//! cipher. What a guest and the management side find must agree after every event.
//!
//! To agree is to be the same up to a dictionary: one sealed term is one page of bytes, and two
//! terms are two. The machine of real bytes has no caches and no frames that are nobody's, so
//! events about those are left out of both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use view_core::key::{RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{PageCipher, Stream};
use view_core::{
    Batch, Epoch, Ownership, PAGE_SIZE, Page, PageState, Perm, Progress, Refused, Vm, VmId,
    VmNumber,
};

use super::draw::Dice;
use super::faulty::Faulty;
use crate::bytes::{Bytes, Plain, Seal};
use crate::config::Config;
use crate::event::{Event, FaultTime, Handed, PageRef, Phys};
use crate::flight::PLANS;
use crate::host::{Storage, Vms, decide, frame, gfn};
use crate::machine::{CPUS, VM_PAGES, VMS};
use crate::mutant::Mutant;
use crate::software::{Software, StreamCiphers};
use crate::world::{World, play};

/// What was compared, and found equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Events that both machines know.
    pub events: u32,
    /// Pages that a view found on both machines, byte for byte.
    pub observations: u32,
    /// Sealed pages in the dictionary.
    pub sealed: u32,
}

/// Where the machines differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differs {
    /// After how many events.
    pub events: u32,
    /// The last of them.
    pub event: Event,
    /// About which page, if it is about one.
    pub page: Option<PageRef>,
    /// What differs.
    pub what: &'static str,
}

impl fmt::Display for Differs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { events, event, page, what } = self;
        write!(f, "{what} differs after {events} events, the last of them {event}")?;
        page.map_or(Ok(()), |page| write!(f, ", at page {page}"))
    }
}

impl std::error::Error for Differs {}

/// Plays the events that both machines know on both of them.
///
/// # Errors
/// [`Differs`] at the first difference.
pub fn compare(
    config: &Config,
    mutant: Option<Mutant>,
    events: impl IntoIterator<Item = Event>,
) -> Result<Agreed, Differs> {
    let storage = Storage::new(config);
    let vms = storage.vms(config, None);
    let mut twin = Twin::new(config, &vms);
    let events = config.setup().into_iter().chain(events);
    play(config, mutant, [], |world| {
        for event in events {
            if !twin.knows(world, event) {
                continue;
            }
            twin.agreed.events += 1;
            world.apply(event);
            let compared = twin.follow(world, event).and_then(|()| twin.compare(world));
            compared.map_err(|(page, what)| Differs {
                events: twin.agreed.events,
                event,
                page,
                what,
            })?;
        }
        Ok(twin.agreed)
    })
}

type Difference = (Option<PageRef>, &'static str);

/// A page's life as somebody sees it who knows every symbol.
struct Seen {
    state: PageState,
    version: u64,
    guest: Option<Bytes>,
    management: Option<(Bytes, Perm)>,
}

/// What the tables of the symbolic machine let each view find.
fn seen(world: &World<'_>, page: PageRef) -> Seen {
    let (state, version) = (world.state(page), world.version(page));
    let machine = &world.machine;
    let guest = machine.guest_table[page.index()].map(|place| machine.at(place));
    let mapped = |place: Phys| Some((machine.at(place), machine.host_table[place.index()]?));
    let replica = machine.replica(page).and_then(mapped);
    let management = replica.or_else(|| mapped(own_frame(world, page)?));
    Seen { state, version, guest, management }
}

fn own_frame(world: &World<'_>, page: PageRef) -> Option<Phys> {
    let Phys::Frame(number) = world.frame(page) else { return None };
    let (vm, gfn) = (VmNumber(u16::from(page.vm)), gfn(page));
    let own = [Ownership::Owned(vm, gfn), Ownership::Quarantined(vm, gfn)];
    own.contains(&world.ownership(number)).then_some(Phys::Frame(number))
}

/// The page whose frame a place is.
fn page_at(world: &World<'_>, place: Phys) -> Option<PageRef> {
    world.config.page_refs().find(|page| own_frame(world, *page) == Some(place))
}

/// The machine of real bytes, with a core of its own.
struct Twin<'t> {
    config: &'t Config,
    vms: &'t Vms<'t>,
    life: usize,
    machines: [Software<'static, SivCmac512>; VMS],
    flights: [Option<Batch<'t, PLANS>>; CPUS],
    pool: BTreeSet<PageRef>,
    dictionary: Dictionary,
    agreed: Agreed,
}

impl<'t> Twin<'t> {
    fn new(config: &'t Config, vms: &'t Vms<'t>) -> Self {
        Self {
            config,
            vms,
            life: 0,
            machines: machines(&vms[0]),
            flights: [const { None }; CPUS],
            pool: BTreeSet::new(),
            dictionary: Dictionary::default(),
            agreed: Agreed::default(),
        }
    }

    fn vm(&self, number: u8) -> &'t Vm<'t> {
        &self.vms[self.life][usize::from(number)]
    }

    fn machine(&mut self, page: PageRef) -> &mut Software<'static, SivCmac512> {
        &mut self.machines[usize::from(page.vm)]
    }

    /// Whether an event means something here: no memory of a CPU past a withdrawal, no frame that
    /// is nobody's, and handed over is only what the management side has got.
    fn knows(&self, world: &World<'_>, event: Event) -> bool {
        match event {
            Event::GuestLoad(_, page) | Event::GuestStore(_, page) => {
                world.machine.guest_table[page.index()].is_some()
            }
            Event::ManageLoad(cpu, place) | Event::ManageStore(cpu, place) => {
                let table = world.machine.host_table[place.index()];
                let remembered = world.machine.tlbs[usize::from(cpu)].host[place.index()];
                table.is_some() && (remembered.is_none() || remembered == table)
            }
            Event::ManageMap(_) => false,
            Event::Hand(_, Handed::Known(label)) => {
                let mut known = world.machine.known.iter().rev();
                let seal = known.find(|seal| seal.label == label);
                seal.is_some_and(|seal| self.dictionary.sealed.contains_key(seal))
            }
            Event::Hand(_, Handed::Forged)
            | Event::Offer(..)
            | Event::Retract(..)
            | Event::Claim(_)
            | Event::Begin(..)
            | Event::Join(..)
            | Event::Step(_)
            | Event::Drop(_)
            | Event::Fault(..)
            | Event::LaunchVm(_)
            | Event::Tick
            | Event::Restart => true,
        }
    }

    /// Does what the symbolic machine has just done.
    fn follow(&mut self, world: &World<'_>, event: Event) -> Result<(), Difference> {
        match event {
            Event::GuestStore(_, page) => self.guest_store(world, page),
            Event::ManageStore(_, place) => self.manage_store(world, place),
            Event::Offer(number, page) => {
                let owner = VmNumber(u16::from(page.vm));
                let _ = self.vm(0).frames().offer(frame(number), owner, gfn(page));
                Ok(())
            }
            Event::Retract(number, page) => {
                let owner = VmNumber(u16::from(page.vm));
                let _ = self.vm(0).frames().retract(frame(number), owner, gfn(page));
                Ok(())
            }
            Event::Begin(cpu, page, ask) if self.flights[usize::from(cpu)].is_none() => {
                self.ask(world, cpu, page, ask)
            }
            Event::Join(cpu, page, ask) if self.joins(world, cpu) => {
                self.ask(world, cpu, page, ask)
            }
            Event::Step(cpu) => self.step(world, cpu, None),
            Event::Fault(cpu, time) => self.step(world, cpu, Some(time)),
            Event::Drop(cpu) => {
                self.flights[usize::from(cpu)] = None;
                Ok(())
            }
            Event::LaunchVm(vm) => {
                let _ = self.vm(vm).launch();
                Ok(())
            }
            Event::Restart => {
                self.restart();
                Ok(())
            }
            Event::Begin(..)
            | Event::Join(..)
            | Event::GuestLoad(..)
            | Event::ManageLoad(..)
            | Event::ManageMap(_)
            | Event::Hand(..)
            | Event::Claim(_)
            | Event::Tick => Ok(()),
        }
    }

    fn guest_store(&mut self, world: &World<'_>, page: PageRef) -> Result<(), Difference> {
        let stored = world.just.stored == Some(page);
        let runs = self.vm(page.vm).runnable().is_ok();
        if !stored || !runs {
            return if stored == runs { Ok(()) } else { Err((Some(page), "who may run")) };
        }
        let plain = match world.ghost(page).latest {
            Bytes::Plain(plain) => plain,
            Bytes::Sealed(_) => return Err((Some(page), "what was stored")),
        };
        let bytes = self.dictionary.stored(plain);
        let done = self.machine(page).owner_store(gfn(page), 0, bytes.bytes());
        if done { Ok(()) } else { Err((Some(page), "whether a guest's store succeeds")) }
    }

    fn manage_store(&mut self, world: &World<'_>, place: Phys) -> Result<(), Difference> {
        let Some(page) = page_at(world, place) else { return Ok(()) };
        let wrote = world.just.wrote == Some(place);
        let public = self.dictionary.stored(Plain::Public);
        let done = self.machine(page).management_store(gfn(page), 0, public.bytes());
        let same = done == wrote;
        if same {
            Ok(())
        } else {
            Err((Some(page), "whether the management side's store succeeds"))
        }
    }

    fn joins(&self, world: &World<'_>, cpu: u8) -> bool {
        let flight = world.flights[usize::from(cpu)].as_ref();
        let room = self.flights[usize::from(cpu)].as_ref().is_some_and(|own| own.len() < PLANS);
        room && flight.is_some_and(|flight| flight.steps == 0)
    }

    fn ask(
        &mut self,
        world: &World<'_>,
        cpu: u8,
        page: PageRef,
        ask: crate::event::Ask,
    ) -> Result<(), Difference> {
        let vm = self.vm(page.vm);
        let answer: Option<Refused> = match vm.claim(gfn(page)) {
            Err(_) => None,
            Ok(claim) => match decide(vm, claim, page, ask) {
                Err(refused) => Some(refused),
                Ok(plan) => {
                    let flight = self.flights[usize::from(cpu)].get_or_insert_default();
                    flight.push(plan).map_err(|_| (Some(page), "room in a batch"))?;
                    None
                }
            },
        };
        if answer == world.just.refused { Ok(()) } else { Err((Some(page), "what is refused")) }
    }

    fn step(
        &mut self,
        world: &World<'_>,
        cpu: u8,
        fault: Option<FaultTime>,
    ) -> Result<(), Difference> {
        let Some(mut batch) = self.flights[usize::from(cpu)].take() else { return Ok(()) };
        self.hand_over(world);
        let (pool, room) = (&mut self.pool, usize::from(self.config.replicas));
        let mut platform = Faulty { machines: &mut self.machines, fault, pool, room };
        match batch.step(&mut platform) {
            Ok(Progress::More) => self.flights[usize::from(cpu)] = Some(batch),
            Ok(Progress::Done) => {
                if let Ok(receipts) = batch.finish() {
                    receipts.commit();
                }
            }
            Ok(Progress::Failed) | Err(_) => drop(batch),
        }
        if self.flights[usize::from(cpu)].is_some() != world.flights[usize::from(cpu)].is_some() {
            return Err((None, "when a batch is over"));
        }
        self.take_in(world)
    }

    /// The management side hands over the pages whose symbols it handed over.
    fn hand_over(&mut self, world: &World<'_>) {
        for page in self.config.page_refs() {
            let bytes = match world.machine.handed[page.index()] {
                Bytes::Plain(plain) => Some(self.dictionary.stored(plain)),
                Bytes::Sealed(seal) => self.dictionary.sealed.get(&seal).cloned(),
            };
            if let Some(bytes) = bytes {
                self.machine(page).hand_over(gfn(page), bytes);
            }
        }
    }

    /// What was sealed for the wire is the management side's.
    fn take_in(&mut self, world: &World<'_>) -> Result<(), Difference> {
        for page in self.config.page_refs() {
            let Some(sealed) = self.machine(page).take_wire(gfn(page)) else { continue };
            let of_page = |seal: &Seal| (seal.label.vm, seal.label.gfn) == (page.vm, page.gfn);
            let mut made = world.machine.noted.seals.iter().map(|(seal, _)| *seal);
            let seal = made.find(of_page).ok_or((Some(page), "what was sealed"))?;
            self.same(page, Bytes::Sealed(seal), Some(&sealed), "what was sent")?;
        }
        Ok(())
    }

    fn restart(&mut self) {
        if self.life + 1 < self.vms.len() {
            self.flights = [const { None }; CPUS];
            self.life += 1;
            self.pool.clear();
            self.machines = machines(&self.vms[self.life]);
        }
    }

    /// Compares everything that can be seen of every page.
    fn compare(&mut self, world: &World<'_>) -> Result<(), Difference> {
        for page in self.config.page_refs() {
            let Seen { state, version, guest, management } = seen(world, page);
            let own = self.vm(page.vm).state(gfn(page));
            if own != Some(state) {
                return Err((Some(page), "the state"));
            }
            if self.vm(page.vm).runnable() != world.vm(page.vm).runnable() {
                return Err((Some(page), "who may run"));
            }
            let own = self.machine(page).owner_load(gfn(page)).map(boxed);
            self.view(page, guest, own, "what the guest finds")?;
            let own = self.machine(page).management_load(gfn(page)).map(boxed);
            let shown = management.map(|(bytes, _)| bytes);
            self.view(page, shown, own, "what the management side finds")?;
            if self.version(page) != Some(version) && !world.is_busy(page) {
                return Err((Some(page), "the version"));
            }
        }
        Ok(())
    }

    /// The version of a page that nobody holds: a claim that is let go of changes nothing.
    fn version(&self, page: PageRef) -> Option<u64> {
        let claim = self.vm(page.vm).claim(gfn(page)).ok()?;
        Some(claim.entry().version.number())
    }

    fn view(
        &mut self,
        page: PageRef,
        symbol: Option<Bytes>,
        found: Option<Box<Page>>,
        what: &'static str,
    ) -> Result<(), Difference> {
        match symbol {
            Some(symbol) => self.same(page, symbol, found.as_deref(), what),
            None if found.is_none() => Ok(()),
            None => Err((Some(page), what)),
        }
    }

    fn same(
        &mut self,
        page: PageRef,
        symbol: Bytes,
        found: Option<&Page>,
        what: &'static str,
    ) -> Result<(), Difference> {
        let found = found.ok_or((Some(page), what))?;
        let same = match symbol {
            Bytes::Plain(plain) => self.dictionary.stored(plain).bytes() == found.bytes(),
            Bytes::Sealed(seal) => self.dictionary.is_seal(seal, found),
        };
        self.agreed.observations += 1;
        self.agreed.sealed = u32::try_from(self.dictionary.sealed.len()).unwrap_or(u32::MAX);
        if same { Ok(()) } else { Err((Some(page), what)) }
    }
}

fn boxed(page: &Page) -> Box<Page> {
    Box::new(page.clone())
}

/// One machine a VM, each under the keys of its VM and epoch.
fn machines(vms: &[Vm<'_>; VMS]) -> [Software<'static, SivCmac512>; VMS] {
    let root = RootKey::new([0x5e; 32]);
    vms.each_ref().map(|vm| {
        let [low, high] = vm.number().0.to_le_bytes();
        let name = VmId([low, high, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7]);
        let Epoch(epoch) = vm.epoch();
        let salt = Salt(u128::from(epoch).to_le_bytes());
        let key = root.vm(&name).epoch(vm.epoch(), &salt, SivCmac512::SUITE);
        let of = |stream: Stream| SivCmac512::new(&key.siv(stream.id()));
        let ciphers = StreamCiphers {
            view: of(Stream::View),
            resident: of(Stream::Resident),
            image: of(Stream::Image),
        };
        Software::new(VM_PAGES, ciphers, &[])
    })
}

/// Which symbol is which bytes. No sealed page looks like another, or holds a block of any store.
#[derive(Default)]
struct Dictionary {
    sealed: BTreeMap<Seal, Box<Page>>,
    beginnings: BTreeSet<[u8; 16]>,
    stores: BTreeSet<u8>,
    secrets: BTreeSet<[u8; 16]>,
}

impl Dictionary {
    /// The bytes that stand for a symbol that is not sealed.
    fn stored(&mut self, plain: Plain) -> Box<Page> {
        let mut page = Box::new(Page::zeroed());
        let seed = match plain {
            Plain::Zero => return page,
            Plain::Public => u64::MAX,
            Plain::Shared(store) | Plain::Secret(store) => u64::from(store),
        };
        let mut dice = Dice::new(seed << 32);
        let (words, _) = page.bytes_mut().as_chunks_mut::<8>();
        words.iter_mut().for_each(|word| *word = dice.word().to_le_bytes());
        if let Plain::Shared(store) | Plain::Secret(store) = plain
            && self.stores.insert(store)
        {
            self.secrets.extend(page.bytes().as_chunks::<16>().0);
        }
        page
    }

    /// Whether these bytes are the seal's; a seal that was not seen before is from now on.
    fn is_seal(&mut self, seal: Seal, found: &Page) -> bool {
        if let Some(known) = self.sealed.get(&seal) {
            return known.bytes() == found.bytes();
        }
        let (blocks, _) = found.bytes().as_chunks::<16>();
        let telling = blocks.iter().any(|block| self.secrets.contains(block));
        let fresh = blocks.first().is_some_and(|block| self.beginnings.insert(*block));
        self.sealed.insert(seal, Box::new(found.clone()));
        let zeroes = found.bytes() == &[0; PAGE_SIZE];
        fresh && !telling && !zeroes
    }
}
