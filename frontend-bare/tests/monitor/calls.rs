//! What launched guests ask of the monitor: to open pages and to close them.

use frontend_bare::calls::{self, Answer};
use frontend_bare::exit_code::ExitCode;
use frontend_bare::vmcb::{Intercept, TlbControl, Vmcb};

use crate::guest::{Guest, PAGES};
use crate::rig::{Missed, Rig};

const SECRET: u64 = 0x5ec2_e700_0000_0003;
const MAILBOX: u64 = 4;
const DONE: Option<u64> = Some(Answer::Done as u64);

fn started() -> (Rig, Guest) {
    let mut rig = Rig::new();
    let guest = rig.launched(0);
    rig.guest_write(3, 0, SECRET).unwrap();
    (rig, guest)
}

#[test]
fn a_mailbox_goes_both_ways_until_it_is_closed() {
    let (mut rig, guest) = started();
    rig.guest_write(MAILBOX, 0, 0x1111).unwrap();
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 3, 0]), DONE);
    rig.interrupt();
    assert_eq!(rig.host_read(guest.frame(MAILBOX), 0), Ok(0x1111));
    rig.host_write(guest.frame(MAILBOX), 1, 0x2222).unwrap();
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(MAILBOX, 1), Ok(0x2222));
    rig.guest_write(MAILBOX, 0, 0x3333).unwrap();
    rig.interrupt();
    assert_eq!(rig.host_read(guest.frame(MAILBOX), 0), Ok(0x3333));
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.call(calls::UNSHARE, [MAILBOX, 0, 0]), DONE);
    rig.guest_write(MAILBOX, 0, SECRET + 1).unwrap();
    assert_eq!(rig.guest_read(MAILBOX, 1), Ok(0x2222));
    rig.interrupt();
    // The hypervisor still has its mapping, as far as it knows.
    assert_ne!(rig.host_read(guest.frame(MAILBOX), 0), Ok(SECRET + 1));
    assert_eq!(rig.machine.find(SECRET + 1, |_| false), None);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(MAILBOX, 0), Ok(SECRET + 1));
}

#[test]
fn a_mapping_of_an_open_page_to_write_is_gone_when_it_is_closed() {
    let (mut rig, guest) = started();
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 3, 0]), DONE);
    rig.interrupt();
    rig.host_write(guest.frame(MAILBOX), 1, 1).unwrap();
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.call(calls::UNSHARE, [MAILBOX, 0, 0]), DONE);
    rig.guest_write(MAILBOX, 1, SECRET).unwrap();
    rig.interrupt();
    rig.host_write(guest.frame(MAILBOX), 1, 2).unwrap();
    assert!(!rig.is_owned(guest.frame(MAILBOX)));
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(MAILBOX, 1), Err(Missed::Left), "2 must not get there");
    assert!(rig.said("page 0x4 came back as something else"));
}

#[test]
fn a_page_that_is_open_to_be_read_is_not_written() {
    let (mut rig, guest) = started();
    rig.guest_write(MAILBOX, 0, 0x1111).unwrap();
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 1, 0]), DONE);
    rig.interrupt();
    assert_eq!(rig.host_read(guest.frame(MAILBOX), 0), Ok(0x1111));
    rig.host_write(guest.frame(MAILBOX), 1, 0x2222).unwrap();
    assert_ne!(rig.host_read(guest.frame(MAILBOX), 0), Ok(0x1111), "a sealed copy, and its own");
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(MAILBOX, 0), Err(Missed::Left));
    assert!(rig.said("page 0x4 came back as something else"));
}

#[test]
fn pages_are_opened_and_closed_only_as_it_makes_sense() {
    let (mut rig, _) = started();
    let operand = Some(Answer::Operand as u64);
    let state = Some(Answer::State as u64);
    assert_eq!(rig.call(calls::UNSHARE, [MAILBOX, 0, 0]), state, "it is not open");
    for operands in [
        [PAGES, 1, 0],
        [u64::MAX, 1, 0],
        [MAILBOX, 0, 0],
        [MAILBOX, 2, 0],
        [MAILBOX, u64::MAX, 0],
        [MAILBOX, 1, 2],
    ] {
        assert_eq!(rig.call(calls::SHARE, operands), operand, "{operands:x?}");
    }
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 1, 1]), DONE);
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 1, 0]), state, "it is open");
    assert_eq!(rig.call(0x5056_0006, [0; 3]), Some(Answer::NoSuchCall as u64));
    for gfn in 5..8 {
        assert_eq!(rig.call(calls::SHARE, [gfn, 3, 0]), DONE);
    }
    assert_eq!(rig.call(calls::SHARE, [2, 3, 0]), Some(Answer::NoRoom as u64));
    assert_eq!(rig.call(calls::UNSHARE, [5, 0, 0]), DONE);
    assert_eq!(rig.call(calls::SHARE, [2, 3, 0]), DONE);
}

#[test]
fn a_page_that_is_out_is_brought_in_to_be_opened() {
    let (mut rig, guest) = started();
    rig.guest_write(MAILBOX, 0, 0x1111).unwrap();
    rig.interrupt();
    rig.host_read(guest.frame(MAILBOX), 0).unwrap();
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 1, 0]), DONE);
    // One that has no frame at all is asked for first, and the guest calls again.
    rig.interrupt();
    rig.propose_entry(guest, 12, 0);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.call(calls::SHARE, [12, 1, 0]), None);
    let control = rig.block(guest.block()).control;
    assert_eq!((control.exit_code, control.exit_info_2), (0x400, 12 << 12));
    rig.propose(guest, 12, guest.frame(12));
    assert!(rig.enter(guest.block()));
    let (vmcb, switched) = rig.cpu();
    assert_eq!((vmcb.save.rax, switched.general.rbx), (calls::SHARE, 12));
    assert_eq!(rig.call(calls::SHARE, [12, 1, 0]), DONE);
    rig.interrupt();
    assert_eq!(rig.host_read(guest.frame(MAILBOX), 0), Ok(0x1111));
}

#[test]
fn only_a_kernel_calls() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    assert!(rig.enter(guest.block()));
    rig.cpu().0.save.cpl = 3;
    let privilege = Some(Answer::Privilege as u64);
    assert_eq!(rig.launch(), privilege);
    rig.cpu().0.save.cpl = 0;
    assert_eq!(rig.launch(), Some(0));
    rig.cpu().0.save.cpl = 3;
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 3, 0]), privilege);
    assert_eq!(rig.call(calls::END, [0; 3]), privilege);
}

#[test]
fn a_guest_that_is_not_launched_has_no_other_call() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    assert!(rig.enter(guest.block()));
    let launch = Some(Answer::Launch as u64);
    for call in [calls::SHARE, calls::UNSHARE, calls::RECORD, calls::END, 0x5056_ffff] {
        assert_eq!(rig.call(call, [MAILBOX, 1, 0]), launch);
    }
    // What is not the monitor's is the hypervisor's.
    rig.cpu().0.save.rax = 0x5057_0000;
    rig.exit_by(Intercept::Vmmcall, [0; 2], 3);
    assert_eq!(rig.exit_code(guest), ExitCode::By(Intercept::Vmmcall));
}

#[test]
fn a_guest_does_not_reach_what_another_opened() {
    let (mut rig, guest) = started();
    assert_eq!(rig.call(calls::SHARE, [MAILBOX, 3, 0]), DONE);
    rig.interrupt();
    let other = rig.make(Guest(1));
    rig.propose(other, 9, guest.frame(MAILBOX));
    assert!(rig.enter(other.block()));
    assert_eq!(rig.guest_read(9, 0), Err(Missed::Left));
    assert!(rig.said("a guest's page in frame"));
}

/// As long as the hypervisor's tables lead to it, and has nothing forgotten, it stays open.
#[test]
fn a_page_that_is_open_until_it_is_unmapped_is_closed_then() {
    for (until, closed) in [(1, true), (0, false)] {
        let (mut rig, guest) = started();
        rig.guest_write(MAILBOX, 0, 0x1111).unwrap();
        assert_eq!(rig.call(calls::SHARE, [MAILBOX, 3, until]), DONE);
        rig.interrupt();
        let forgets = |vmcb: &mut Vmcb| vmcb.control.tlb_control = TlbControl::FlushAll as u32;
        rig.change_block(guest.block(), forgets);
        assert!(rig.enter(guest.block()));
        rig.interrupt();
        assert_eq!(rig.host_read(guest.frame(MAILBOX), 0), Ok(0x1111), "it is mapped");
        rig.propose_entry(guest, MAILBOX, 0);
        rig.change_block(guest.block(), forgets);
        assert!(rig.enter(guest.block()));
        rig.interrupt();
        let read = rig.host_read(guest.frame(MAILBOX), 0);
        assert_eq!(read != Ok(0x1111), closed, "open until {until}");
        assert!(rig.is_owned(guest.frame(MAILBOX)));
    }
}
