//! Every interleaving of two threads on the core's atomics, weak memory included.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p view-core --release --test loom`
//!
//! What a page holds is played by relaxed counters: nothing orders them but the core itself, so
//! a missing acquire or release shows as a count that somebody overwrote.
#![cfg(loom)]

use std::sync::Arc;
use std::sync::atomic::AtomicU64 as RunCount;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use view_core::suite::{Stream, Tag};
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Batch, Claim, Copies, Epoch, Frame, Frames, Gfn, NotRunnable, OpenStep, Owner, Ownership,
    PageState, Perm, Plan, Platform, Refused, Request, SealStep, Slot, Target, Version, View, Vm,
    VmConfig, VmNumber, What,
};

const FRAMES: usize = 2;
const VM: VmNumber = VmNumber(1);
const DONE: Option<Result<(), Refused>> = Some(Ok(()));

#[test]
fn a_page_has_one_holder_at_a_time_and_each_sees_what_the_last_one_did() {
    explore(|| {
        let world = World::launched(1);
        let other = thread::spawn(move || world.hold_twice(Request::Seal));
        let mine = world.hold_twice(Request::Export(Stream::View));
        let theirs = other.join().expect("no assertion failed");
        assert!(mine + theirs > 0, "one of two rivals gets the page");
        assert_eq!(world.held.load(Ordering::Relaxed), mine + theirs, "a holder was overwritten");
        assert!(world.vm.claim(gfn(0)).is_ok(), "Busy sticks");
    });
}

#[test]
fn a_row_is_seen_whole_or_not_at_all() {
    explore(|| {
        let world = World::launched(1);
        // The row names a frame, a version and the tag of that very version.
        assert_eq!(world.commit(0, |claim| claim.request(Request::Seal)), DONE);
        let other = thread::spawn(move || {
            world.commit(0, |claim| claim.act(Act::Touch));
            world.commit(0, |claim| claim.request(Request::PageOut));
        });
        for _ in 0..2 {
            if let Ok(claim) = world.vm.claim(gfn(0)) {
                let entry = *claim.entry();
                assert_eq!(entry.tag, tag_of(entry.version), "half a row: {entry:?}");
                assert_ne!(entry.version, Version::ZERO, "{entry:?}");
            }
        }
        other.join().expect("no assertion failed");
    });
}

#[test]
fn a_version_that_one_plan_burnt_is_given_to_no_other() {
    explore(|| {
        let world = World::launched(1);
        let burn = move || {
            let plan = world.vm.claim(gfn(0)).ok()?.request(Request::Export(Stream::Image));
            // Dropped here: the version is spent all the same.
            plan.expect("a private page").seal_id().map(|id| id.version)
        };
        let other = thread::spawn(move || [burn(), burn()]);
        let mine = burn();
        let all = other.join().expect("no assertion failed").into_iter().chain([mine]);
        let mut versions: Vec<_> = all.flatten().collect();
        versions.sort();
        let expected: Vec<_> = (1..=versions.len()).map(|n| version(n as u64)).collect();
        assert_eq!(versions, expected, "each once, none skipped");
    });
}

#[test]
fn what_a_dropped_plan_had_reserved_is_back_before_its_page_is() {
    explore(|| {
        let world = World::launched(1);
        let try_map = move || {
            let claim = world.vm.claim(gfn(0)).ok()?;
            Some(claim.request(Request::Map(Perm::Read)).map(drop))
        };
        let try_share = move || {
            let claim = world.vm.claim(gfn(0)).ok()?;
            Some(claim.act(world.share(0)).map(drop))
        };
        let other = thread::spawn(move || (try_map(), try_share()));
        let (map, share) = (try_map(), try_share());
        let (their_map, their_share) = other.join().expect("no assertion failed");
        for decided in [map, their_map, share, their_share].into_iter().flatten() {
            assert_eq!(decided, Ok(()), "there is room for one, and one holds the page at a time");
        }
        assert_eq!(world.vm.replicas(), 0);
    });
}

#[test]
fn a_frame_is_taken_back_or_accepted_never_both() {
    explore(|| {
        let world = World::new(2);
        let frames = world.vm.frames();
        frames.offer(frame(0), VM, gfn(0)).expect("free");
        let other = thread::spawn(move || {
            world.commit(0, |claim| claim.act(Act::Accept(frame(0)))) == DONE
        });
        let retracted = frames.retract(frame(0), VM, gfn(0)).is_ok();
        let given_to_another = retracted && {
            frames.offer(frame(0), VM, gfn(1)).expect("it was just taken back");
            world.commit(1, |claim| claim.act(Act::Accept(frame(0)))) == DONE
        };
        let accepted = other.join().expect("no assertion failed");
        assert!(accepted != retracted, "accepted {accepted}, retracted {retracted}");
        assert_eq!(given_to_another, retracted);
        let owner = if accepted { gfn(0) } else { gfn(1) };
        assert_eq!(frames.owner(frame(0)), Some(Ownership::Owned(VM, owner)));
    });
}

#[test]
fn a_frame_changes_hands_with_its_wipe_behind_it() {
    explore(|| {
        let world = World::launched(2);
        let written = world.frames[0].load(Ordering::Relaxed);
        let other = thread::spawn(move || {
            assert_eq!(world.commit(0, |claim| claim.request(Request::PageOut)), DONE);
        });
        // Whoever finds the frame free finds it wiped.
        let frames = world.vm.frames();
        if frames.offer(frame(0), VM, gfn(1)).is_ok() {
            let now = world.frames[0].load(Ordering::Relaxed);
            assert!(now > written, "given out before the wipe was seen");
        }
        other.join().expect("no assertion failed");
    });
}

#[test]
fn a_list_with_room_for_one_is_never_given_to_two_and_never_lost() {
    explore(|| {
        let world = World::launched(2);
        let open_and_close = move |page| {
            let opened = world.commit(page, |claim| claim.act(world.share(page)));
            // Whoever asks meanwhile finds no deadline that is half written.
            assert_eq!(world.vm.leases().due(99).count(), 0, "due before its time");
            if opened == DONE {
                assert_eq!(world.commit(page, |claim| claim.act(Act::Unshare)), DONE);
            } else {
                assert_eq!(opened, Some(Err(Refused::ListFull)));
            }
            opened == DONE
        };
        let other = thread::spawn(move || open_and_close(1));
        let mine = open_and_close(0);
        let theirs = other.join().expect("no assertion failed");
        assert!(mine || theirs, "room for one, and nobody got it");
        assert_eq!(world.vm.leases().due(u64::MAX).count(), 0);
        assert_eq!(world.commit(0, |claim| claim.act(world.share(0))), DONE, "the room is back");
        assert_eq!(world.vm.leases().due(100).collect::<Vec<_>>(), [gfn(0)]);
    });
}

#[test]
fn of_two_who_want_the_last_room_in_a_list_one_gets_it() {
    explore(|| {
        let world = World::launched(2);
        let open = move |page| world.commit(page, |claim| claim.act(world.share(page)));
        let other = thread::spawn(move || open(1));
        let opened = [open(0), other.join().expect("no assertion failed")];
        assert!(opened.contains(&DONE) && opened.contains(&Some(Err(Refused::ListFull))));
        assert_eq!(world.vm.leases().due(100).count(), 1);
    });
}

#[test]
fn who_claims_a_poisoned_page_knows_that_the_vm_has_stopped() {
    explore(|| {
        let world = World::launched(1);
        let other = thread::spawn(move || {
            let plan = world.vm.claim(gfn(0)).ok()?.request(Request::Seal).expect("private");
            let mut batch = Batch::<1>::new();
            batch.push(plan).expect("room for one");
            batch.step(&mut Bytes(world)).expect("no fault");
            Some(()) // the batch is dropped after its first step
        });
        if let Ok(claim) = world.vm.claim(gfn(0))
            && claim.entry().state == PageState::Poisoned
        {
            assert_eq!(world.vm.runnable(), Err(NotRunnable::Stopped(gfn(0))));
            assert_eq!(
                world.vm.frames().owner(claim.entry().frame),
                Some(Ownership::Quarantined(VM, gfn(0)))
            );
        }
        other.join().expect("no assertion failed");
    });
}

#[test]
fn no_page_is_being_built_once_the_vm_is_launched() {
    explore(|| {
        let world = World::new(1);
        world.vm.frames().offer(frame(0), VM, gfn(0)).expect("free");
        let other = thread::spawn(move || {
            assert_eq!(world.commit(0, |claim| claim.act(Act::Accept(frame(0)))), DONE);
        });
        let launched = world.vm.launch().is_ok();
        other.join().expect("no assertion failed");
        let expected = if launched { PageState::Private } else { PageState::Building };
        assert_eq!(world.vm.state(gfn(0)), Some(expected));
    });
}

fn gfn(number: u64) -> Gfn {
    Gfn::new(number).expect("small")
}

fn frame(number: u64) -> Frame {
    Frame::new(number).expect("small")
}

fn version(number: u64) -> Version {
    Version::new(number).expect("small")
}

fn tag_of(version: Version) -> Tag {
    [version.number().to_le_bytes()[0]; 16]
}

/// Runs `model` under every interleaving, and says how many there were.
fn explore(model: impl Fn() + Sync + Send + 'static) {
    let runs = Arc::new(RunCount::new(0));
    let counted = runs.clone();
    loom::model(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let runs = runs.load(Ordering::Relaxed);
    println!("{runs} interleavings");
    assert!(runs > 1, "there was nothing to choose");
}

/// A VM whose storage lives as long as the model's threads.
struct World {
    vm: Vm<'static>,
    /// How often the page was held, by its holders' own count.
    held: AtomicU64,
    /// What the frames hold: how often each was written.
    frames: [AtomicU64; FRAMES],
}

impl World {
    fn new(pages: u64) -> &'static Self {
        // Leaked on purpose: a model is small, and its threads want storage for ever.
        let slots: Vec<_> = (0..pages).map(|_| Slot::new()).collect();
        let owners: Vec<_> = (0..FRAMES).map(|_| Owner::new()).collect();
        let config = VmConfig {
            number: VM,
            epoch: Epoch(1),
            pages,
            slots: slots.leak(),
            frames: Frames::new(owners.leak()),
            leases: Leases::new(vec![Lease::new()].leak()),
            masks: &[],
            replicas_max: 1,
        };
        Box::leak(Box::new(Self {
            vm: Vm::new(config).expect("a row for every page"),
            held: AtomicU64::new(0),
            frames: core::array::from_fn(|_| AtomicU64::new(0)),
        }))
    }

    /// Every page accepted in the frame of the same number and launched.
    fn launched(pages: u64) -> &'static Self {
        let world = Self::new(pages);
        for page in 0..pages {
            world.vm.frames().offer(frame(page), VM, gfn(page)).expect("free");
            assert_eq!(world.commit(page, |claim| claim.act(Act::Accept(frame(page)))), DONE);
            assert_eq!(world.commit(page, |claim| claim.act(Act::Launch)), DONE);
        }
        world.vm.launch().expect("every page was launched");
        world
    }

    /// Claims, decides, acts and commits; `None` if the page is busy.
    fn commit(
        &'static self,
        page: u64,
        decide: impl FnOnce(Claim<'static>) -> Result<Plan<'static>, Refused>,
    ) -> Option<Result<(), Refused>> {
        let claim = self.vm.claim(gfn(page)).ok()?;
        Some(decide(claim).map(|plan| {
            let mut batch = Batch::<1>::new();
            batch.push(plan).expect("room for one");
            batch.run(&mut Bytes(self)).expect("no fault").commit();
        }))
    }

    /// Holds page 0 twice, if it can, and says how often it could.
    fn hold_twice(&'static self, request: Request) -> u64 {
        let once = || {
            self.commit(0, |claim| {
                count(&self.held);
                claim.request(request)
            })
        };
        [once(), once()].into_iter().flatten().map(|_| 1).sum()
    }

    fn share(&self, page: u64) -> Act {
        let (call, expiry) = (Doorbell::SHARE, 100);
        let fact = DoorbellFact { vm: VM, call, gfn: page, perm: 1, mask: 0, expiry };
        Doorbell.infer(&self.vm, &fact).expect("evidence").act().1
    }
}

/// Not atomic as a whole: right only if nobody else counts meanwhile and the last count is seen.
fn count(counter: &AtomicU64) {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before + 1, Ordering::Relaxed);
}

/// A platform whose memory is the counters of the world.
struct Bytes(&'static World);

impl Bytes {
    fn write(&mut self, page: &Target) {
        let frame = usize::try_from(page.frame.number()).expect("small");
        count(&self.0.frames[frame]);
    }
}

impl Platform for Bytes {
    type Fault = ();

    fn withdraw(&mut self, _: &Target, _: View) -> Result<(), ()> {
        Ok(())
    }

    fn fence(&mut self) -> Result<(), ()> {
        Ok(())
    }

    fn fetch(&mut self, page: &Target) -> Result<(), ()> {
        self.write(page);
        Ok(())
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ()> {
        for (step, tag) in steps.iter().zip(tags) {
            *tag = tag_of(step.id.version);
        }
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ()> {
        for (step, genuine) in steps.iter().zip(genuine) {
            *genuine = step.tag == tag_of(step.id.version);
        }
        Ok(())
    }

    fn scrub(&mut self, page: &Target, _: Copies) -> Result<(), ()> {
        self.write(page);
        Ok(())
    }

    fn grant(&mut self, _: &Target, _: View, _: What, _: Perm) -> Result<(), ()> {
        Ok(())
    }
}
