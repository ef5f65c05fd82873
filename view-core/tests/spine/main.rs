//! Claim, decide, act, commit, from outside: what a platform is asked, and what the table says
//! afterwards.

mod cells;
mod edges;
mod setting;

use setting::{PAGES, Recorder, Storage, act, ask, frame, gfn, launched, share};
use view_core::suite::Stream;
use view_core::whitelist::{Doorbell, DoorbellFact, Expiry, NoEvidence, Rule};
use view_core::{
    Act, BadTable, Batch, NotRunnable, Ownership, PageKind, PageState, Perm, Progress, Refused,
    Request, Unclaimed, Vm,
};

#[test]
fn a_replica_is_sealed_under_a_new_version_before_anybody_is_granted_it() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    let first = ask(&vm, gfn(2), Request::Map(Perm::Read), &mut platform).expect("mapped");
    assert_eq!(platform.calls, ["seal [2] [Replica]", "grant 2 Management Replica Read"]);
    assert_eq!(vm.state(gfn(2)), Some(PageState::Replica));
    platform.calls.clear();
    let second = ask(&vm, gfn(2), Request::Map(Perm::Read), &mut platform).expect("again");
    assert_eq!(platform.calls[..2], ["withdraw 2 Management", "fence"]);
    let versions =
        [first, second].map(|receipt| receipt.sealed.expect("a seal").0.version.number());
    assert_eq!(versions, [1, 2]);
    platform.calls.clear();
    ask(&vm, gfn(2), Request::Unmap, &mut platform).expect("unmapped");
    assert_eq!(platform.calls, ["withdraw 2 Management", "fence", "scrub 2 Replica"]);
}

#[test]
fn the_management_side_never_writes_to_a_private_page() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    let refused = ask(&vm, gfn(0), Request::Map(Perm::ReadWrite), &mut platform);
    assert_eq!(refused, Err(Refused::Permission));
    assert!(platform.calls.is_empty());
}

#[test]
fn replicas_and_open_pages_are_bounded_and_room_comes_back() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    ask(&vm, gfn(0), Request::Map(Perm::Read), &mut platform).expect("room for one");
    let full = ask(&vm, gfn(1), Request::Map(Perm::Read), &mut platform);
    assert_eq!(full, Err(Refused::PoolFull));
    ask(&vm, gfn(0), Request::Unmap, &mut platform).expect("unmapped");
    ask(&vm, gfn(1), Request::Map(Perm::Read), &mut platform).expect("room again");
    act(&vm, gfn(2), share(&vm, gfn(2), 0), &mut platform).expect("room for one");
    let full = act(&vm, gfn(3), share(&vm, gfn(3), 0), &mut platform);
    assert_eq!(full, Err(Refused::ListFull));
    act(&vm, gfn(2), Act::Unshare, &mut platform).expect("closed");
    act(&vm, gfn(3), share(&vm, gfn(3), 0), &mut platform).expect("room again");
}

#[test]
fn unsharing_withdraws_and_fences_before_the_owner_hears_of_it() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    act(&vm, gfn(1), share(&vm, gfn(1), 0), &mut platform).expect("open");
    platform.calls.clear();
    act(&vm, gfn(1), Act::Unshare, &mut platform).expect("closed");
    let expected = ["withdraw 1 Management", "fence", "grant 1 Owner Plain ReadWrite"];
    assert_eq!(platform.calls, expected);
}

#[test]
fn evidence_about_one_page_opens_no_other() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let for_page_one = share(&vm, gfn(1), 0);
    let refused = act(&vm, gfn(2), for_page_one, &mut Recorder::default());
    assert_eq!(refused, Err(Refused::WrongEvidence));
}

#[test]
fn a_guest_cannot_share_what_it_does_not_have() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let ring = |call, gfn, perm, mask| {
        let fact = DoorbellFact { vm: vm.number(), call, gfn, perm, mask, expiry: 0 };
        Doorbell.infer(&vm, &fact).expect_err("no evidence")
    };
    assert_eq!(ring(1, 4, 1, 0), NoEvidence::NoSuchPage(4));
    assert_eq!(ring(1, u64::MAX, 1, 0), NoEvidence::NoSuchPage(u64::MAX));
    assert_eq!(ring(1, 0, 2, 0), NoEvidence::NoSuchPermission(2));
    assert_eq!(ring(1, 0, 1, 64), NoEvidence::NoSuchMask(64));
    assert_eq!(ring(9, 0, 1, 0), NoEvidence::NoSuchCall(9));
    let masked = DoorbellFact { vm: vm.number(), call: 1, gfn: 0, perm: 1, mask: 5, expiry: 0 };
    let (page, opening) = Doorbell.infer(&vm, &masked).expect("plausible").act();
    let refused = act(&vm, page, opening, &mut Recorder::default());
    assert_eq!(refused, Err(Refused::NoSuchMask), "the VM has no masks");
}

#[test]
fn a_page_that_expires_or_is_shown_once_closes() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    act(&vm, gfn(1), share(&vm, gfn(1), 50), &mut platform).expect("open");
    assert_eq!(vm.leases().due(49).count(), 0);
    assert_eq!(vm.leases().due(50).collect::<Vec<_>>(), [gfn(1)]);
    act(&vm, gfn(1), Act::Unshare, &mut platform).expect("closed");
    assert_eq!(vm.leases().due(u64::MAX).count(), 0);
    let Act::Share(evidence, perm, mask, _) = share(&vm, gfn(1), 0) else { unreachable!() };
    let once = Act::Share(evidence, perm, mask, Expiry::FirstUnmap);
    act(&vm, gfn(1), once, &mut platform).expect("open");
    ask(&vm, gfn(1), Request::Unmap, &mut platform).expect("unmapped");
    assert_eq!(vm.state(gfn(1)), Some(PageState::Private));
}

#[test]
fn paging_out_gives_the_frame_back_and_paging_in_takes_only_an_offered_one() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    ask(&vm, gfn(3), Request::PageOut, &mut platform).expect("out");
    let expected = ["withdraw 3 Owner", "fence", "seal [3] [Wire]", "scrub 3 Original"];
    assert_eq!(platform.calls, expected);
    assert_eq!(vm.frames().owner(frame(3)), Some(Ownership::Free));
    let stolen = ask(&vm, gfn(3), Request::PageIn(frame(1)), &mut platform);
    assert_eq!(stolen, Err(Refused::NotOffered), "another page's frame");
    vm.frames().offer(frame(3), vm.number(), gfn(3)).expect("free");
    ask(&vm, gfn(3), Request::PageIn(frame(3)), &mut platform).expect("in");
    assert_eq!(vm.state(gfn(3)), Some(PageState::Sealed));
    platform.calls.clear();
    act(&vm, gfn(3), Act::Touch, &mut platform).expect("opened");
    let expected = ["withdraw 3 Management", "fence", "open [3]", "grant 3 Owner Plain ReadWrite"];
    assert_eq!(platform.calls, expected);
}

#[test]
fn what_is_not_genuine_is_granted_to_nobody_and_stops_the_vm() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    ask(&vm, gfn(3), Request::Seal, &mut platform).expect("sealed");
    platform = Recorder { forged: true, ..Recorder::default() };
    let receipt = act(&vm, gfn(3), Act::Touch, &mut platform).expect("decided");
    assert_eq!(receipt.state, PageState::Poisoned);
    assert_eq!(platform.calls, ["withdraw 3 Management", "fence", "open [3]"]);
    assert_eq!(vm.runnable(), Err(NotRunnable::Stopped(gfn(3))));
    let owner = vm.frames().owner(frame(3));
    assert_eq!(owner, Some(Ownership::Quarantined(vm.number(), gfn(3))));
    platform.calls.clear();
    ask(&vm, gfn(3), Request::Destroy, &mut platform).expect("wiped");
    assert!(platform.calls.contains(&"scrub 3 All".to_owned()));
    assert_eq!(vm.state(gfn(3)), Some(PageState::Poisoned), "terminal");
}

#[test]
fn a_plan_dropped_before_its_first_step_leaves_the_page_as_it_was_but_its_version_burnt() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let plan = vm.claim(gfn(0)).expect("free").request(Request::Map(Perm::Read)).expect("decided");
    assert_eq!(vm.claim(gfn(0)).err(), Some(Unclaimed::Busy));
    drop(plan);
    assert_eq!(vm.state(gfn(0)), Some(PageState::Private));
    assert_eq!(vm.replicas(), 0);
    let receipt = ask(&vm, gfn(0), Request::Map(Perm::Read), &mut Recorder::default());
    let (id, _) = receipt.expect("mapped").sealed.expect("a seal");
    assert_eq!(id.version.number(), 2, "version 1 is never used again");
}

#[test]
fn a_batch_dropped_after_its_first_step_poisons_what_had_begun_and_nothing_else() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut batch = Batch::<4>::new();
    for page in [0, 1] {
        let plan = vm.claim(gfn(page)).expect("free").request(Request::Seal).expect("decided");
        assert!(batch.push(plan).is_ok());
    }
    assert_eq!(batch.step(&mut Recorder::default()), Ok(Progress::More));
    drop(batch);
    assert_eq!(vm.state(gfn(0)), Some(PageState::Poisoned));
    assert_eq!(vm.state(gfn(1)), Some(PageState::Private));
    assert_eq!(vm.runnable(), Err(NotRunnable::Stopped(gfn(0))));
}

#[test]
fn a_fault_at_any_step_closes_what_had_begun() {
    for fault_at in 1..=4 {
        let storage = Storage::new();
        let vm = launched(&storage);
        let mut platform = Recorder { fault_at: Some(fault_at), ..Recorder::default() };
        let plan = vm.claim(gfn(1)).expect("free").request(Request::PageOut).expect("decided");
        let mut batch = Batch::<1>::new();
        assert!(batch.push(plan).is_ok());
        assert_eq!(batch.run(&mut platform).err(), Some(fault_at));
        let closing = ["withdraw 1 Owner", "withdraw 1 Management", "fence"];
        assert_eq!(platform.calls[fault_at..], closing, "fault at call {fault_at}");
        assert_eq!(vm.state(gfn(1)), Some(PageState::Poisoned));
    }
}

#[test]
fn one_fence_and_one_seal_serve_a_whole_batch() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    let mut batch = Batch::<4>::new();
    for page in vm.gfns() {
        let plan = vm.claim(page).expect("free").request(Request::PageOut).expect("decided");
        assert!(batch.push(plan).is_ok());
    }
    batch.run(&mut platform).expect("no fault").commit();
    let count = |word| platform.calls.iter().filter(|call| call.starts_with(word)).count();
    assert_eq!([count("withdraw"), count("fence"), count("seal"), count("scrub")], [4, 1, 1, 4]);
}

#[test]
fn exclusion_blanks_the_page_in_images_only() {
    let storage = Storage::new();
    let vm = launched(&storage);
    act(&vm, gfn(0), Act::Exclude(true), &mut Recorder::default()).expect("excluded");
    let excluded = |stream| {
        let receipt = ask(&vm, gfn(0), Request::Export(stream), &mut Recorder::default());
        receipt.expect("exported").sealed.expect("a seal").0.excluded
    };
    assert!(excluded(Stream::Image));
    assert!(!excluded(Stream::View));
    for (page, stream, blanks) in
        [(0, Stream::Image, 1), (0, Stream::View, 0), (1, Stream::Image, 0), (1, Stream::View, 0)]
    {
        let mut platform = Recorder::default();
        ask(&vm, gfn(page), Request::Export(stream), &mut platform).expect("exported");
        assert_eq!(platform.blanks, blanks, "page {page} to {stream:?}");
        assert_eq!(platform.calls, [format!("seal [{page}] [Wire]")]);
    }
}

#[test]
fn a_table_smaller_than_the_guest_is_refused() {
    let storage = Storage::new();
    let refused = Vm::new(storage.config(5)).err();
    assert_eq!(refused, Some(BadTable::TooSmall { needed: 5, rows: PAGES }));
    assert_eq!(storage.vm().claim(gfn(4)).err(), Some(Unclaimed::NoSuchPage));
}

#[test]
fn a_table_that_is_in_use_makes_no_second_vm() {
    let storage = Storage::new();
    let vm = launched(&storage);
    assert_eq!(vm.runnable(), Ok(()));
    assert_eq!(Vm::new(storage.config(4)).err(), Some(BadTable::InUse(gfn(0))));
}

#[test]
fn an_abandoned_batch_leaves_its_pages_closed_to_every_view() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    let plan = vm.claim(gfn(1)).expect("free").act(share(&vm, gfn(1), 0)).expect("decided");
    let mut batch = Batch::<1>::new();
    assert!(batch.push(plan).is_ok());
    assert_eq!(batch.step(&mut platform), Ok(Progress::More));
    batch.abandon(&mut platform);
    let closing = ["withdraw 1 Owner", "withdraw 1 Management", "fence"];
    assert_eq!(platform.calls[1..], closing);
    assert_eq!(vm.state(gfn(1)), Some(PageState::Poisoned));
}

#[test]
fn a_poisoned_replica_gives_its_place_back_once_it_is_wiped() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder { fault_at: Some(2), ..Recorder::default() };
    let plan = vm.claim(gfn(0)).expect("free").request(Request::Map(Perm::Read)).expect("decided");
    let mut batch = Batch::<1>::new();
    assert!(batch.push(plan).is_ok());
    assert!(batch.run(&mut platform).is_err(), "the grant fails");
    assert_eq!(vm.replicas(), 1, "who knows what is still out");
    ask(&vm, gfn(0), Request::Destroy, &mut Recorder::default()).expect("wiped");
    assert_eq!((vm.replicas(), vm.state(gfn(0))), (0, Some(PageState::Poisoned)));
}

#[test]
fn only_what_was_opened_without_a_limit_is_open_in_an_image() {
    let storage = Storage::new();
    let vm = launched(&storage);
    for (expiry, open) in [(0, true), (50, false), (u64::MAX, false)] {
        act(&vm, gfn(1), share(&vm, gfn(1), expiry), &mut Recorder::default()).expect("open");
        let export = Request::Export(Stream::Image);
        let receipt = ask(&vm, gfn(1), export, &mut Recorder::default()).expect("exported");
        assert!(receipt.state.terms().is_some(), "it is open all the same");
        assert_eq!(receipt.sealed_as.terms().is_some(), open);
        let (id, _) = receipt.sealed.expect("a seal");
        assert_eq!(id.kind != PageKind::MEMORY, open, "and sealed on those terms");
        act(&vm, gfn(1), Act::Unshare, &mut Recorder::default()).expect("closed");
    }
}
