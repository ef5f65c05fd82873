//! A host in miniature: frames, a pool of replicas, nested tables for guests, one table for the
//! management side, and CPUs that remember translations until a fence makes them forget.
//!
//! [`Cpu`] carries out the core's decisions exactly as [`Platform`] words them. Platforms that do
//! not are in [`mutant`](crate::mutant).

use view_core::suite::{PageId, Stream, Tag};
use view_core::{
    Copies, Frame, OpenStep, Perm, Place, Platform, SealStep, Source, Target, View, What,
};

use crate::bytes::{Bytes, Seal};
use crate::event::{FaultTime, PageRef, Phys};
use crate::flight::{Answer, Answers};

/// The most VMs there can be.
pub const VMS: usize = 2;
/// The most pages a VM can have.
pub const VM_PAGES: usize = 3;
/// The most pages there can be.
pub const PAGES: usize = VMS * VM_PAGES;
/// The most frames there can be.
pub const FRAMES: usize = 4;
/// The most replicas there can be.
pub const REPLICAS: usize = 2;
/// How many CPUs there are.
pub const CPUS: usize = 2;

/// Frames and replicas.
pub const PLACES: usize = FRAMES + REPLICAS;
/// The most seals that can be made.
pub const KNOWN: usize = 36;

impl PageRef {
    /// Every page that there can be.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PAGES).map(Self::at)
    }

    /// The page's place in arrays.
    pub fn index(self) -> usize {
        usize::from(self.vm) * VM_PAGES + usize::from(self.gfn)
    }

    /// The page at this place of an array.
    pub fn at(index: usize) -> Self {
        let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        Self { vm: byte(index / VM_PAGES), gfn: byte(index % VM_PAGES) }
    }

    /// The page that a step is about.
    pub fn of(target: &Target) -> Self {
        let gfn = u8::try_from(target.gfn.number()).unwrap_or(u8::MAX);
        Self { vm: u8::try_from(target.vm.0).unwrap_or(u8::MAX), gfn }
    }
}

impl Phys {
    /// Everything that there can be.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..PLACES).map(Self::at)
    }

    /// What is at this place of an array.
    pub fn at(index: usize) -> Self {
        let byte = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        if index < FRAMES { Self::Frame(byte(index)) } else { Self::Replica(byte(index - FRAMES)) }
    }

    /// Its place in arrays.
    pub fn index(self) -> usize {
        match self {
            Self::Frame(number) => usize::from(number),
            Self::Replica(number) => FRAMES + usize::from(number),
        }
    }

    /// The core's name for a frame, in ours.
    pub fn of(frame: Frame) -> Self {
        Self::Frame(u8::try_from(frame.number()).unwrap_or(u8::MAX))
    }
}

/// What a CPU remembers of the tables. Only a fence makes it forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tlb {
    /// The frame that a guest page was found in.
    pub guest: [Option<Phys>; PAGES],
    /// What the management side was allowed to do with a frame or a replica.
    pub host: [Option<Perm>; PLACES],
}

/// Sealed bytes were opened and put into a page. What the checker asks is in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Install {
    /// Into which page.
    pub page: PageRef,
    /// What the core's own table expected.
    pub id: PageId,
    /// What was verified.
    pub from: Bytes,
    /// What the page holds now.
    pub got: Bytes,
}

/// What the management side knew before a seal was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// A seal of the same page under the same version.
    pub version: bool,
    /// The same bytes.
    pub alike: bool,
}

/// What the last event did below, for the checker; no platform decides by it.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// Seals that were made, and what was known of such before.
    pub seals: Vec<(Seal, Before)>,
    /// Pages that were opened as genuine.
    pub installs: Vec<Install>,
    /// Whether a seal was refused as not genuine.
    pub forged: bool,
    /// Everything that the platform answered to the batch that it served.
    pub answers: Answers,
}

/// The state of the whole host.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What frames and replicas hold.
    pub memory: [Bytes; PLACES],
    /// The nested tables: where a guest finds its page.
    pub guest_table: [Option<Phys>; PAGES],
    /// What the management side may do with a frame or a replica.
    pub host_table: [Option<Perm>; PLACES],
    /// What each CPU remembers of both.
    pub tlbs: [Tlb; CPUS],
    /// Whose replica each place of the pool holds.
    pub replica_of: [Option<PageRef>; REPLICAS],
    /// How many places the pool has.
    pub replicas_max: usize,
    /// Every seal ever made, sorted: the management side keeps them all.
    pub known: heapless::Vec<Seal, KNOWN>,
    /// What the management side will hand over for a page that is paged in.
    pub handed: [Bytes; PAGES],
    /// Whether the next call fails.
    pub fault: Option<FaultTime>,
    /// What the checker asks about the last event.
    pub noted: Noted,
}

/// A call failed because it was told to, or because the machine has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Machine {
    /// A host whose frames hold what the management side left in them.
    pub fn new(replicas_max: usize) -> Self {
        Self {
            memory: [Bytes::PUBLIC; PLACES],
            guest_table: [None; PAGES],
            host_table: [None; PLACES],
            tlbs: [Tlb::default(); CPUS],
            replica_of: [None; REPLICAS],
            replicas_max,
            known: heapless::Vec::new(),
            handed: [Bytes::PUBLIC; PAGES],
            fault: None,
            noted: Noted::default(),
        }
    }

    /// The host crashed: everything is gone but what the management side keeps elsewhere.
    pub fn restart(&mut self) {
        let known = std::mem::take(&mut self.known);
        *self = Self { known, ..Self::new(self.replicas_max) };
    }

    /// What a frame or a replica holds.
    pub fn at(&self, place: Phys) -> Bytes {
        self.memory[place.index()]
    }

    /// Writes to a frame or a replica.
    pub fn put(&mut self, place: Phys, bytes: Bytes) {
        self.memory[place.index()] = bytes;
    }

    /// A guest CPU looks a page up, and remembers what it found.
    pub fn guest_walk(&mut self, cpu: u8, page: PageRef) -> Option<Phys> {
        let found = self.tlbs[usize::from(cpu)].guest[page.index()];
        let found = found.or(self.guest_table[page.index()]);
        self.tlbs[usize::from(cpu)].guest[page.index()] = found;
        found
    }

    /// The management side looks a frame up, and the CPU remembers what it found.
    pub fn host_walk(&mut self, cpu: u8, place: Phys) -> Option<Perm> {
        let found = self.tlbs[usize::from(cpu)].host[place.index()];
        let found = found.or(self.host_table[place.index()]);
        self.tlbs[usize::from(cpu)].host[place.index()] = found;
        found
    }

    /// Whether the management side reaches a place, by table or by memory of any CPU.
    pub fn host_reaches(&self, place: Phys) -> bool {
        self.reaches(place.index())
    }

    /// The same of a place in arrays.
    pub(crate) fn reaches(&self, place: usize) -> bool {
        self.host_table[place].is_some() || self.tlbs.iter().any(|tlb| tlb.host[place].is_some())
    }

    /// Every place in which some guest CPU may find a page, by table or by memory.
    pub fn guest_reaches(&self, page: PageRef) -> impl Iterator<Item = Phys> + '_ {
        let remembered = self.tlbs.iter().filter_map(move |tlb| tlb.guest[page.index()]);
        self.guest_table[page.index()].into_iter().chain(remembered)
    }

    /// Where a page's replica is.
    pub fn replica(&self, page: PageRef) -> Option<Phys> {
        let place = self.replica_of.iter().position(|of| *of == Some(page))?;
        Some(Phys::Replica(u8::try_from(place).ok()?))
    }

    /// Makes every CPU forget.
    pub fn flush(&mut self) {
        self.tlbs = [Tlb::default(); CPUS];
    }

    /// Where the page's replica is or will be.
    pub fn replica_or_new(&mut self, page: PageRef) -> Result<Phys, Broken> {
        if let Some(place) = self.replica(page) {
            return Ok(place);
        }
        let room = self.replica_of.iter_mut().take(self.replicas_max).find(|of| of.is_none());
        *room.ok_or(Broken)? = Some(page);
        self.replica(page).ok_or(Broken)
    }

    /// Notes a seal: the management side has it from now on.
    pub fn learn(&mut self, seal: Seal) {
        let Seal { label, .. } = seal;
        let version = self.known.iter().any(|old| {
            (old.label.vm, old.label.epoch, old.label.gfn, old.label.version)
                == (label.vm, label.epoch, label.gfn, label.version)
        });
        let alike = self.known.contains(&seal);
        self.noted.seals.push((seal, Before { version, alike }));
        if !alike {
            self.keep(seal);
        }
    }

    /// The management side keeps a seal, in an order that does not tell when it was made.
    pub fn keep(&mut self, seal: Seal) {
        let term = |seal: Seal| Bytes::Sealed(seal).term();
        let at = self.known.iter().position(|old| term(*old) > term(seal));
        let at = at.unwrap_or(self.known.len());
        self.known.insert(at, seal).expect("no bounds allow for more seals than there is room");
    }

    /// Notes an answer, so that two batches that heard different things are different.
    pub fn answer(&mut self, answer: Answer) {
        self.noted.answers.push(answer).expect("a tag and a verdict for each plan");
    }
}

/// One CPU's handle on the machine: the sound platform.
#[derive(Debug)]
pub struct Cpu<'m> {
    /// The host.
    pub machine: &'m mut Machine,
    /// Which CPU.
    pub number: u8,
}

impl Cpu<'_> {
    /// Seals one page and puts the result where it belongs.
    pub fn seal_one(&mut self, step: &SealStep) -> Result<Seal, Broken> {
        let frame = Phys::of(step.target.frame);
        let staged = match step.from {
            Source::Frame => self.machine.at(frame),
            Source::Zeroes => Bytes::ZERO,
        };
        let seal = Seal::new(step.target.vm, &step.id, staged);
        self.deliver(step, seal)?;
        Ok(seal)
    }

    /// Puts a seal where its step says.
    pub fn deliver(&mut self, step: &SealStep, seal: Seal) -> Result<(), Broken> {
        let page = PageRef::of(&step.target);
        match step.to {
            Place::Replica => {
                let place = self.machine.replica_or_new(page)?;
                self.machine.put(place, Bytes::Sealed(seal));
            }
            Place::InPlace => self.machine.put(Phys::of(step.target.frame), Bytes::Sealed(seal)),
            Place::Wire => {}
        }
        if seal.label.stream == Stream::Resident {
            self.machine.handed[page.index()] = Bytes::Sealed(seal);
        }
        self.machine.learn(seal);
        Ok(())
    }

    /// Runs a call, unless it was told to fail.
    fn call(&mut self, work: impl FnOnce(&mut Self) -> Result<(), Broken>) -> Result<(), Broken> {
        match self.machine.fault.take() {
            Some(FaultTime::Early) => Err(Broken),
            Some(FaultTime::Late) => work(self).and(Err(Broken)),
            None => work(self),
        }
    }
}

impl Platform for Cpu<'_> {
    type Fault = Broken;

    fn withdraw(&mut self, target: &Target, view: View) -> Result<(), Broken> {
        self.call(|cpu| {
            let page = PageRef::of(target);
            match view {
                View::Owner => cpu.machine.guest_table[page.index()] = None,
                View::Management => {
                    cpu.machine.host_table[Phys::of(target.frame).index()] = None;
                    if let Some(replica) = cpu.machine.replica(page) {
                        cpu.machine.host_table[replica.index()] = None;
                    }
                }
            }
            Ok(())
        })
    }

    fn fence(&mut self) -> Result<(), Broken> {
        self.call(|cpu| {
            cpu.machine.flush();
            Ok(())
        })
    }

    fn fetch(&mut self, target: &Target) -> Result<(), Broken> {
        self.call(|cpu| {
            let fetched = cpu.machine.handed[PageRef::of(target).index()];
            cpu.machine.put(Phys::of(target.frame), fetched);
            Ok(())
        })
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), Broken> {
        self.call(|cpu| {
            for (step, tag) in steps.iter().zip(tags) {
                let seal = cpu.seal_one(step)?;
                *tag = seal.tag();
                cpu.machine.answer(Answer::Tag(seal.tag()));
            }
            Ok(())
        })
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Broken> {
        self.call(|cpu| {
            for (step, genuine) in steps.iter().zip(genuine) {
                let (page, frame) = (PageRef::of(&step.target), Phys::of(step.target.frame));
                let from = cpu.machine.at(frame);
                let opened = match from {
                    Bytes::Sealed(seal) if seal.is(step.target.vm, &step.id, &step.tag) => {
                        Some(Bytes::Plain(seal.inner))
                    }
                    Bytes::Sealed(_) | Bytes::Plain(_) => None,
                };
                cpu.install(page, frame, step.id, from, opened);
                *genuine = opened.is_some();
            }
            Ok(())
        })
    }

    fn scrub(&mut self, target: &Target, copies: Copies) -> Result<(), Broken> {
        self.call(|cpu| {
            if matches!(copies, Copies::Original | Copies::All) {
                cpu.machine.put(Phys::of(target.frame), Bytes::ZERO);
            }
            let replica = cpu.machine.replica(PageRef::of(target));
            if let (Copies::Replica | Copies::All, Some(replica)) = (copies, replica) {
                cpu.machine.put(replica, Bytes::ZERO);
                cpu.machine.replica_of[replica.index() - FRAMES] = None;
            }
            Ok(())
        })
    }

    fn grant(&mut self, target: &Target, view: View, what: What, perm: Perm) -> Result<(), Broken> {
        self.call(|cpu| {
            let (page, frame) = (PageRef::of(target), Phys::of(target.frame));
            match (view, what) {
                (View::Owner, _) => cpu.machine.guest_table[page.index()] = Some(frame),
                (View::Management, What::Plain | What::Sealed) => {
                    cpu.machine.host_table[frame.index()] = Some(perm);
                }
                (View::Management, What::Replica) => {
                    let replica = cpu.machine.replica(page).ok_or(Broken)?;
                    cpu.machine.host_table[replica.index()] = Some(perm);
                }
                // No VM here has a field mask, so no page is ever opened under one.
                (View::Management, What::Masked(_)) => return Err(Broken),
            }
            Ok(())
        })
    }
}

impl Cpu<'_> {
    /// Puts opened bytes into a page, or zeroes, and notes it for the checker.
    pub fn install(
        &mut self,
        page: PageRef,
        frame: Phys,
        id: PageId,
        from: Bytes,
        opened: Option<Bytes>,
    ) {
        let got = opened.unwrap_or(Bytes::ZERO);
        self.machine.put(frame, got);
        self.machine.answer(Answer::Genuine(opened.is_some()));
        match opened {
            Some(_) => self.machine.noted.installs.push(Install { page, id, from, got }),
            None => self.machine.noted.forged = true,
        }
    }
}
