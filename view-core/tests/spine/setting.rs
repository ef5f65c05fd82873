//! A small VM, and a platform that notes what it is asked for.

use view_core::suite::Tag;
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Batch, Copies, Epoch, Frame, Frames, Gfn, NotRunnable, OpenStep, Owner, Perm, Place,
    Platform, Receipt, Refused, Request, SealStep, Slot, Source, Target, View, Vm, VmConfig,
    VmNumber, What,
};

pub(crate) const PAGES: usize = 4;

/// Notes every call as text; fails at the call numbered `fault_at`; opens nothing if `forged`.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) calls: Vec<String>,
    pub(crate) fault_at: Option<usize>,
    pub(crate) forged: bool,
    /// How many pages were sealed as zeroes instead of what they hold.
    pub(crate) blanks: usize,
}

impl Recorder {
    fn note(&mut self, call: String) -> Result<(), usize> {
        self.calls.push(call);
        match self.fault_at {
            Some(at) if self.calls.len() == at => Err(at),
            Some(_) | None => Ok(()),
        }
    }
}

impl Platform for Recorder {
    type Fault = usize;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), usize> {
        self.note(format!("withdraw {} {view:?}", page.gfn.number()))
    }

    fn fence(&mut self) -> Result<(), usize> {
        self.note("fence".into())
    }

    fn fetch(&mut self, page: &Target) -> Result<(), usize> {
        self.note(format!("fetch {}", page.gfn.number()))
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), usize> {
        let pages: Vec<_> = steps.iter().map(|step| step.target.gfn.number()).collect();
        let places: Vec<Place> = steps.iter().map(|step| step.to).collect();
        self.blanks += steps.iter().filter(|step| step.from == Source::Zeroes).count();
        tags.fill([7; 16]);
        self.note(format!("seal {pages:?} {places:?}"))
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), usize> {
        let pages: Vec<_> = steps.iter().map(|step| step.target.gfn.number()).collect();
        genuine.fill(!self.forged);
        self.note(format!("open {pages:?}"))
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), usize> {
        self.note(format!("scrub {} {copies:?}", page.gfn.number()))
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), usize> {
        self.note(format!("grant {} {view:?} {what:?} {perm:?}", page.gfn.number()))
    }
}

pub(crate) struct Storage {
    pub(crate) slots: [Slot; PAGES],
    pub(crate) owners: [Owner; PAGES],
    pub(crate) leases: [Lease; 1],
}

impl Storage {
    pub(crate) fn new() -> Self {
        Self {
            slots: [const { Slot::new() }; PAGES],
            owners: [const { Owner::new() }; PAGES],
            leases: [const { Lease::new() }; 1],
        }
    }

    pub(crate) fn vm(&self) -> Vm<'_> {
        Vm::new(self.config(4)).expect("large enough")
    }

    pub(crate) fn config(&self, pages: u64) -> VmConfig<'_> {
        VmConfig {
            number: VmNumber(1),
            epoch: Epoch(9),
            pages,
            slots: &self.slots,
            frames: Frames::new(&self.owners),
            leases: Leases::new(&self.leases),
            masks: &[],
            replicas_max: 1,
        }
    }
}

pub(crate) fn gfn(number: u64) -> Gfn {
    Gfn::new(number).expect("small")
}

pub(crate) fn frame(number: u64) -> Frame {
    Frame::new(number).expect("small")
}

/// Every page accepted in the frame of the same number and launched.
pub(crate) fn launched(storage: &Storage) -> Vm<'_> {
    let vm = storage.vm();
    for page in vm.gfns() {
        let frame = frame(page.number());
        vm.frames().offer(frame, vm.number(), page).expect("free");
        act(&vm, page, Act::Accept(frame), &mut Recorder::default()).expect("accepted");
    }
    assert_eq!(vm.runnable(), Err(NotRunnable::NotLaunched));
    assert_eq!(vm.launch(), Err(NotRunnable::StillBuilding(4)));
    for page in vm.gfns() {
        act(&vm, page, Act::Launch, &mut Recorder::default()).expect("launched");
    }
    vm.launch().expect("built");
    vm
}

pub(crate) fn act(
    vm: &Vm<'_>,
    page: Gfn,
    act: Act,
    platform: &mut Recorder,
) -> Result<Receipt, Refused> {
    let plan = vm.claim(page).expect("free to claim").act(act)?;
    Ok(carry_out(plan, platform))
}

pub(crate) fn ask(
    vm: &Vm<'_>,
    page: Gfn,
    ask: Request,
    platform: &mut Recorder,
) -> Result<Receipt, Refused> {
    let plan = vm.claim(page).expect("free to claim").request(ask)?;
    Ok(carry_out(plan, platform))
}

pub(crate) fn carry_out(plan: view_core::Plan<'_>, platform: &mut Recorder) -> Receipt {
    let mut batch = Batch::<4>::new();
    assert!(batch.push(plan).is_ok());
    let receipts = batch.run(platform).expect("no fault");
    let receipt = receipts.iter().next().expect("one plan");
    receipts.commit();
    receipt
}

pub(crate) fn share(vm: &Vm<'_>, page: Gfn, expiry: u64) -> Act {
    let fact =
        DoorbellFact { vm: vm.number(), call: 1, gfn: page.number(), perm: 1, mask: 0, expiry };
    Doorbell.infer(vm, &fact).expect("evidence").act().1
}
