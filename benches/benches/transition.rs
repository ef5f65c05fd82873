//! What one decision costs without the machine: claim, decide, act on nothing, commit.
//!
//! The platform answers at once and touches no byte, so what is left is the core's own price for
//! an event: a compare-and-swap on the row, the table, the lists, the phases of the batch, and the
//! row written back. The goal is 150 ns an event. Batches of 16 share the phases' loop.

use core::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use view_core::suite::Tag;
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Batch, Claim, Copies, Epoch, Frame, Frames, Gfn, OpenStep, Owner, PageState, Perm, Plan,
    Platform, Refused, Request, SealStep, Slot, Target, View, Vm, VmConfig, VmNumber, What,
};

const PAGES: usize = 16;
const NUMBER: VmNumber = VmNumber(1);

/// True at once, all of it.
struct Idle;

impl Platform for Idle {
    type Fault = ();

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), ()> {
        black_box((page, view));
        Ok(())
    }

    fn fence(&mut self) -> Result<(), ()> {
        Ok(())
    }

    fn fetch(&mut self, page: &Target) -> Result<(), ()> {
        black_box(page);
        Ok(())
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ()> {
        black_box((steps, tags));
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ()> {
        genuine.fill(true);
        black_box(steps);
        Ok(())
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), ()> {
        black_box((page, copies));
        Ok(())
    }

    fn grant(&mut self, page: &Target, view: View, what: What, perm: Perm) -> Result<(), ()> {
        black_box((page, view, what, perm));
        Ok(())
    }
}

/// What is done to a page, and what it must be afterwards.
type Event<'e> = (&'e dyn Fn(Claim<'static>) -> Result<Plan<'static>, Refused>, PageState);

fn transitions(criterion: &mut Criterion) {
    let vm = launched();
    let page = Gfn::new(3).expect("small");
    let sharing = share(vm, page);
    let open = PageState::Open {
        kind: view_core::PageKind::MAILBOX,
        perm: Perm::Read,
        mask: view_core::MaskId::ALL,
    };
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(1));
    group.bench_function("claim and drop", |bencher| bencher.iter(|| vm.claim(black_box(page))));
    let pairs: [(&str, [Event<'_>; 2]); 2] = [
        (
            "share, unshare",
            [
                (&|claim| claim.act(black_box(sharing)), open),
                (&|claim| claim.act(black_box(Act::Unshare)), PageState::Private),
            ],
        ),
        (
            "map, unmap",
            [
                (&|claim| claim.request(black_box(Request::Map(Perm::Read))), PageState::Replica),
                (&|claim| claim.request(black_box(Request::Unmap)), PageState::Private),
            ],
        ),
    ];
    for (name, events) in pairs {
        // One event an iteration, the two of a pair in turn.
        let mut turns = events.iter().cycle();
        let mut next = || {
            let (decide, after) = turns.next().expect("they go round");
            let mut batch = Batch::<1>::new();
            let plan = decide(vm.claim(black_box(page)).expect("free")).expect("allowed");
            batch.push(plan).expect("room for one");
            batch.run(&mut Idle).expect("no fault").commit();
            assert_eq!(vm.state(page), Some(*after));
        };
        group.bench_function(name, |bencher| bencher.iter(&mut next));
        if vm.state(page) != Some(PageState::Private) {
            next();
        }
    }
    group.finish();
}

fn batches(criterion: &mut Criterion) {
    let vm = launched();
    let mut group = criterion.benchmark_group("event");
    group.throughput(Throughput::Elements(PAGES as u64));
    let mut requests = [Request::Map(Perm::Read), Request::Unmap].into_iter().cycle();
    group.bench_function("map, unmap/16", |bencher| {
        bencher.iter(|| {
            let request = requests.next().expect("they go round");
            let mut batch = Batch::<PAGES>::new();
            for page in vm.gfns() {
                let plan = vm.claim(page).expect("free").request(request).expect("allowed");
                batch.push(plan).expect("room for all");
            }
            batch.run(&mut Idle).expect("no fault").commit();
        });
    });
    let replicas = vm.gfns().filter(|page| vm.state(*page) == Some(PageState::Replica)).count();
    assert!(replicas == 0 || replicas == PAGES, "a batch is committed whole");
    assert_eq!(vm.replicas(), replicas as u64);
    group.finish();
}

/// A VM of private pages; it stays for as long as the process.
fn launched() -> &'static Vm<'static> {
    let slots: Vec<_> = (0..PAGES).map(|_| Slot::new()).collect();
    let owners: Vec<_> = (0..PAGES).map(|_| Owner::new()).collect();
    let leases: Vec<_> = (0..PAGES).map(|_| Lease::new()).collect();
    let config = VmConfig {
        number: NUMBER,
        epoch: Epoch(1),
        pages: PAGES as u64,
        slots: slots.leak(),
        frames: Frames::new(owners.leak()),
        leases: Leases::new(leases.leak()),
        masks: &[],
        replicas_max: PAGES as u64,
    };
    let vm: &Vm<'_> = Box::leak(Box::new(Vm::new(config).expect("a row for every page")));
    for page in vm.gfns() {
        let frame = Frame::new(page.number()).expect("small");
        vm.frames().offer(frame, NUMBER, page).expect("free");
        for act in [Act::Accept(frame), Act::Launch] {
            let mut batch = Batch::<1>::new();
            batch.push(vm.claim(page).expect("free").act(act).expect("allowed")).expect("room");
            batch.run(&mut Idle).expect("no fault").commit();
        }
    }
    vm.launch().expect("every page was launched");
    vm
}

fn share(vm: &Vm<'_>, page: Gfn) -> Act {
    let (call, gfn) = (Doorbell::SHARE, page.number());
    let fact = DoorbellFact { vm: NUMBER, call, gfn, perm: 1, mask: 0, expiry: 0 };
    Doorbell.infer(vm, &fact).expect("evidence").act().1
}

criterion_group!(benches, transitions, batches);
criterion_main!(benches);
