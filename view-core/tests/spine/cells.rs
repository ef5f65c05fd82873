//! The table of states, cell by cell: what the platform is asked for, or why it is refused.
//!
//! What a page becomes is in spec/states.md, too; what happens on the way is here.

use std::collections::BTreeSet;

use view_core::suite::Stream;
use view_core::{Act, Perm, Plan, Refused, Request, Version, Vm};

use crate::edges::poison;
use crate::setting::{Recorder, Storage, act, ask, carry_out, frame, gfn, launched, share};

const EVENTS: &str = "map-read map-write unmap export seal page-out page-in destroy \
                      accept launch touch share unshare exclude include";

/// In each state, what comes of which events; `*` is all that no other line names. `new` is free in
/// a VM that is being built, `free` in one that is launched.
const CELLS: &[(&str, &[(&str, &str)])] = &[
    (
        "new",
        &[("accept", "withdraw Management, fence, scrub Original, then Building"), ("*", "Absent")],
    ),
    (
        "building",
        &[
            ("map-read", "grant Management Plain Read, then Building"),
            ("map-write", "grant Management Plain ReadWrite, then Building"),
            ("unmap", "withdraw Management, fence, then Building"),
            ("page-in accept", "Present"),
            ("destroy", "withdraw Owner, withdraw Management, fence, scrub All, then Free"),
            ("launch", "withdraw Management, fence, grant Owner Plain ReadWrite, then Private"),
            ("unshare", "NotOpen"),
            ("exclude include", "then Building"),
            ("*", "Building"),
        ],
    ),
    (
        "free",
        &[
            (
                "accept",
                "withdraw Management, fence, scrub Original, grant Owner Plain ReadWrite, then \
                 Private",
            ),
            ("*", "Absent"),
        ],
    ),
    (
        "private",
        &[
            (
                "map-read",
                "seal [Replica], grant Management Replica Read, for View, burns, then Replica",
            ),
            ("map-write", "Permission"),
            ("unmap", "NotMapped"),
            ("export", "seal [Wire], for Image, burns, then Private"),
            (
                "seal",
                "withdraw Owner, fence, seal [InPlace], grant Management Sealed Read, for \
                 Resident, burns, then Sealed",
            ),
            (
                "page-out",
                "withdraw Owner, fence, seal [Wire], scrub Original, for Resident, burns, then \
                 PagedOut",
            ),
            ("page-in accept", "Present"),
            ("destroy", "withdraw Owner, withdraw Management, fence, scrub All, then Free"),
            ("launch", "Launched"),
            ("touch", "NothingToDo"),
            ("share", "grant Management Plain Read, burns, then Open"),
            ("unshare", "NotOpen"),
            ("exclude include", "then Private"),
        ],
    ),
    (
        "replica",
        &[
            (
                "map-read",
                "withdraw Management, fence, seal [Replica], grant Management Replica Read, for \
                 View, burns, then Replica",
            ),
            ("map-write", "Permission"),
            ("unmap", "withdraw Management, fence, scrub Replica, then Private"),
            ("export", "seal [Wire], for Image, burns, then Replica"),
            (
                "seal",
                "withdraw Owner, withdraw Management, fence, seal [InPlace], scrub Replica, \
                 grant Management Sealed Read, for Resident, burns, then Sealed",
            ),
            (
                "page-out",
                "withdraw Owner, withdraw Management, fence, seal [Wire], scrub All, for \
                 Resident, burns, then PagedOut",
            ),
            ("page-in accept", "Present"),
            ("destroy", "withdraw Owner, withdraw Management, fence, scrub All, then Free"),
            ("launch", "Launched"),
            ("touch", "NothingToDo"),
            (
                "share",
                "withdraw Management, fence, scrub Replica, grant Management Plain Read, burns, \
                 then Open",
            ),
            ("unshare", "NotOpen"),
            ("exclude include", "then Replica"),
        ],
    ),
    (
        "sealed",
        &[
            ("map-read", "grant Management Sealed Read, then Sealed"),
            ("map-write", "Permission"),
            ("unmap", "withdraw Management, fence, then Sealed"),
            ("export share", "NotResident"),
            ("seal", "NothingToDo"),
            ("page-out", "withdraw Management, fence, scrub Original, then PagedOut"),
            ("page-in accept", "Present"),
            ("destroy", "withdraw Owner, withdraw Management, fence, scrub All, then Free"),
            ("launch", "Launched"),
            (
                "touch",
                "withdraw Management, fence, open, grant Owner Plain ReadWrite, then Private",
            ),
            ("unshare", "NotOpen"),
            ("exclude include", "then Sealed"),
        ],
    ),
    (
        "paged-out",
        &[
            ("page-in", "withdraw Management, fence, fetch, then Sealed"),
            ("destroy", "then Free"),
            ("accept", "Present"),
            ("launch", "Launched"),
            ("exclude include", "then PagedOut"),
            ("*", "Absent"),
        ],
    ),
    (
        "open",
        &[
            ("map-read", "grant Management Plain Read, then Open"),
            ("map-write", "Permission"),
            ("unmap", "withdraw Management, fence, then Open"),
            ("export", "seal [Wire], for Image, burns, then Open"),
            ("seal page-out share", "AlreadyOpen"),
            ("page-in accept", "Present"),
            ("destroy", "withdraw Owner, withdraw Management, fence, scrub All, then Free"),
            ("launch", "Launched"),
            ("touch", "NothingToDo"),
            (
                "unshare",
                "withdraw Management, fence, grant Owner Plain ReadWrite, burns, then Private",
            ),
            ("exclude include", "then Open"),
        ],
    ),
    (
        "poisoned",
        &[
            ("destroy", "withdraw Owner, withdraw Management, fence, scrub All, then Poisoned"),
            ("*", "Poisoned"),
        ],
    ),
];

/// A VM whose page 0 is in this state. Its frame is on offer for it, if nothing has it.
fn brought<'s>(storage: &'s Storage, state: &str) -> Vm<'s> {
    let builds = ["new", "building"].contains(&state);
    let vm = if builds { storage.vm() } else { launched(storage) };
    let mut platform = Recorder::default();
    let mut asked = |request| ask(&vm, gfn(0), request, &mut platform).map(drop);
    let done = match state {
        "new" | "private" => Ok(()),
        "building" => {
            vm.frames().offer(frame(0), vm.number(), gfn(0)).expect("free");
            act(&vm, gfn(0), Act::Accept(frame(0)), &mut Recorder::default()).map(drop)
        }
        "free" => asked(Request::Destroy),
        "replica" => asked(Request::Map(Perm::Read)),
        "sealed" => asked(Request::Seal),
        "paged-out" => asked(Request::PageOut),
        "open" => act(&vm, gfn(0), share(&vm, gfn(0), 0), &mut Recorder::default()).map(drop),
        "poisoned" => {
            poison(&vm, 0, Request::Seal);
            Ok(())
        }
        other => panic!("no page is {other}"),
    };
    done.expect("decided");
    let _ = vm.frames().offer(frame(0), vm.number(), gfn(0));
    vm
}

fn decide<'t>(vm: &'t Vm<'t>, event: &str) -> Result<Plan<'t>, Refused> {
    let opening = share(vm, gfn(0), 0);
    let claim = vm.claim(gfn(0)).expect("free to claim");
    match event {
        "map-read" => claim.request(Request::Map(Perm::Read)),
        "map-write" => claim.request(Request::Map(Perm::ReadWrite)),
        "unmap" => claim.request(Request::Unmap),
        "export" => claim.request(Request::Export(Stream::Image)),
        "seal" => claim.request(Request::Seal),
        "page-out" => claim.request(Request::PageOut),
        "page-in" => claim.request(Request::PageIn(frame(0))),
        "destroy" => claim.request(Request::Destroy),
        "accept" => claim.act(Act::Accept(frame(0))),
        "launch" => claim.act(Act::Launch),
        "touch" => claim.act(Act::Touch),
        "share" => claim.act(opening),
        "unshare" => claim.act(Act::Unshare),
        "exclude" => claim.act(Act::Exclude(true)),
        "include" => claim.act(Act::Exclude(false)),
        other => panic!("nobody can {other}"),
    }
}

/// The steps, the stream that was sealed for, whether a version was used up, and the state then.
fn outcome(storage: &Storage, vm: &Vm<'_>, event: &str) -> String {
    let version = || storage.slots[0].words()[1] & Version::MAX.number();
    let before = version();
    let plan = match decide(vm, event) {
        Ok(plan) => plan,
        Err(refused) => return format!("{refused:?}"),
    };
    let mut platform = Recorder::default();
    let receipt = carry_out(plan, &mut platform);
    let mut told = platform.calls;
    told.extend(receipt.sealed.map(|(id, _)| format!("for {:?}", id.stream)));
    told.extend((version() > before).then(|| "burns".to_owned()));
    let state = format!("{:?}", receipt.state);
    told.extend(state.split_whitespace().next().map(|name| format!("then {name}")));
    // There is but one page.
    told.join(", ").replace(" 0", "").replace(" [0]", "")
}

#[test]
fn every_cell_asks_for_its_steps_or_says_why_it_refuses() {
    for (state, cells) in CELLS {
        let mut left: BTreeSet<&str> = EVENTS.split_whitespace().collect();
        for (events, expected) in *cells {
            let named: Vec<&str> = events.split_whitespace().collect();
            let named = if named == ["*"] { Vec::from_iter(left.clone()) } else { named };
            for event in named {
                assert!(left.remove(event), "{event} when {state} is there twice");
                let storage = Storage::new();
                let vm = brought(&storage, state);
                assert_eq!(outcome(&storage, &vm, event), *expected, "{event} when {state}");
            }
        }
        assert!(left.is_empty(), "{left:?} when {state}");
    }
}
