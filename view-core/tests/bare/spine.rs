//! A guest of four pages taken through every request and every act, over any cipher.
//!
//! Whatever is `black_box`ed the compiler knows nothing about, so the whole table stays in.

use core::hint::black_box;

use view_core::page_table::{Level, canonicalise, decanonicalise};
use view_core::registers::{Exit, Gprs, Operand, Part, Registers, accept, show};
use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Stream, Tag};
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Batch, Copies, Epoch, Field, Frame, Frames, Gfn, Mask, MaskId, OpenStep, Owner, Page,
    PageState, Perm, Plan, Platform, Progress, Receipt, Request, SealStep, Slot, Source, Target,
    View, Vm, VmConfig, VmNumber, What, show_fields,
};

const PAGES: usize = 4;
const VM: VmNumber = VmNumber(7);
static SLOTS: [Slot; PAGES] = [const { Slot::new() }; PAGES];
static OWNERS: [Owner; PAGES] = [const { Owner::new() }; PAGES];
static LEASES: [Lease; 2] = [const { Lease::new() }; 2];
static MASKS: [Mask<'_>; 1] = [Mask(&[Field::fixed::<8, 16>()])];

/// A machine of four frames.
struct Machine<'c, C> {
    cipher: &'c C,
    frames: [Page; PAGES],
    staging: Page,
    out: Page,
    /// Calls that are still answered; then one fails.
    patience: u32,
}

impl<C: PageCipher<Id = PageId>> Machine<'_, C> {
    fn call(&mut self) -> Result<(), ()> {
        self.patience = self.patience.checked_sub(1).ok_or(())?;
        black_box(Ok(()))
    }

    /// Copies a frame to staging, where nobody else can change it.
    fn stage(&mut self, frame: Frame) -> Result<(), ()> {
        let number = usize::try_from(frame.number()).map_err(|_| ())?;
        self.staging.clone_from(self.frames.get(number).ok_or(())?);
        Ok(())
    }

    fn unstage(&mut self, frame: Frame, from_staging: bool) -> Result<(), ()> {
        let number = usize::try_from(frame.number()).map_err(|_| ())?;
        let to = self.frames.get_mut(number).ok_or(())?;
        to.clone_from(if from_staging { &self.staging } else { &self.out });
        Ok(())
    }
}

impl<C: PageCipher<Id = PageId>> Platform for Machine<'_, C> {
    type Fault = ();

    fn withdraw(&mut self, _: &Target, _: View) -> Result<(), ()> {
        self.call()
    }

    fn fence(&mut self) -> Result<(), ()> {
        self.call()
    }

    fn fetch(&mut self, page: &Target) -> Result<(), ()> {
        self.call()?;
        self.unstage(page.frame, false)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ()> {
        self.call()?;
        for (step, tag) in steps.iter().zip(tags) {
            match step.from {
                Source::Frame => self.stage(step.target.frame)?,
                Source::Zeroes => self.staging = Page::zeroed(),
            }
            let (plain, sealed) = (&self.staging, &mut self.out);
            let mut jobs = [SealJob::new(step.id, plain, sealed)];
            self.cipher.seal(&mut jobs, Landing::Hot);
            let [job] = jobs;
            *tag = job.tag();
            if step.to == view_core::Place::InPlace {
                self.unstage(step.target.frame, false)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ()> {
        self.call()?;
        for (step, genuine) in steps.iter().zip(genuine) {
            let (id, tag) = (step.id, step.tag);
            self.stage(step.target.frame)?;
            self.out.clone_from(&self.staging);
            let (sealed, plain) = (&self.out, &mut self.staging);
            let mut jobs = [OpenJob::new(id, sealed, tag, plain)];
            self.cipher.open(&mut jobs, Landing::Hot);
            let [job] = jobs;
            *genuine = job.genuine();
            self.unstage(step.target.frame, true)?;
        }
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), ()> {
        self.call()?;
        if black_box(copies) != Copies::Replica {
            self.staging = Page::zeroed();
            self.unstage(page.frame, true)?;
        }
        Ok(())
    }

    fn grant(&mut self, _: &Target, view: View, what: What, perm: Perm) -> Result<(), ()> {
        black_box((view, what, perm));
        self.call()
    }
}

/// The whole life; `None` at the first thing that does not go as it should.
pub(crate) fn drive<C: PageCipher<Id = PageId>>(cipher: &C) -> Option<[Receipt; 2]> {
    let vm = Vm::new(VmConfig {
        number: VM,
        epoch: Epoch(black_box(1)),
        pages: black_box(4),
        slots: black_box(&SLOTS),
        frames: Frames::new(black_box(&OWNERS)),
        leases: Leases::new(black_box(&LEASES)),
        masks: black_box(&MASKS),
        replicas_max: black_box(1),
    })
    .ok()?;
    let pages = [const { Page::zeroed() }; PAGES];
    let (staging, out) = (Page::zeroed(), Page::zeroed());
    let mut machine = Machine { cipher, frames: pages, staging, out, patience: black_box(1000) };
    for (gfn, number) in vm.gfns().zip(0..) {
        let frame = Frame::new(number).ok()?;
        vm.frames().offer(frame, VM, gfn).ok()?;
        act(&vm, &mut machine, gfn, Act::Accept(frame))?;
        act(&vm, &mut machine, gfn, Act::Launch)?;
    }
    vm.launch().ok()?;
    vm.runnable().ok()?;
    let [page, other] = [1, 2].map(Gfn::new);
    let (page, other) = (page.ok()?, other.ok()?);
    let exported = Request::Export(Stream::Image);
    for (request, expected) in [
        (Request::Map(Perm::Read), PageState::Replica),
        (exported, PageState::Replica),
        (Request::Unmap, PageState::Private),
        (Request::Seal, PageState::Sealed),
    ] {
        let receipt = ask(&vm, &mut machine, page, black_box(request))?;
        (receipt.state == expected).then_some(())?;
    }
    act(&vm, &mut machine, page, Act::Touch)?;
    act(&vm, &mut machine, page, Act::Exclude(true))?;
    ask(&vm, &mut machine, page, Request::PageOut)?;
    let frame = Frame::new(1).ok()?;
    vm.frames().offer(frame, VM, page).ok()?;
    ask(&vm, &mut machine, page, Request::PageIn(frame))?;
    act(&vm, &mut machine, page, Act::Touch)?;
    // A private page and an open one, for whoever makes an image of them.
    let (limited, unlimited) = ((Doorbell::SHARE, 9), (Doorbell::SHARE, 0));
    let mut due = 0_usize;
    for (call, expiry) in [limited, (Doorbell::UNSHARE, 0), (Doorbell::EXCLUDE, 0), unlimited] {
        let gfn = other.number();
        let fact = DoorbellFact { vm: VM, call, gfn, perm: 1, mask: 1, expiry };
        let (gfn, opening) = Doorbell.infer(&vm, &black_box(fact)).ok()?.act();
        act(&vm, &mut machine, gfn, black_box(opening))?;
        due = due.saturating_add(vm.leases().due(9).count());
    }
    (due == 1).then_some(())?;
    forms(&vm, &mut machine)?;
    let exports = [
        ask(&vm, &mut machine, page, black_box(exported))?,
        ask(&vm, &mut machine, other, black_box(exported))?,
    ];
    ask(&vm, &mut machine, page, Request::Destroy)?;
    drop_and_fail(&vm, &mut machine)?;
    Some(exports)
}

/// What the management side is given instead of a page, of registers and of a page table.
fn forms<C>(vm: &Vm<'_>, machine: &mut Machine<'_, C>) -> Option<()> {
    let mask = MaskId::new(black_box(1))?;
    vm.mask(mask)?.apply(&machine.staging, &mut machine.out);
    show_fields(black_box(&MASKS), mask, &machine.staging, &mut machine.out).ok()?;
    let into = Operand::new(black_box(3), black_box(Part::Half))?;
    let exit = black_box(Exit::MmioRead { into, address: Gprs(black_box(2)) });
    let kept = black_box(Registers::ZERO);
    let mut returned = show(exit, &kept);
    (returned.rbx, returned.rip) = black_box((7, 9));
    (black_box(accept(exit, 9, &kept, &returned).ok()?).rbx == 7).then_some(())?;
    let [mut table, mut canonical] = [const { Page::zeroed() }; 2];
    let level = black_box(Level::Four);
    table.bytes_mut()[..8].copy_from_slice(&black_box(0x2063_u64).to_le_bytes());
    canonicalise(vm, level, black_box(&table), &mut canonical).ok()?;
    decanonicalise(vm, level, black_box(&canonical), &mut table).ok()
}

/// Two plans at once: dropped, dropped half way, and failing at every call there is.
fn drop_and_fail<C: PageCipher<Id = PageId>>(
    vm: &Vm<'_>,
    machine: &mut Machine<'_, C>,
) -> Option<()> {
    for patience in 0..black_box(12) {
        let mut batch = Batch::<2>::new();
        for gfn in vm.gfns() {
            let decided = vm.claim(gfn).ok()?.request(black_box(Request::Map(Perm::Read)));
            if let Ok(plan) = decided
                && let Err(plan) = batch.push(plan)
            {
                drop(plan);
            }
        }
        if patience < 2 {
            continue;
        }
        machine.patience = patience;
        while batch.step(machine) == Ok(Progress::More) {}
        if let Ok(receipts) = batch.finish() {
            drop(black_box(receipts));
        }
    }
    let poisoned = |gfn| vm.state(gfn) == Some(PageState::Poisoned);
    let stopped = vm.runnable().is_err() && vm.gfns().any(poisoned);
    (stopped && vm.gfns().all(|gfn| vm.claim(gfn).is_ok())).then_some(())
}

fn ask<C: PageCipher<Id = PageId>>(
    vm: &Vm<'_>,
    machine: &mut Machine<'_, C>,
    gfn: Gfn,
    request: Request,
) -> Option<Receipt> {
    carry_out(machine, vm.claim(gfn).ok()?.request(request).ok()?)
}

fn act<C: PageCipher<Id = PageId>>(
    vm: &Vm<'_>,
    machine: &mut Machine<'_, C>,
    gfn: Gfn,
    act: Act,
) -> Option<Receipt> {
    carry_out(machine, vm.claim(gfn).ok()?.act(act).ok()?)
}

fn carry_out<C: PageCipher<Id = PageId>>(
    machine: &mut Machine<'_, C>,
    plan: Plan<'_>,
) -> Option<Receipt> {
    let id: Option<PageId> = black_box(plan.seal_id());
    let mut batch = Batch::<4>::new();
    batch.push(plan).ok()?;
    let receipts = batch.run(machine).ok()?;
    let receipt = receipts.iter().next()?;
    receipts.commit();
    (receipt.sealed.map(|(sealed, _)| sealed) == id).then_some(receipt)
}
