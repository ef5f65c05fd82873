//! How mutants are wrong: a platform around the sound one that differs in one place.
//!
//! Nothing here is in the machine, so that the machine reads as what a platform should be.

use view_core::suite::Tag;
use view_core::{
    Copies, OpenStep, Perm, Place, Platform, SealStep, Source, Target, Version, View, What,
};

use crate::bytes::{Bytes, Label, Seal};
use crate::event::{FaultTime, PageRef, Phys};
use crate::flight::Answer;
use crate::machine::{Broken, Cpu, FRAMES, Tlb};
use crate::mutant::Mutant;
use crate::world::World;

/// One CPU's handle on the machine, sound or not.
#[derive(Debug)]
pub struct Wrong<'w, 't> {
    /// The run.
    pub world: &'w mut World<'t>,
    /// Which CPU.
    pub cpu: u8,
}

impl Wrong<'_, '_> {
    fn is(&self, mutant: Mutant) -> bool {
        self.world.mutant == Some(mutant)
    }

    fn sound(&mut self) -> Cpu<'_> {
        Cpu { machine: &mut self.world.machine, number: self.cpu }
    }

    /// Passes an answer on; a platform that gives up fails from then on.
    fn answer(&mut self, answer: Result<(), Broken>) -> Result<(), Broken> {
        if answer.is_err() && self.is(Mutant::GivesUp) {
            self.world.machine.fault = Some(FaultTime::Early);
        }
        answer
    }

    /// What a seal step leaves behind when the platform does not seal at once.
    fn leave_plain(&mut self, step: &SealStep) {
        let machine = &mut self.world.machine;
        let staged = match step.from {
            Source::Frame => machine.at(Phys::of(step.target.frame)),
            Source::Zeroes => Bytes::ZERO,
        };
        if step.to == Place::Replica
            && let Ok(replica) = machine.replica_or_new(PageRef::of(&step.target))
        {
            machine.put(replica, staged);
        }
    }

    fn seal_wrong(&mut self, steps: &[SealStep], tags: &mut [Tag]) {
        for (step, tag) in steps.iter().zip(tags) {
            let mut step = *step;
            if self.is(Mutant::ConstantVersion) {
                step.id.version = Version::ZERO.next().unwrap_or(step.id.version);
            }
            let plain = self.world.machine.at(Phys::of(step.target.frame));
            if let Ok(seal) = self.sound().seal_one(&step) {
                *tag = seal.tag();
                self.world.machine.answer(Answer::Tag(seal.tag()));
            }
            let blank = self.is(Mutant::ShowsBlank) && plain == Bytes::ZERO;
            if blank || self.is(Mutant::ReplicaPlain) || self.is(Mutant::SealsLate) {
                self.world.machine.put(Phys::of(step.target.frame), plain);
                self.leave_plain(&step);
            }
        }
    }

    fn open_wrong(&mut self, steps: &[OpenStep], genuine: &mut [bool]) {
        for (step, genuine) in steps.iter().zip(genuine) {
            let (page, frame) = (PageRef::of(&step.target), Phys::of(step.target.frame));
            let from = self.world.machine.at(frame);
            let opened = self.believed(step, page, from);
            *genuine = opened.is_some();
            self.sound().install(page, frame, step.id, from, opened);
            if opened.is_none() && self.is(Mutant::KeepsForged) {
                self.world.machine.put(frame, from);
            }
        }
    }

    /// What a wrong verifier takes for genuine.
    fn believed(&self, step: &OpenStep, page: PageRef, from: Bytes) -> Option<Bytes> {
        let seal = match from {
            Bytes::Sealed(seal) => seal,
            Bytes::Plain(_) => return self.is(Mutant::InstallsAnyway).then_some(from),
        };
        let inner = Bytes::Plain(seal.inner);
        if self.is(Mutant::InstallsAnyway) {
            return Some(inner);
        }
        if self.is(Mutant::OpensTwice) {
            let again = match self.world.machine.handed[page.index()] {
                Bytes::Sealed(Seal { inner, .. }) => Bytes::Plain(inner),
                plain @ Bytes::Plain(_) => plain,
            };
            return seal.is(step.target.vm, &step.id, &step.tag).then_some(again);
        }
        if self.is(Mutant::KeepsForged) {
            return seal.is(step.target.vm, &step.id, &step.tag).then_some(inner);
        }
        let (told, own) = (seal.label, Label::new(step.target.vm, &step.id));
        (self.overlooked(told, own) == own).then_some(inner)
    }

    /// What a record says, with the fields that this verifier does not check made right.
    fn overlooked(&self, told: Label, own: Label) -> Label {
        match self.world.mutant {
            Some(Mutant::TrustsVersion) => Label { version: own.version, ..told },
            Some(Mutant::TrustsGfn) => Label { gfn: own.gfn, ..told },
            Some(Mutant::OneKey) => Label { vm: own.vm, ..told },
            Some(Mutant::TrustsEpoch) => Label { epoch: own.epoch, ..told },
            Some(Mutant::TrustsStream) => {
                Label { stream: own.stream, version: own.version, ..told }
            }
            Some(_) | None => told,
        }
    }

    fn opens_wrong(&self) -> bool {
        [
            Mutant::InstallsAnyway,
            Mutant::OpensTwice,
            Mutant::KeepsForged,
            Mutant::TrustsVersion,
            Mutant::TrustsGfn,
            Mutant::OneKey,
            Mutant::TrustsEpoch,
            Mutant::TrustsStream,
        ]
        .into_iter()
        .any(|mutant| self.is(mutant))
    }

    fn forget(&mut self, what: impl Fn(&mut Tlb), one: bool) {
        let cpu = usize::from(self.cpu);
        let tlbs = self.world.machine.tlbs.iter_mut().enumerate();
        for (_, tlb) in tlbs.filter(|(number, _)| !one || *number == cpu) {
            what(tlb);
        }
    }

    /// The seals that a late platform still owes.
    fn seal_now(&mut self) {
        let machine = &mut self.world.machine;
        for place in 0..machine.replica_of.len() {
            let Some(page) = machine.replica_of[place] else { continue };
            let mut known = machine.known.iter().rev();
            let newest = known.find(|seal| (seal.label.vm, seal.label.gfn) == (page.vm, page.gfn));
            if let Some(seal) = newest {
                machine.memory[FRAMES + place] = Bytes::Sealed(*seal);
            }
        }
    }

    fn stale(&mut self, target: &Target) -> Target {
        let page = PageRef::of(target);
        let first = self.world.first_frame[page.index()];
        let frame = *self.world.first_frame[page.index()]
            .get_or_insert(first.unwrap_or(Phys::of(target.frame)));
        let Phys::Frame(number) = frame else { return *target };
        Target { frame: crate::host::frame(number), ..*target }
    }
}

impl Platform for Wrong<'_, '_> {
    type Fault = Broken;

    fn withdraw(&mut self, target: &Target, view: View) -> Result<(), Broken> {
        if self.is(Mutant::KeepsOwner) && view == View::Owner {
            return Ok(());
        }
        let kept = self.world.machine.host_table[Phys::of(target.frame).index()];
        let answer = self.sound().withdraw(target, view);
        if self.is(Mutant::WithdrawsReplicaOnly) {
            self.world.machine.host_table[Phys::of(target.frame).index()] = kept;
        }
        self.answer(answer)
    }

    fn fence(&mut self) -> Result<(), Broken> {
        match self.world.mutant {
            Some(Mutant::ForgetsFence) => Ok(()),
            Some(Mutant::FencesOneCpu) => {
                self.forget(|tlb| *tlb = Tlb::default(), true);
                Ok(())
            }
            Some(Mutant::FencesHostOnly) => {
                self.forget(|tlb| tlb.host = Tlb::default().host, false);
                Ok(())
            }
            Some(Mutant::FlushesAfterStore) => {
                self.world.flush_due = true;
                Ok(())
            }
            Some(Mutant::SealsLate) => {
                self.seal_now();
                self.sound().fence()
            }
            Some(_) | None => {
                let answer = self.sound().fence();
                self.answer(answer)
            }
        }
    }

    fn fetch(&mut self, target: &Target) -> Result<(), Broken> {
        let answer = self.sound().fetch(target);
        self.answer(answer)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), Broken> {
        let wrong =
            [Mutant::ConstantVersion, Mutant::ReplicaPlain, Mutant::SealsLate, Mutant::ShowsBlank];
        if wrong.into_iter().any(|mutant| self.is(mutant)) {
            self.seal_wrong(steps, tags);
            return Ok(());
        }
        let answer = self.sound().seal(steps, tags);
        self.answer(answer)
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), Broken> {
        if self.opens_wrong() {
            self.open_wrong(steps, genuine);
            return Ok(());
        }
        let answer = self.sound().open(steps, genuine);
        self.answer(answer)
    }

    fn scrub(&mut self, target: &Target, copies: Copies) -> Result<(), Broken> {
        let frame = Phys::of(target.frame);
        let kept = self.world.machine.at(frame);
        let replica = self.world.machine.replica(PageRef::of(target));
        let replica = replica.map(|place| self.world.machine.at(place));
        let answer = self.sound().scrub(target, copies);
        if self.is(Mutant::SkipsScrub) {
            self.world.machine.put(frame, kept);
        }
        if let (Mutant::WritesBack, Copies::Replica, Some(bytes)) =
            (self.world.mutant.unwrap_or(Mutant::ForgetsPlan), copies, replica)
        {
            self.world.machine.put(frame, bytes);
        }
        self.answer(answer)
    }

    fn grant(&mut self, target: &Target, view: View, what: What, perm: Perm) -> Result<(), Broken> {
        let original = self.is(Mutant::MapsOriginal) && what == What::Replica;
        let what = if original { What::Plain } else { what };
        let target = if self.is(Mutant::StaleFrame) && view == View::Owner {
            self.stale(target)
        } else {
            *target
        };
        let answer = self.sound().grant(&target, view, what, perm);
        self.answer(answer)
    }
}
