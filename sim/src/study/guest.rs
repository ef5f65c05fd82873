//! A guest of two pages on the shipped core, as plain data: what a study keeps of it between steps.

use std::convert::Infallible;

use view_core::suite::{PageId, Stream, Tag};
use view_core::whitelist::{
    Doorbell, DoorbellFact, Lease, Leases, Proposal, RestoredImage, RestoredPage, Rule,
};
use view_core::{
    Act, Batch, Claim, Copies, Epoch, Frame, Frames, Gfn, MaskId, OpenStep, Owner, PageKind,
    PageState, Perm, Plan, Platform, Receipt, Refused, Request, SealStep, Slot, Source, Target,
    Version, View, Vm, VmConfig, VmNumber, What,
};

/// How many pages it has.
pub(super) const PAGES: usize = 2;

const NUMBER: VmNumber = VmNumber(1);

/// The guest between two steps: the core's tables word by word, and what is in its memory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Guest {
    epoch: u64,
    rows: [[u64; 4]; PAGES],
    owners: [u64; PAGES],
    leases: [[u64; 2]; PAGES],
    words: [u64; 3],
    /// The number of the store that each page holds; 0 is a page of zeroes.
    pub(super) memory: [u8; PAGES],
    /// What is in its CPU's registers: how often it stored.
    pub(super) cpu: u8,
    /// Which pages were last opened until the first unmap: an image has them closed.
    limited: [bool; PAGES],
}

/// A page's number in the core.
pub(super) fn gfn(page: u8) -> Gfn {
    Gfn::new(u64::from(page)).unwrap_or(Gfn::MAX)
}

/// The pages by number.
pub(super) fn pages() -> impl Iterator<Item = u8> {
    (0..).take(PAGES)
}

fn index(gfn: Gfn) -> usize {
    usize::try_from(gfn.number()).unwrap_or(usize::MAX)
}

impl Guest {
    /// A guest whose pages are all zeroes and being built.
    pub(super) fn building(epoch: u64) -> Self {
        let (rows, owners, leases) = Default::default();
        let (words, memory, cpu, limited) = Default::default();
        let mut guest = Self { epoch, rows, owners, leases, words, memory, cpu, limited };
        guest.on_core(|vm, memory| {
            for (gfn, frame) in vm.gfns().zip((0..).map_while(|number| Frame::new(number).ok())) {
                let _ = vm.frames().offer(frame, NUMBER, gfn);
                let _ = carry_out(vm, memory, gfn, |claim| claim.act(Act::Accept(frame)));
            }
        });
        guest
    }

    /// Ends building.
    pub(super) fn launch(&mut self) {
        self.on_core(|vm, memory| {
            for gfn in vm.gfns() {
                let _ = carry_out(vm, memory, gfn, |claim| claim.act(Act::Launch));
            }
            vm.launch().expect("every page was launched");
        });
    }

    /// The guest stores to a page of its own, a number that it never stored before.
    pub(super) fn store(&mut self, page: u8) {
        self.cpu += 1;
        self.memory[usize::from(page)] = self.cpu;
    }

    /// The guest opens a page by its doorbell; refused, nothing changes.
    pub(super) fn share(&mut self, page: u8, perm: u64, expiry: u64) -> bool {
        let (call, gfn) = (Doorbell::SHARE, u64::from(page));
        let shared = self.ring(DoorbellFact { vm: NUMBER, call, gfn, perm, mask: 0, expiry });
        self.limited[usize::from(page)] = shared && expiry != 0;
        shared
    }

    /// The guest closes a page, or changes whether checkpoints leave it out: a call of its
    /// doorbell that takes no terms.
    pub(super) fn call(&mut self, page: u8, call: u64) -> bool {
        let gfn = u64::from(page);
        self.ring(DoorbellFact { vm: NUMBER, call, gfn, perm: 0, mask: 0, expiry: 0 })
    }

    fn ring(&mut self, fact: DoorbellFact) -> bool {
        self.on_core(|vm, memory| {
            let proposal = Doorbell.infer(vm, &fact);
            proposal.is_ok_and(|proposal| propose(vm, memory, proposal).is_some())
        })
    }

    /// The management side asks for something; refused, nothing changes.
    pub(super) fn request(&mut self, page: u8, request: Request) -> bool {
        self.on_core(|vm, memory| {
            carry_out(vm, memory, gfn(page), |claim| claim.request(request)).is_some()
        })
    }

    /// A sealed copy of a page for a stream; `None` if the core refuses.
    pub(super) fn export(&mut self, page: u8, stream: Stream) -> Option<Sealed> {
        self.on_core(|vm, memory| {
            let export = Request::Export(stream);
            let receipt = carry_out(vm, memory, gfn(page), |claim| claim.request(export))?;
            Sealed::of(&receipt, memory.wire)
        })
    }

    /// Opens a page again if its record says that it was open.
    pub(super) fn reopen(&mut self, restored: &RestoredPage) {
        self.on_core(|vm, memory| {
            let was_open = restored.record.state().terms().is_some();
            if let (true, Ok(proposal)) = (was_open, RestoredImage.infer(vm, restored)) {
                let _ = propose(vm, memory, proposal);
            }
        });
    }

    /// Leaves a page out of checkpoints again if its record says that it was left out.
    pub(super) fn exclude_again(&mut self, restored: &RestoredPage) {
        if restored.record.excluded() {
            let (gfn, exclude) = (restored.record.gfn(), Act::Exclude(true));
            self.on_core(|vm, memory| {
                let _ = carry_out(vm, memory, gfn, |claim| claim.act(exclude));
            });
        }
    }

    /// What a page is.
    pub(super) fn state(&self, page: u8) -> PageState {
        let state = self.look(|vm| vm.state(gfn(page)));
        state.unwrap_or(PageState::Free)
    }

    /// What a page is in an image of this moment.
    pub(super) fn state_at_rest(&self, page: u8) -> PageState {
        let state = self.state(page);
        let stays = state.terms().is_some() && !self.limited[usize::from(page)];
        if stays { state } else { PageState::Private }
    }

    /// Whether checkpoints leave a page out.
    pub(super) fn excluded(&self, page: u8) -> bool {
        self.look(|vm| vm.claim(gfn(page)).is_ok_and(|claim| claim.entry().excluded))
    }

    /// Whether the management side may write to a page.
    pub(super) fn writable(&self, page: u8) -> bool {
        matches!(self.state(page), PageState::Open { perm: Perm::ReadWrite, .. })
    }

    /// Which incarnation it is.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    fn look<T>(&self, look: impl FnOnce(&Vm<'_>) -> T) -> T {
        self.clone().on_core(|vm, _| look(vm))
    }

    /// Lets the core go on where it left off, and keeps what it says.
    fn on_core<T>(&mut self, work: impl FnOnce(&Vm<'_>, &mut Memory) -> T) -> T {
        let slots: [Slot; PAGES] = Default::default();
        let owners: [Owner; PAGES] = Default::default();
        let leases: [Lease; PAGES] = Default::default();
        slots.iter().zip(self.rows).for_each(|(slot, words)| slot.put_words(words));
        owners.iter().zip(self.owners).for_each(|(owner, word)| owner.put_word(word));
        leases.iter().zip(self.leases).for_each(|(lease, words)| lease.put_words(words));
        let config = VmConfig {
            number: NUMBER,
            epoch: Epoch(self.epoch),
            pages: PAGES as u64,
            slots: &slots,
            frames: Frames::new(&owners),
            leases: Leases::new(&leases),
            masks: &[],
            replicas_max: 1,
        };
        let vm = Vm::resume(config, self.words).expect("a row for each page");
        let mut memory = Memory { plain: self.memory, wire: 0 };
        let done = work(&vm, &mut memory);
        self.words = vm.words();
        self.memory = memory.plain;
        self.rows = slots.each_ref().map(Slot::words);
        self.owners = owners.each_ref().map(Owner::word);
        self.leases = leases.each_ref().map(Lease::words);
        done
    }
}

fn propose(vm: &Vm<'_>, memory: &mut Memory, proposal: Proposal) -> Option<Receipt> {
    let (gfn, act) = proposal.act();
    carry_out(vm, memory, gfn, |claim| claim.act(act))
}

/// A whole batch of one plan.
fn carry_out<'v>(
    vm: &'v Vm<'_>,
    memory: &mut Memory,
    gfn: Gfn,
    decide: impl FnOnce(Claim<'v>) -> Result<Plan<'v>, Refused>,
) -> Option<Receipt> {
    let plan = decide(vm.claim(gfn).ok()?).ok()?;
    let mut batch = Batch::<1>::new();
    let _ = batch.push(plan);
    let receipts = batch.run(memory).ok()?;
    let receipt = receipts.iter().next();
    receipts.commit();
    receipt
}

/// The platform below: who maps what is the business of other machines.
struct Memory {
    plain: [u8; PAGES],
    /// What was inside the latest seal.
    wire: u8,
}

impl Platform for Memory {
    type Fault = Infallible;

    fn withdraw(&mut self, _: &Target, _: View) -> Result<(), Infallible> {
        Ok(())
    }

    fn fence(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn fetch(&mut self, _: &Target) -> Result<(), Infallible> {
        Ok(())
    }

    fn seal(&mut self, steps: &[SealStep], _: &mut [Tag]) -> Result<(), Infallible> {
        for step in steps {
            self.wire = match step.from {
                Source::Frame => self.plain[index(step.target.gfn)],
                Source::Zeroes => 0,
            };
        }
        Ok(())
    }

    fn open(&mut self, _: &[OpenStep], _: &mut [bool]) -> Result<(), Infallible> {
        Ok(())
    }

    fn scrub(&mut self, target: &Target, copies: Copies) -> Result<(), Infallible> {
        if copies != Copies::Replica {
            self.plain[index(target.gfn)] = 0;
        }
        Ok(())
    }

    fn grant(&mut self, _: &Target, _: View, _: What, _: Perm) -> Result<(), Infallible> {
        Ok(())
    }
}

/// A sealed page as a term: what is authenticated with it, and what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sealed {
    pub(super) gfn: Gfn,
    pub(super) version: Version,
    pub(super) epoch: Epoch,
    pub(super) stream: Stream,
    /// What the page is in its sealed form.
    pub(super) state: PageState,
    pub(super) excluded: bool,
    pub(super) inner: u8,
}

impl Sealed {
    fn of(receipt: &Receipt, inner: u8) -> Option<Self> {
        let (id, _) = receipt.sealed?;
        let PageId { gfn, version, epoch, stream, excluded, .. } = id;
        let state = receipt.sealed_as;
        let sealed = Self { gfn, version, epoch, stream, state, excluded, inner };
        assert_eq!(sealed.id(), id, "a receipt says what was authenticated");
        Some(sealed)
    }

    /// What is authenticated beside the bytes.
    pub(super) fn id(&self) -> PageId {
        let closed = (PageKind::MEMORY, Perm::Read, MaskId::ALL);
        let (kind, perm, mask) = self.state.terms().unwrap_or(closed);
        let Self { gfn, version, epoch, stream, excluded, .. } = *self;
        PageId { gfn, version, epoch, kind, perm, mask, stream, excluded }
    }

    /// The receipt of a seal with this tag.
    pub(super) fn receipt(&self, tag: Tag) -> Receipt {
        let (gfn, state) = (self.gfn, self.state);
        Receipt { gfn, state, sealed_as: state, sealed: Some((self.id(), tag)) }
    }
}
