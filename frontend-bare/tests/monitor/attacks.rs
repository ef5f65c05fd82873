//! What hypervisors try with tables, control blocks and operands.

use frontend_bare::calls;
use frontend_bare::exit_code::ExitCode;
use frontend_bare::vmcb::{Event, EventKind, Intercept, efer};

use crate::guest::{Guest, IMAGE, PAGES, SHUT_DOWN};
use crate::rig::{DEVICE, Missed, Rig, Size};

const SECRET: u64 = 0x5ec2_e700_0000_0005;
const INVALID_OPCODE: Option<u8> = Some(6);
const GENERAL_PROTECTION: Option<u8> = Some(13);
const HSAVE: u32 = 0xc001_0117;
const EFER: u32 = 0xc000_0080;

/// A launch comes to nothing, with this on the console, and what was taken is scrubbed.
fn is_not_launched(rig: &mut Rig, guest: Guest, reason: &str) {
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), None);
    let lines = &rig.machine.console;
    assert!(rig.said("guest 0 is stopped") && rig.said(reason), "{lines:?}");
    assert!((0..PAGES).all(|gfn| !rig.is_owned(guest.frame(gfn))));
    assert_eq!(rig.exit_code(guest), SHUT_DOWN);
}

#[test]
fn no_two_pages_of_an_image_are_in_one_frame() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    rig.propose(guest, 5, guest.frame(4));
    is_not_launched(&mut rig, guest, "page 0x5 was to be in frame 0x2c, which is");
}

#[test]
fn no_page_of_an_image_is_in_another_guests_frame() {
    let mut rig = Rig::new();
    let other = rig.with_secret(0, 3, SECRET);
    let guest = rig.make(Guest(1));
    rig.propose(guest, 5, other.frame(3));
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), None);
    assert!(rig.said("guest 1 is stopped: page 0x5 was to be in frame 0x2b"));
    assert!(rig.enter(other.block()));
    assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
}

#[test]
fn no_page_of_an_image_is_in_a_frame_of_the_monitors_or_of_none() {
    let Size { own, frames, .. } = Size::COMMON;
    for frame in [own.start, own.end - 1, frames, 0xfee00, DEVICE.start, DEVICE.end - 1] {
        let mut rig = Rig::new();
        let guest = rig.make(Guest(0));
        rig.propose(guest, 5, frame);
        is_not_launched(&mut rig, guest, &format!("page 0x5 was to be in frame {frame:#x}"));
    }
}

#[test]
fn what_is_no_memory_is_the_hypervisors_and_never_a_guests() {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, 3, SECRET);
    assert_eq!(rig.host_write(DEVICE.start, 0, 1), Ok(()));
    rig.propose(guest, 12, DEVICE.start);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_write(12, 0, SECRET), Err(Missed::Left));
    assert!(rig.said("page 0xc was to be in frame 0x1e0"));
    assert_eq!(rig.host_read(DEVICE.start, 0), Ok(1));
    // A guest that is not launched has it, if the hypervisor says so.
    let other = rig.make(Guest(1));
    rig.propose(other, 12, DEVICE.start);
    assert!(rig.enter(other.block()));
    assert_eq!(rig.guest_read(12, 0), Ok(1));
}

#[test]
fn tables_that_become_pages_of_the_image_lead_nowhere() {
    for level in 1..=4 {
        let mut rig = Rig::new();
        let guest = rig.make(Guest(0));
        rig.propose(guest, 2, guest.table(level));
        is_not_launched(&mut rig, guest, "page 0x3: nothing backs the page");
    }
}

#[test]
fn a_control_block_that_becomes_a_page_is_the_guests() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    rig.propose(guest, 2, guest.block());
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), Some(0));
    rig.guest_write(2, 0, SECRET).unwrap();
    rig.guest_write(2, 0x70 / 8, SECRET).unwrap();
    rig.interrupt();
    assert_eq!(rig.machine.word(guest.block(), 0x70 / 8), SECRET, "nothing was written to it");
    assert_eq!(rig.svm(Intercept::Vmrun, guest.block() << 12), GENERAL_PROTECTION);
    assert_ne!(rig.host_read(guest.block(), 0), Ok(SECRET));
}

#[test]
fn maps_that_become_pages_are_read_no_more() {
    for (frame, field) in [(2, "IoMap"), (4, "IoMap"), (5, "MsrMap"), (6, "MsrMap")] {
        let mut rig = Rig::new();
        let guest = rig.make(Guest(0));
        rig.propose(guest, 2, frame);
        assert!(rig.enter(guest.block()));
        assert_eq!(rig.launch(), Some(0));
        rig.guest_write(2, 0, SECRET).unwrap();
        rig.interrupt();
        assert!(!rig.enter(guest.block()));
        assert_eq!(rig.exit_code(guest), ExitCode::Invalid);
        assert!(rig.said(&format!("VMRUN: {field}: NotReadable")));
    }
}

#[test]
fn pages_of_a_launched_guest_are_not_swapped() {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, 3, SECRET);
    rig.propose(guest, 3, guest.frame(4));
    rig.propose(guest, 4, guest.frame(3));
    // It does not ask while it has them.
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
    rig.interrupt();
    rig.host_read(guest.frame(3), 0).unwrap();
    rig.host_read(guest.frame(4), 0).unwrap();
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Err(Missed::Left));
    assert!(rig.said("page 0x3 was to be in frame 0x2c"));
    assert!(rig.is_scrubbed(guest));
}

#[test]
fn a_guest_that_is_not_launched_reaches_no_frame_that_it_must_not() {
    let mut rig = Rig::new();
    let other = rig.with_secret(0, 3, SECRET);
    let spy = rig.make(Guest(1));
    for frame in [other.frame(3), Size::COMMON.own.start, Size::COMMON.own.end - 1] {
        rig.propose(spy, 9, frame);
        assert!(rig.enter(spy.block()));
        assert_eq!(rig.guest_read(9, 0), Err(Missed::Left));
        assert_eq!(rig.exit_code(spy), SHUT_DOWN);
        rig.make(spy);
    }
    // Sealed, it is still no other's.
    rig.host_read(other.frame(3), 0).unwrap();
    rig.propose(spy, 9, other.frame(3));
    assert!(rig.enter(spy.block()));
    assert_eq!(rig.guest_write(9, 0, 1), Err(Missed::Left));
}

#[test]
fn a_spy_that_remembers_a_page_forgets_it_when_it_becomes_anothers() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    let spy = rig.make(Guest(1));
    rig.propose(spy, 9, guest.frame(3));
    assert!(rig.enter(spy.block()));
    assert_eq!(rig.guest_read(9, 511), Ok(0x103));
    rig.guest_write(9, 1, 1).unwrap();
    rig.interrupt();
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), Some(0));
    rig.guest_write(3, 0, SECRET).unwrap();
    rig.interrupt();
    rig.change_block(spy.block(), |block| block.control.tlb_control = 0);
    assert!(rig.enter(spy.block()));
    assert_eq!(rig.guest_read(9, 0), Err(Missed::Left));
}

#[test]
fn a_spy_that_has_a_frame_mapped_loses_it_to_a_guest_that_was_launched_before() {
    for is_moved in [false, true] {
        let mut rig = Rig::new();
        let guest = rig.with_secret(0, 3, SECRET);
        let spy = rig.make(Guest(1));
        rig.propose(spy, 9, guest.spare(0));
        if is_moved {
            rig.host_copy(guest.frame(3), guest.spare(0));
            rig.propose(guest, 3, guest.spare(0));
        } else {
            rig.propose(guest, 12, guest.spare(0));
        }
        assert!(rig.enter(spy.block()));
        rig.guest_read(9, 1).unwrap();
        rig.interrupt();
        // The guest has the frame from now on, and the tables for the spy are as they were.
        assert!(rig.enter(guest.block()));
        rig.guest_write(if is_moved { 3 } else { 12 }, 1, SECRET).unwrap();
        rig.interrupt();
        rig.change_block(spy.block(), |block| block.control.tlb_control = 0);
        assert!(rig.enter(spy.block()));
        assert_eq!(rig.guest_read(9, 1), Err(Missed::Left));
        assert!(rig.said("a guest's page in frame"));
    }
}

#[test]
fn guests_that_are_not_launched_find_their_own_pages_too() {
    let mut rig = Rig::new();
    let guests = [0, 1].map(|number| rig.make(Guest(number)));
    for guest in guests {
        rig.host_write(guest.frame(3), 0, guest.0).unwrap();
        rig.change_block(guest.block(), |block| block.control.tlb_control = 0);
    }
    for guest in guests.into_iter().cycle().take(5) {
        assert!(rig.enter(guest.block()));
        assert_eq!(rig.guest_read(3, 0), Ok(guest.0));
        rig.interrupt();
    }
    // What the hypervisor changes shows when it has it forgotten.
    let guest = guests[0];
    rig.propose(guest, 3, guest.frame(4));
    rig.change_block(guest.block(), |block| block.control.tlb_control = 3);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 511), Ok(0x104));
    rig.interrupt();
    rig.propose(guest, 3, guest.frame(5));
    rig.change_block(guest.block(), |block| block.control.tlb_control = 0);
    assert_eq!(rig.svm(Intercept::Invlpga, 3 << 12), None);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 511), Ok(0x105));
}

#[test]
fn a_launched_guest_does_not_find_what_another_remembers() {
    let mut rig = Rig::new();
    let first = rig.with_secret(0, 3, SECRET);
    let second = rig.with_secret(1, 3, SECRET + 1);
    for _ in 0..3 {
        for (guest, secret) in [(first, SECRET), (second, SECRET + 1)] {
            rig.change_block(guest.block(), |block| block.control.tlb_control = 0);
            assert!(rig.enter(guest.block()));
            assert_eq!(rig.guest_read(3, 0), Ok(secret));
            rig.interrupt();
        }
    }
}

#[test]
fn operands_lead_to_the_hypervisors_own_memory_alone() {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, 3, SECRET);
    rig.host_read(guest.frame(4), 0).unwrap();
    let own = Size::COMMON.own;
    let addresses = [
        own.start << 12,
        (own.end - 1) << 12,
        guest.frame(3) << 12,
        guest.frame(4) << 12,
        Size::COMMON.frames << 12,
        0xfee0_0000,
        (guest.spare(0) << 12) + 8,
        (guest.spare(0) << 12) + 2048,
        u64::MAX << 12,
        u64::MAX,
    ];
    for address in addresses {
        for by in [Intercept::Vmrun, Intercept::Vmload, Intercept::Vmsave] {
            let rip = rig.cpu().0.save.rip;
            assert_eq!(rig.svm(by, address), GENERAL_PROTECTION, "{by:?} of {address:#x}");
            assert_eq!(rig.cpu().0.save.rip, rip);
        }
        rig.write_msr(HSAVE, address);
        assert_eq!(rig.raised(), GENERAL_PROTECTION);
        assert_eq!(rig.read_msr(HSAVE), 0);
    }
    rig.write_msr(HSAVE, guest.spare(0) << 12);
    assert_eq!(rig.raised(), None);
    assert_eq!(rig.read_msr(HSAVE), guest.spare(0) << 12);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
    assert_eq!(rig.guest_read(4, 511), Ok(0x104));
}

#[test]
fn instructions_at_the_end_of_all_addresses_do_no_harm() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    rig.cpu().0.save.rip = u64::MAX - 2;
    assert_eq!(rig.svm(Intercept::Vmload, guest.block() << 12), None);
    assert_eq!(rig.cpu().0.save.rip, 0);
    rig.cpu().0.save.rip = u64::MAX;
    assert!(rig.enter(guest.block()));
    rig.cpu().0.save.rip = u64::MAX;
    assert_eq!(rig.call(calls::LAUNCH, [0; 3]), Some(2));
}

#[test]
fn without_svme_there_is_no_svm() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    let on = rig.read_msr(EFER);
    assert_eq!(on & efer::SVME, efer::SVME);
    rig.write_msr(EFER, on & !efer::SVME);
    assert_eq!(rig.read_msr(EFER) & efer::SVME, 0);
    assert_eq!(rig.cpu().0.save.efer & efer::SVME, efer::SVME, "for the CPU it stays on");
    for by in [
        Intercept::Vmrun,
        Intercept::Vmload,
        Intercept::Vmsave,
        Intercept::Stgi,
        Intercept::Clgi,
        Intercept::Invlpga,
        Intercept::Skinit,
        Intercept::Vmmcall,
    ] {
        assert_eq!(rig.svm(by, guest.block() << 12), INVALID_OPCODE, "{by:?}");
    }
    rig.write_msr(EFER, on);
    assert!(rig.enter(guest.block()));
}

#[test]
fn the_monitors_memory_is_nobodys_but_the_monitors() {
    let mut rig = Rig::new();
    let own = Size::COMMON.own;
    for frame in [own.start, own.start + 20, own.end - 1] {
        assert_eq!(rig.host_read(frame, 0), Err(Missed::Raised(13)));
        assert_eq!(rig.host_write(frame, 0, 0), Err(Missed::Raised(13)));
    }
    for frame in [own.start - 1, own.end, Size::COMMON.frames - 1] {
        assert_eq!(rig.host_write(frame, 0, 1), Ok(()));
        assert_eq!(rig.host_read(frame, 0), Ok(1));
    }
}

#[test]
fn what_was_being_delivered_to_the_hypervisor_is_delivered_again() {
    let mut rig = Rig::new();
    let kinds = [(EventKind::Interrupt, true), (EventKind::SoftwareInterrupt, false)];
    for (frame, (kind, again)) in (700..).zip(kinds) {
        let event = Event::new(kind, 0x41, None);
        rig.cpu().0.control.exit_event = event;
        rig.exit(ExitCode::NestedPageFault, [1 << 32 | 6, frame << 12]);
        let expected = if again { event } else { Event::NONE };
        assert_eq!(rig.cpu().0.control.event, expected);
    }
}

#[test]
fn a_hypervisor_that_has_everything_mapped_in_the_large_loses_what_is_a_guests() {
    let mut rig = Rig::new();
    // All 512 frames around these are its own, and come at once.
    assert_eq!(rig.host_read(600, 0), Ok(0));
    let flushes = rig.machine.flushes;
    assert_eq!(rig.host_write(1000, 0, 1), Ok(()));
    assert_eq!(rig.machine.flushes, flushes);
    let guest = rig.make(Guest(0));
    for gfn in 0..IMAGE {
        rig.propose(guest, gfn, 700 + gfn);
    }
    rig.host_write(700 + 3, 0, SECRET).unwrap();
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), Some(0));
    assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
    rig.interrupt();
    assert_ne!(rig.host_read(703, 0), Ok(SECRET));
    assert_eq!(rig.host_read(1000, 0), Ok(1));
    assert_eq!(rig.host_read(710, 0), Ok(0));
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
}

/// What the monitor cannot wipe and seal backs no page: a guest would keep secrets there in plain.
#[test]
fn a_frame_that_the_monitor_does_not_reach_backs_no_page() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    rig.propose(guest, 3, 0);
    is_not_launched(&mut rig, guest, "page 0x3 was to be in frame 0x0");
    let mut rig = Rig::new();
    let guest = rig.launched(0);
    rig.interrupt();
    rig.propose(guest, IMAGE, 0);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_write(IMAGE, 0, SECRET), Err(Missed::Left));
    assert!(rig.said("was to be in frame 0x0"));
}

/// INVD would bring back what was in memory before the monitor sealed or wiped it.
#[test]
fn caches_are_written_back_and_never_dropped() {
    let mut rig = Rig::new();
    assert!(rig.cpu().0.control.intercepts.has(Intercept::Invd));
    rig.exit_by(Intercept::Invd, [0; 2], 2);
    assert_eq!((rig.machine.written_back, rig.raised()), (1, None));
    let guest = rig.make(Guest(0));
    assert!(rig.enter(guest.block()));
    assert!(rig.cpu().0.control.intercepts.has(Intercept::Invd));
}

/// A bit behind the CPU's addresses may stand for encryption, and every frame be there once more.
#[test]
fn an_address_that_the_cpu_has_not_leads_nowhere() {
    let mut rig = Rig::new();
    rig.exit(ExitCode::NestedPageFault, [1 << 32 | 1 << 2, 1 << 41 | 0x5000]);
    assert_eq!(rig.raised(), GENERAL_PROTECTION);
    let guest = rig.make(Guest(0));
    rig.propose(guest, 3, 1 << 29 | 5);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Err(Missed::Left));
    assert_eq!(rig.exit_code(guest), SHUT_DOWN);
}
