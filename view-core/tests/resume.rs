//! A table that moves: a VM goes on where it left off, from words.

use idle::Nothing;
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, BadTable, Batch, Epoch, Frame, Frames, Gfn, NotRunnable, Owner, PageState, Perm, Refused,
    Request, Slot, Vm, VmConfig, VmNumber,
};

/// A platform that has nothing to do.
mod idle {
    use view_core::suite::Tag;
    use view_core::{Copies, OpenStep, Perm, Platform, SealStep, Target, View, What};

    #[derive(Debug)]
    pub(crate) struct Nothing;

    impl Platform for Nothing {
        type Fault = ();

        fn withdraw(&mut self, _: &Target, _: View) -> Result<(), ()> {
            Ok(())
        }

        fn fence(&mut self) -> Result<(), ()> {
            Ok(())
        }

        fn fetch(&mut self, _: &Target) -> Result<(), ()> {
            Ok(())
        }

        fn seal(&mut self, _: &[SealStep], _: &mut [Tag]) -> Result<(), ()> {
            Ok(())
        }

        fn open(&mut self, _: &[OpenStep], genuine: &mut [bool]) -> Result<(), ()> {
            genuine.fill(true);
            Ok(())
        }

        fn scrub(&mut self, _: &Target, _: Copies) -> Result<(), ()> {
            Ok(())
        }

        fn grant(&mut self, _: &Target, _: View, _: What, _: Perm) -> Result<(), ()> {
            Ok(())
        }
    }
}

#[derive(Default)]
struct Storage {
    slots: [Slot; 2],
    owners: [Owner; 2],
    leases: [Lease; 1],
}

impl Storage {
    fn config(&self) -> VmConfig<'_> {
        VmConfig {
            number: VmNumber(3),
            epoch: Epoch(9),
            pages: 2,
            slots: &self.slots,
            frames: Frames::new(&self.owners),
            leases: Leases::new(&self.leases),
            masks: &[],
            replicas_max: 1,
        }
    }

    /// The same words in another place.
    fn moved(&self) -> Self {
        let new = Self::default();
        new.put(self);
        new
    }

    /// The words of another place in this one.
    fn put(&self, from: &Self) {
        self.slots.iter().zip(&from.slots).for_each(|(to, from)| to.put_words(from.words()));
        self.owners.iter().zip(&from.owners).for_each(|(to, from)| to.put_word(from.word()));
        self.leases.iter().zip(&from.leases).for_each(|(to, from)| to.put_words(from.words()));
    }
}

fn gfn(number: u64) -> Gfn {
    Gfn::new(number).expect("small")
}

fn act(vm: &Vm<'_>, page: u64, act: Act) -> Result<(), Refused> {
    let claim = vm.claim(gfn(page)).expect("free to take");
    let mut batch: Batch<'_, 1> = Batch::new();
    assert!(batch.push(claim.act(act)?).is_ok());
    batch.run(&mut Nothing).expect("it cannot fail").commit();
    Ok(())
}

fn share(vm: &Vm<'_>, page: u64, call: u64, perm: u64, expiry: u64) -> Result<(), Refused> {
    let fact = DoorbellFact { vm: vm.number(), call, gfn: page, perm, mask: 0, expiry };
    act(vm, page, Doorbell.infer(vm, &fact).expect("a page of this VM").act().1)
}

#[test]
fn a_vm_that_moves_keeps_its_pages_its_lists_and_what_it_counts() {
    let old = Storage::default();
    let vm = Vm::new(old.config()).expect("zeroed rows");
    vm.launch().expect("nothing is being built");
    for page in 0..2 {
        let frame = Frame::new(page).expect("small");
        vm.frames().offer(frame, vm.number(), gfn(page)).expect("free");
        act(&vm, page, Act::Accept(frame)).expect("offered");
    }
    share(&vm, 0, Doorbell::SHARE, 1, 7).expect("private");
    let claim = vm.claim(gfn(1)).expect("free to take");
    let mut batch: Batch<'_, 1> = Batch::new();
    let plan = claim.request(Request::Map(Perm::Read)).expect("private");
    assert!(batch.push(plan).is_ok());
    batch.run(&mut Nothing).expect("it cannot fail").commit();

    let new = old.moved();
    let moved = Vm::resume(new.config(), vm.words()).expect("as many rows as pages");
    assert!(matches!(moved.state(gfn(0)), Some(PageState::Open { .. })));
    assert_eq!(moved.state(gfn(1)), Some(PageState::Replica));
    assert_eq!((moved.runnable(), moved.replicas()), (Ok(()), 1));
    assert_eq!(moved.leases().due(7).collect::<Vec<_>>(), [gfn(0)]);
    assert_eq!(
        moved.frames().owner(Frame::new(1).expect("small")),
        vm.frames().owner(Frame::new(1).expect("small"))
    );
    share(&moved, 0, Doorbell::UNSHARE, 0, 0).expect("open");
    assert_eq!(moved.leases().due(7).count(), 0, "the deadline went with the page");
    share(&moved, 0, Doorbell::SHARE, 1, 7).expect("the only place in the list is free again");
}

#[test]
fn a_vm_that_was_stopped_or_held_stays_so() {
    let old = Storage::default();
    let vm = Vm::new(old.config()).expect("zeroed rows");
    vm.launch().expect("nothing is being built");
    let frame = Frame::new(0).expect("small");
    vm.frames().offer(frame, vm.number(), gfn(0)).expect("free");
    let mut batch: Batch<'_, 1> = Batch::new();
    let claim = vm.claim(gfn(0)).expect("free to take");
    assert!(batch.push(claim.act(Act::Accept(frame)).expect("offered")).is_ok());
    let _ = batch.step(&mut Nothing);
    let held = old.moved();
    let held = Vm::resume(held.config(), vm.words()).expect("as many rows as pages");
    assert!(held.claim(gfn(0)).is_err(), "nobody can say what became of its steps");
    drop(batch);
    let stopped = old.moved();
    let stopped = Vm::resume(stopped.config(), vm.words()).expect("as many rows as pages");
    assert_eq!(stopped.runnable(), Err(NotRunnable::Stopped(gfn(0))));
}

#[test]
fn a_table_that_is_too_small_is_not_resumed() {
    let storage = Storage::default();
    let config = VmConfig { pages: 3, ..storage.config() };
    assert_eq!(Vm::resume(config, [0; 3]).err(), Some(BadTable::TooSmall { needed: 3, rows: 2 }));
}

#[test]
fn a_table_that_goes_back_forgets_what_came_after() {
    let storage = Storage::default();
    let vm = Vm::new(storage.config()).expect("zeroed rows");
    vm.launch().expect("nothing is being built");
    let frame = Frame::new(0).expect("small");
    vm.frames().offer(frame, vm.number(), gfn(0)).expect("free");
    act(&vm, 0, Act::Accept(frame)).expect("offered");
    let (then, words) = (storage.moved(), vm.words());
    share(&vm, 0, Doorbell::SHARE, 1, 7).expect("private");
    let mut batch: Batch<'_, 1> = Batch::new();
    let plan = vm.claim(gfn(0)).expect("free to take").request(Request::Destroy).expect("open");
    assert!(batch.push(plan).is_ok());
    let _ = batch.step(&mut Nothing);
    drop(batch);
    assert!(vm.runnable().is_err());
    storage.put(&then);
    vm.put_words(words);
    assert_eq!((vm.state(gfn(0)), vm.runnable()), (Some(PageState::Private), Ok(())));
    assert_eq!(vm.leases().due(7).count(), 0);
    share(&vm, 0, Doorbell::SHARE, 1, 7).expect("the only place in the list is free again");
}
