//! What the core is at its edges: what onlookers see half way, what is counted, what is printed.

use std::collections::BTreeSet;
use std::mem;

use view_core::page_table::PageNumbers;
use view_core::whitelist::{
    Doorbell, DoorbellFact, EvidenceSource, Expiry, Lease, Leases, Proposal, Rule,
};
use view_core::{
    Act, BadTable, Batch, Epoch, Field, Mask, MaskId, NotRunnable, OutOfRange, Ownership, Page,
    PageKind, PageState, Perm, Plan, Progress, Refused, Request, Unclaimed, Version, Vm, VmConfig,
    VmNumber,
};
use zeroize::Zeroize;

use crate::setting::{Recorder, Storage, act, ask, frame, gfn, launched, share};

/// A batch of these plans.
fn batch<'t, const N: usize>(plans: [Plan<'t>; N]) -> Batch<'t, N> {
    let mut batch = Batch::new();
    plans.into_iter().for_each(|plan| assert!(batch.push(plan).is_ok()));
    batch
}

fn requested<'t>(vm: &'t Vm<'t>, page: u64, request: Request) -> Plan<'t> {
    vm.claim(gfn(page)).expect("free to claim").request(request).expect("decided")
}

/// The page is poisoned: its batch is dropped after one step.
pub(crate) fn poison(vm: &Vm<'_>, page: u64, request: Request) {
    let mut batch = batch([requested(vm, page, request)]);
    assert_eq!(batch.step(&mut Recorder::default()), Ok(Progress::More));
}

#[test]
fn onlookers_see_what_a_page_would_be_if_its_batch_were_dropped() {
    let storage = Storage::new();
    let vm = launched(&storage);
    for (page, request, shown) in [
        (0, Request::Destroy, PageState::Scrubbing),
        (1, Request::Seal, PageState::Poisoned),
        (2, Request::PageOut, PageState::Poisoned),
    ] {
        let mut batch = batch([requested(&vm, page, request)]);
        assert_eq!(vm.state(gfn(page)), Some(PageState::Private), "no step was taken");
        assert_eq!(batch.step(&mut Recorder::default()), Ok(Progress::More));
        assert_eq!(vm.state(gfn(page)), Some(shown));
        assert_eq!(vm.claim(gfn(page)).err(), Some(Unclaimed::Busy));
        batch.run(&mut Recorder::default()).expect("no fault").commit();
        assert!(vm.claim(gfn(page)).is_ok(), "it is over");
    }
    assert_eq!(vm.state(gfn(4)), None);
}

#[test]
fn a_version_is_burnt_in_the_row_before_anybody_acts_on_it() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let version = || storage.slots[0].words()[1] & Version::MAX.number();
    let plan = requested(&vm, 0, Request::Export(view_core::suite::Stream::View));
    assert_eq!(version(), 1);
    mem::forget(plan);
    assert_eq!(version(), 1, "whoever held it is gone without letting go");
}

#[test]
fn abandoning_a_batch_leaves_alone_what_had_not_begun() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    let mut two = batch([0, 1].map(|page| requested(&vm, page, Request::Seal)));
    assert_eq!(two.step(&mut platform), Ok(Progress::More));
    two.abandon(&mut platform);
    let expected = ["withdraw 0 Owner", "withdraw 0 Owner", "withdraw 0 Management", "fence"];
    assert_eq!(platform.calls, expected);
    platform.calls.clear();
    batch([requested(&vm, 2, Request::Seal)]).abandon(&mut platform);
    assert!(platform.calls.is_empty(), "nothing had begun at all");
    assert_eq!(vm.state(gfn(2)), Some(PageState::Private));
}

#[test]
fn a_batch_counts_its_plans_and_has_receipts_only_when_it_is_done() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let empty = Batch::<1>::default();
    assert_eq!((empty.len(), empty.is_empty()), (0, true));
    let mut full = batch([0, 1].map(|page| requested(&vm, page, Request::Seal)));
    assert_eq!((full.len(), full.is_empty()), (2, false));
    full = full.finish().expect_err("no step was taken");
    let mut platform = Recorder::default();
    while full.step(&mut platform) == Ok(Progress::More) {
        let late = requested(&vm, 2, Request::Seal);
        assert!(full.push(late).is_err(), "it is under way");
    }
    assert_eq!(full.step(&mut platform), Ok(Progress::Done));
    full.finish().expect("done").commit();
    assert_eq!(vm.state(gfn(1)), Some(PageState::Sealed));
}

#[test]
fn sealed_bytes_are_fetched_into_a_frame_that_nobody_reaches() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    ask(&vm, gfn(3), Request::PageOut, &mut platform).expect("out");
    vm.frames().offer(frame(3), vm.number(), gfn(3)).expect("free");
    platform.calls.clear();
    ask(&vm, gfn(3), Request::PageIn(frame(3)), &mut platform).expect("in");
    assert_eq!(platform.calls, ["withdraw 3 Management", "fence", "fetch 3"]);
}

#[test]
fn a_place_in_the_pool_is_given_back_by_the_page_that_took_it() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    ask(&vm, gfn(0), Request::Map(Perm::Read), &mut platform).expect("mapped");
    ask(&vm, gfn(0), Request::Map(Perm::Read), &mut platform).expect("mapped anew");
    assert_eq!(vm.replicas(), 1);
    ask(&vm, gfn(1), Request::Seal, &mut platform).expect("sealed");
    assert_eq!(vm.replicas(), 1, "the replica is another page's");
    poison(&vm, 2, Request::Seal);
    ask(&vm, gfn(2), Request::Destroy, &mut platform).expect("wiped");
    assert_eq!(vm.replicas(), 1, "what was poisoned had none");
    poison(&vm, 0, Request::Unmap);
    assert_eq!(vm.replicas(), 1, "it may still be there");
    ask(&vm, gfn(0), Request::Destroy, &mut platform).expect("wiped");
    assert_eq!(vm.replicas(), 0);
    assert_eq!(vm.runnable(), Err(NotRunnable::Stopped(gfn(2))), "the first reason stays");
}

#[test]
fn pages_being_built_are_counted_until_they_are_launched_poisoned_or_gone() {
    let storage = Storage::new();
    let vm = storage.vm();
    let mut platform = Recorder::default();
    let building = |vm: &Vm<'_>| vm.words()[0] & u64::from(u32::MAX);
    for page in vm.gfns() {
        vm.frames().offer(frame(page.number()), vm.number(), page).expect("free");
    }
    let accepting = |page| vm.claim(gfn(page)).expect("free").act(Act::Accept(frame(page)));
    drop(accepting(0).expect("decided"));
    assert_eq!(building(&vm), 0, "dropped before its first step");
    let offered = Ownership::Offered(vm.number(), gfn(0));
    assert_eq!(vm.frames().owner(frame(0)), Some(offered), "and still on offer");
    for page in 0..3 {
        batch([accepting(page).expect("decided")]).run(&mut platform).expect("no fault").commit();
    }
    assert_eq!(building(&vm), 3);
    let mut half = batch([accepting(3).expect("decided")]);
    assert_eq!((half.step(&mut platform), building(&vm)), (Ok(Progress::More), 4));
    drop(half);
    assert_eq!(building(&vm), 3, "poisoned while it was accepted");
    let launching = vm.claim(gfn(0)).expect("free").act(Act::Launch).expect("decided");
    let mut half = batch([launching]);
    assert_eq!(half.step(&mut platform), Ok(Progress::More));
    drop(half);
    assert_eq!(building(&vm), 2, "poisoned while it was launched");
    act(&vm, gfn(1), Act::Launch, &mut platform).expect("launched");
    assert_eq!(vm.launch(), Err(NotRunnable::StillBuilding(1)));
    ask(&vm, gfn(2), Request::Destroy, &mut platform).expect("gone");
    assert_eq!((vm.launch(), vm.launch()), (Ok(()), Ok(())), "nothing is being built");
    poison(&vm, 1, Request::Seal);
    assert_eq!(building(&vm), 0, "what is poisoned now was not being built");
}

#[test]
fn no_frame_is_taken_back_from_its_page() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let taken = vm.frames().retract(frame(0), vm.number(), gfn(0));
    assert!(taken.is_err(), "it was accepted");
    ask(&vm, gfn(0), Request::Destroy, &mut Recorder::default()).expect("gone");
    vm.frames().offer(frame(0), vm.number(), gfn(0)).expect("free");
    vm.frames().retract(frame(0), vm.number(), gfn(0)).expect("nobody accepted it");
    assert_eq!(vm.frames().owner(frame(0)), Some(Ownership::Free));
    assert!(vm.frames().offer(frame(9), vm.number(), gfn(0)).is_err(), "there is no such frame");
}

#[test]
fn an_open_page_is_mapped_within_its_permissions() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let mut platform = Recorder::default();
    act(&vm, gfn(0), share(&vm, gfn(0), 0), &mut platform).expect("open to read");
    let wish = |perm| ask(&vm, gfn(0), Request::Map(perm), &mut Recorder::default()).map(drop);
    assert_eq!([Perm::Read, Perm::ReadWrite].map(wish), [Ok(()), Err(Refused::Permission)]);
    act(&vm, gfn(0), Act::Unshare, &mut platform).expect("closed");
    let Act::Share(evidence, _, mask, expiry) = share(&vm, gfn(0), 0) else { unreachable!() };
    let writable = Act::Share(evidence, Perm::ReadWrite, mask, expiry);
    act(&vm, gfn(0), writable, &mut platform).expect("open to write");
    assert_eq!([Perm::Read, Perm::ReadWrite].map(wish), [Ok(()), Ok(())]);
    assert_eq!([Perm::Read, Perm::ReadWrite].map(Perm::code), [1, 3]);
}

#[test]
fn a_deadline_is_due_from_its_tick_on_and_no_other_term_ever_is() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let due = |now| vm.leases().due(now).collect::<Vec<_>>();
    let Act::Share(evidence, perm, mask, _) = share(&vm, gfn(1), 0) else { unreachable!() };
    for (expiry, at) in [
        (Expiry::Never, None),
        (Expiry::FirstUnmap, None),
        (Expiry::At(0), Some(0)),
        (Expiry::At(7), Some(7)),
        (Expiry::At(u64::MAX), Some(u64::MAX - 2)),
    ] {
        let opening = Act::Share(evidence, perm, mask, expiry);
        act(&vm, gfn(1), opening, &mut Recorder::default()).expect("open");
        assert_eq!(due(u64::MAX).len(), usize::from(at.is_some()), "{expiry:?}");
        if let Some(at) = at {
            assert_eq!(due(at), [gfn(1)]);
            assert!(at == 0 || due(at - 1).is_empty(), "{expiry:?}");
        }
        ask(&vm, gfn(1), Request::Unmap, &mut Recorder::default()).expect("unmapped");
        let closed = vm.state(gfn(1)) == Some(PageState::Private);
        assert_eq!(closed, expiry == Expiry::FirstUnmap, "{expiry:?}");
        if !closed {
            act(&vm, gfn(1), Act::Unshare, &mut Recorder::default()).expect("closed");
        }
        assert!(due(u64::MAX).is_empty(), "closed: {expiry:?}");
    }
}

#[test]
fn evidence_is_about_one_page_of_one_vm_in_one_epoch() {
    let (here, there) = (Storage::new(), Storage::new());
    let vm = launched(&here);
    let Act::Share(evidence, ..) = share(&vm, gfn(1), 0) else { unreachable!() };
    assert!(evidence.is_about(&vm, gfn(1)) && !evidence.is_about(&vm, gfn(0)));
    for (number, epoch, same) in [(1, 9, true), (2, 9, false), (1, 8, false)] {
        let config = VmConfig { number: VmNumber(number), epoch: Epoch(epoch), ..there.config(4) };
        let vm = Vm::new(config).expect("new");
        assert_eq!((vm.number(), vm.epoch(), vm.pages()), (config.number, config.epoch, 4));
        assert_eq!(evidence.is_about(&vm, gfn(1)), same);
    }
    assert_eq!((evidence.kind(), evidence.source()), (PageKind::MAILBOX, EvidenceSource::Guest));
}

#[test]
fn each_call_of_the_doorbell_proposes_its_own_act() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let ring = |call, vm_number, perm, expiry| {
        let fact = DoorbellFact { vm: VmNumber(vm_number), call, gfn: 2, perm, mask: 0, expiry };
        Doorbell.infer(&vm, &fact)
    };
    let page = gfn(2);
    assert_eq!(ring(Doorbell::UNSHARE, 1, 0, 0), Ok(Proposal::Unshare { gfn: page }));
    for (call, excluded) in [(Doorbell::EXCLUDE, true), (Doorbell::INCLUDE, false)] {
        let expected = Proposal::Exclude { gfn: page, excluded };
        assert_eq!(ring(call, 1, 0, 0), Ok(expected));
        assert_eq!(expected.act(), (page, Act::Exclude(excluded)));
    }
    assert!(ring(Doorbell::UNSHARE, 2, 0, 0).is_err(), "another VM rang");
    let terms = [(0, Expiry::Never), (u64::MAX, Expiry::FirstUnmap), (7, Expiry::At(7))];
    for ((word, expected), (code, right)) in terms
        .into_iter()
        .flat_map(|term| [(1, Perm::Read), (3, Perm::ReadWrite)].map(|p| (term, p)))
    {
        let proposal = ring(Doorbell::SHARE, 1, code, word).expect("evidence");
        let Proposal::Share { perm, mask, expiry, .. } = proposal else { unreachable!() };
        assert_eq!((perm, mask, expiry), (right, MaskId::ALL, expected));
    }
}

#[test]
fn versions_end_and_numbers_that_do_not_fit_are_named() {
    let last = Version::new(Version::MAX.number() - 1).expect("in range").next();
    assert_eq!(last, Some(Version::MAX));
    assert_eq!(last.and_then(Version::next), None);
    assert_eq!(OutOfRange(0x1_0000).to_string(), "0x10000 is out of range");
}

#[test]
fn a_page_is_wiped_whole_and_does_not_print() {
    let mut page = Page::zeroed();
    page.bytes_mut().fill(7);
    assert_eq!(format!("{page:?}"), "Page(..)");
    page.zeroize();
    assert!(page.bytes().iter().all(|byte| *byte == 0));
}

#[test]
fn claims_and_plans_say_which_page_they_hold() {
    let storage = Storage::new();
    let vm = launched(&storage);
    let claim = vm.claim(gfn(2)).expect("free");
    let told = format!("{claim:?}");
    assert!(told.contains("Gfn(2)") && told.contains("Private"), "{told}");
    let told = format!("{:?}", claim.request(Request::Seal).expect("decided"));
    assert!(told.contains("Gfn(2)") && told.contains("Sealed"), "{told}");
}

#[test]
fn a_page_under_a_mask_shows_its_fields_and_is_never_written() {
    let storage = Storage::new();
    let masks = [Mask(&[Field::fixed::<0, 1>()]), Mask(&[Field::fixed::<8, 2>()])];
    let config = VmConfig { masks: &masks, ..storage.config(4) };
    launched(&storage);
    let vm = Vm::resume(config, [1 << 63, 0, 0]).expect("large enough");
    let second = MaskId::new(2).expect("below 64");
    assert_eq!(
        [0, 2, 63].map(|number| MaskId::new(number).map(MaskId::number)),
        [Some(0), Some(2), Some(63)]
    );
    assert!(vm.mask(second).is_some_and(|mask| mask.0[0] == Field::fixed::<8, 2>()));
    assert!(vm.mask(MaskId::ALL).is_none());
    let Act::Share(evidence, perm, _, expiry) = share(&vm, gfn(1), 0) else { unreachable!() };
    let writable = Act::Share(evidence, Perm::ReadWrite, second, expiry);
    let refused = act(&vm, gfn(1), writable, &mut Recorder::default());
    assert_eq!(refused, Err(Refused::NoSuchMask), "it would go nowhere");
    let mut platform = Recorder::default();
    act(&vm, gfn(1), Act::Share(evidence, perm, second, expiry), &mut platform).expect("open");
    ask(&vm, gfn(1), Request::Map(perm), &mut platform).expect("mapped");
    assert_eq!(platform.calls, ["grant 1 Management Masked(MaskId(2)) Read"; 2]);
    let state = vm.state(gfn(1)).and_then(PageState::terms);
    assert_eq!(state, Some((PageKind::MAILBOX, perm, second)));
}

#[test]
fn each_open_page_has_a_deadline_of_its_own() {
    let storage = Storage::new();
    let leases = [const { Lease::new() }; 3];
    launched(&storage);
    let config = VmConfig { leases: Leases::new(&leases), ..storage.config(4) };
    let vm = Vm::resume(config, [1 << 63, 0, 0]).expect("large enough");
    for page in 0..3 {
        act(&vm, gfn(page), share(&vm, gfn(page), 10 + page), &mut Recorder::default())
            .expect("open");
    }
    act(&vm, gfn(1), Act::Unshare, &mut Recorder::default()).expect("closed");
    assert_eq!(vm.leases().due(12).collect::<Vec<_>>(), [gfn(0), gfn(2)]);
    act(&vm, gfn(3), share(&vm, gfn(3), 5), &mut Recorder::default()).expect("room again");
    assert_eq!(vm.leases().due(9).collect::<Vec<_>>(), [gfn(3)]);
}

#[test]
fn a_page_and_its_frame_name_each_other_as_long_as_the_page_has_it() {
    let storage = Storage::new();
    let vm = launched(&storage);
    assert_eq!((vm.frame(gfn(2)), vm.gfn(frame(2))), (Some(frame(2)), Some(gfn(2))));
    assert_eq!((vm.frame(gfn(4)), vm.gfn(frame(4))), (None, None), "there are four of each");
    ask(&vm, gfn(2), Request::PageOut, &mut Recorder::default()).expect("out");
    assert_eq!((vm.frame(gfn(2)), vm.gfn(frame(2))), (None, None));
    vm.frames().offer(frame(2), vm.number(), gfn(3)).expect("free");
    assert_eq!(vm.gfn(frame(2)), None, "on offer");
}

/// Every reason to refuse, in words of its own.
#[test]
fn no_two_refusals_read_alike() {
    use Refused as R;
    let all = [
        R::Absent,
        R::Present,
        R::Building,
        R::Launched,
        R::NotResident,
        R::NotMapped,
        R::AlreadyOpen,
        R::NotOpen,
        R::NothingToDo,
        R::Permission,
        R::NoSuchMask,
        R::WrongEvidence,
        R::NotOffered,
        R::ListFull,
        R::PoolFull,
        R::VersionsSpent,
        R::Poisoned,
    ];
    let told: BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert!(told.len() == all.len() && !told.contains(""), "{told:?}");
    let small = BadTable::TooSmall { needed: 5, rows: 4 }.to_string();
    assert_eq!(small, "the guest has 5 pages, the table only 4 rows");
    let used = BadTable::InUse(gfn(0x10)).to_string();
    assert!(used.contains("page 0x10 is in use"), "{used}");
    assert_ne!(Unclaimed::Busy.to_string(), Unclaimed::NoSuchPage.to_string());
    assert!(Unclaimed::NoSuchPage.to_string().contains("no such page"));
}
