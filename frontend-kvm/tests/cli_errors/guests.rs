//! Guests that ask for what they may not have, and managers that ask at the same time.

use std::os::unix::net::UnixStream;
use std::path::Path;

use frontend_kvm::abi::{TRIES, code, gfn};
use frontend_kvm::control::client::Client;
use frontend_kvm::guest::place;
use frontend_kvm::trusted::{SnapshotError, StartError, TrustedVm};
use frontend_kvm::{Mode, Program, VcpuStatus};
use view_core::key::RootKey;
use view_core::whitelist::{Lease, Leases};
use view_core::{Epoch, Frames, Owner, PageState, Slot, Vm, VmConfig, VmId, VmNumber};

use crate::common::{ENTROPY, LONG, PAGES, kvm};
use crate::sockets::frame;
use crate::tool::{Home, pageveil, until};

#[test]
fn a_guest_that_shares_what_it_does_not_own_is_refused_counted_and_unharmed() {
    let name = "a_guest_that_shares_what_it_does_not_own_is_refused_counted_and_unharmed";
    let Some(kvm) = kvm(name) else { return };
    let program = Program::new(Mode::Bad, &ENTROPY);
    let vm = TrustedVm::boot(&kvm, &RootKey::new([9; 32]), VmId([5; 16]), PAGES, &program).unwrap();
    vm.start().unwrap();
    // It ends with 0 if every answer was the refusal that is due.
    assert_eq!(vm.machine().wait(0, LONG).unwrap(), VcpuStatus::Ended(0));
    let guard = vm.guard();
    // The try at a port where nobody answers is none; the two of a wrong width are.
    assert_eq!(guard.heard().refused, TRIES - 1 + 2);
    assert!(guard.vm().runnable().is_ok() && guard.open_pages().is_empty());
    let tables = place(gfn::PAGE_TABLES);
    assert_eq!(guard.vm().state(tables), Some(PageState::Private), "its page tables stay private");
    assert!(guard.look(tables).unwrap().sealed.is_some());
    let first = vm.machine().memory().read_word(place(gfn::STATUS), 16).unwrap();
    assert_eq!(first, u64::from(code::REFUSED));
}

#[test]
fn what_a_bad_guest_rang_for_is_told_and_others_do_not_notice() {
    if kvm("what_a_bad_guest_rang_for_is_told_and_others_do_not_notice").is_none() {
        return;
    }
    let home = Home::new();
    let (good, bad) = (home.counter(), home.run("bad", "bad", "8M"));
    let map = || pageveil(&["map", &bad.sock, "--json"]).json();
    until("it rang for everything", || map()["doorbells_refused"] == TRIES - 1 + 2);
    let told = map();
    assert_eq!((&told["runnable"], &told["states"]["private"]), (&true.into(), &PAGES.into()));
    assert_eq!(bad.peek(gfn::PAGE_TABLES)["sealed"], true);
    good.runs_on();
    let told = pageveil(&["map", &good.sock, "--json"]).json();
    assert_eq!(told["doorbells_refused"], 0);
    assert!(bad.end().fine().err.contains("every page of it wiped"));
    good.runs_on();
}

#[test]
fn a_second_snapshot_at_the_same_time_is_refused_until_the_first_is_done() {
    let name = "a_second_snapshot_at_the_same_time_is_refused_until_the_first_is_done";
    if kvm(name).is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    // A manager that asks for an image and takes nothing: the socket is full long before its end.
    let mut idle = UnixStream::connect(&guest.sock).unwrap();
    std::io::Write::write_all(&mut idle, &frame(7, 0, 0, 0)).unwrap();
    let image = home.path("image");
    let mut second = pageveil(&["snapshot", &guest.sock, &image]);
    until("the first has begun", || {
        if second.code == Some(0) {
            second = pageveil(&["snapshot", &guest.sock, &image]);
        }
        second.code != Some(0)
    });
    second.refused(&[&image, "another snapshot is being taken; try again when it is done"]);
    second.refused(&["what was there before is untouched, the guest runs on"]);
    guest.runs_on();
    drop(idle);
    until("the first is over", || pageveil(&["snapshot", &guest.sock, &image]).code == Some(0));
    pageveil(&["verify", &image, "--key-file", &home.path("key")]).fine();
    guest.runs_on();
}

#[test]
fn two_snapshots_through_the_library_are_refused_by_name() {
    let Some(kvm) = kvm("two_snapshots_through_the_library_are_refused_by_name") else { return };
    let program = Program::new(Mode::Counter, &ENTROPY);
    let vm = TrustedVm::boot(&kvm, &RootKey::new([9; 32]), VmId([5; 16]), PAGES, &program).unwrap();
    /// Takes another snapshot in the middle of one.
    struct Within<'v>(&'v TrustedVm, bool);
    impl std::io::Write for Within<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let second = self.0.snapshot(&mut Vec::new());
            self.1 = matches!(second, Err(SnapshotError::Busy));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    vm.start().unwrap();
    let mut sink = Within(&vm, false);
    vm.snapshot(&mut sink).unwrap();
    assert!(sink.1, "the second is refused while the first is taken");
    vm.machine().stop();
}

#[test]
fn a_read_that_runs_off_the_end_is_refused_and_the_conversation_goes_on() {
    let name = "a_read_that_runs_off_the_end_is_refused_and_the_conversation_goes_on";
    if kvm(name).is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let mut client = Client::connect(Path::new(&guest.sock)).unwrap();
    let pages = PAGES as u64;
    for (first, count) in [(pages - 2, 4), (pages, 1), (u64::MAX, 1), (u64::MAX - 1, 64)] {
        let refused = client.read(first, count).unwrap_err().to_string();
        assert!(refused.contains("the guest has no page 0x"), "{refused}");
    }
    assert_eq!(client.read(pages - 2, 2).unwrap().len(), 2, "what is there can be read");
    assert!(client.write(gfn::SECRET, 0, b"mine").is_err(), "a private page takes no store");
    assert!(client.write(gfn::MAILBOX, 0, b"mine").is_err(), "it was opened for reading");
    assert!(client.write(gfn::MAILBOX, 4095, b"mine").is_err(), "over the end of a page");
    assert!(client.unmap(pages).is_err());
    assert_eq!(client.about().unwrap().pages, pages);
    guest.runs_on();
}

#[test]
fn a_table_too_small_for_the_guest_makes_no_vm() {
    let slots: Vec<Slot> = (1..PAGES).map(|_| Slot::new()).collect();
    let owners: Vec<Owner> = (0..PAGES).map(|_| Owner::new()).collect();
    let leases = [Lease::new()];
    let refused = Vm::new(VmConfig {
        number: VmNumber(1),
        epoch: Epoch(1),
        pages: PAGES as u64,
        slots: &slots,
        frames: Frames::new(&owners),
        leases: Leases::new(&leases),
        masks: &[],
        replicas_max: 1,
    });
    let refused = StartError::from(refused.expect_err("a row is missing"));
    let words = refused.to_string();
    assert!(words.contains("the guest has 2048 pages, the table only 2047 rows"), "{words}");
}
