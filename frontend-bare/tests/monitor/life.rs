//! Guests come and go: launch and what it measures, the end, and what is left of it.

use frontend_bare::calls::{self, Answer};
use frontend_bare::context::gather;
use frontend_bare::exit_code::ExitCode;
use frontend_bare::monitor::{End, GUESTS};
use frontend_bare::vmcb::Intercept;
use sha2::{Digest, Sha256};
use view_core::PageKind;

use crate::guest::{Guest, IMAGE, PAGES, SHUT_DOWN};
use crate::rig::{Missed, Rig};

const SECRET: u64 = 0x5ec2_e700_0000_0002;

/// The measurement on the console.
fn measured(rig: &Rig) -> String {
    let line = rig.machine.console.iter().rev().find(|line| line.contains("is launched"));
    line.unwrap().rsplit(' ').next().unwrap().to_owned()
}

/// The same, made here of what the guest is.
fn expected(rig: &mut Rig, guest: Guest, [first, count, pages]: [u64; 3]) -> String {
    let mut hash = Sha256::new();
    hash.update(b"PVlaunc1");
    for number in [first, count, pages] {
        hash.update(number.to_le_bytes());
    }
    let (vmcb, switched) = rig.cpu();
    let mut save = vmcb.save.clone();
    save.rax = calls::LAUNCH;
    let mut general = switched.general.clone();
    (general.rbx, general.rcx, general.rdx) = (first, count, pages);
    for word in gather(&save, &general).words() {
        hash.update(word.to_le_bytes());
    }
    for gfn in first..first + count {
        hash.update(gfn.to_le_bytes());
        hash.update([PageKind::MEMORY.0]);
        hash.update(rig.machine.page(guest.frame(gfn)).unwrap().bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Launches a guest that something was done to, and says what was measured.
fn measure(change: impl FnOnce(&mut Rig, Guest), image: [u64; 3]) -> String {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    change(&mut rig, guest);
    assert!(rig.enter(guest.block()));
    let expected = expected(&mut rig, guest, image);
    assert_eq!(rig.call(calls::LAUNCH, image), Some(0));
    assert_eq!(measured(&rig), expected);
    expected
}

#[test]
fn the_measurement_is_of_image_registers_and_geometry() {
    let plain = measure(|_, _| {}, [0, IMAGE, PAGES]);
    let again = measure(|_, _| {}, [0, IMAGE, PAGES]);
    assert_eq!(plain, again);
    let others = [
        measure(|_, _| {}, [0, IMAGE, PAGES - 1]),
        measure(|_, _| {}, [0, IMAGE - 1, PAGES]),
        measure(|_, _| {}, [1, IMAGE - 1, PAGES]),
        measure(|rig, guest| rig.host_write(guest.frame(7), 300, 1).unwrap(), [0, IMAGE, PAGES]),
        measure(
            |rig, guest| rig.change_block(guest.block(), |block| block.save.rflags |= 1 << 10),
            [0, IMAGE, PAGES],
        ),
        measure(
            |rig, guest| rig.change_block(guest.block(), |block| block.save.cs.limit = 0xffff),
            [0, IMAGE, PAGES],
        ),
        measure(
            |rig, guest| {
                assert!(rig.enter(guest.block()));
                rig.cpu().1.general.r15 = 1;
                rig.interrupt();
            },
            [0, IMAGE, PAGES],
        ),
    ];
    for other in others {
        assert_ne!(other, plain);
    }
}

#[test]
fn what_is_behind_the_image_is_not_measured() {
    let plain = measure(|_, _| {}, [0, IMAGE, PAGES]);
    let change = |rig: &mut Rig, guest: Guest| rig.host_write(guest.frame(IMAGE), 0, 1).unwrap();
    assert_eq!(measure(change, [0, IMAGE, PAGES]), plain);
}

#[test]
fn a_guest_reads_its_own_record() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    assert!(rig.enter(guest.block()));
    let expected = expected(&mut rig, guest, [0, IMAGE, PAGES]);
    assert_eq!(rig.launch(), Some(0));
    assert_eq!(rig.call(calls::RECORD, [9, 0, 0]), Some(Answer::Done as u64));
    let words: Vec<_> = (0..8).map(|index| rig.guest_read(9, index).unwrap()).collect();
    let bytes: Vec<_> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(&bytes[..8], b"PVlaunc1");
    let measurement: String = bytes[8..40].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(measurement, expected);
    assert_eq!(words[5..], [0, IMAGE, PAGES]);
    // Not where the hypervisor would find it.
    assert_eq!(rig.call(calls::SHARE, [9, 1, 0]), Some(0));
    assert_eq!(rig.call(calls::RECORD, [9, 0, 0]), Some(Answer::State as u64));
}

#[test]
fn the_end_scrubs_every_frame_and_the_hypervisor_has_them_back() {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, 3, SECRET);
    assert!(rig.enter(guest.block()));
    rig.guest_write(12, 1, SECRET).unwrap();
    assert_eq!(rig.call(calls::END, [0; 3]), None);
    assert_eq!(rig.exit_code(guest), SHUT_DOWN);
    let block = rig.block(guest.block());
    assert_eq!((block.save.rip, block.save.rax, block.save.cs.limit), (0, 0, 0));
    for gfn in 0..IMAGE {
        assert_eq!(rig.host_read(guest.frame(gfn), 0), Ok(0));
        assert_eq!(rig.host_write(guest.frame(gfn), 0, gfn), Ok(()));
    }
    assert!(!rig.is_owned(guest.frame(12)));
    assert_eq!(rig.machine.find(SECRET, |_| false), None);
    assert!(rig.said("guest 0 has ended"));
}

#[test]
fn frames_of_a_guest_that_ended_serve_the_next() {
    let mut rig = Rig::new();
    for round in 0..2 * GUESTS as u64 {
        let guest = rig.launched(0);
        assert_eq!(rig.guest_read(3, 0), Ok(0), "nothing is left of the last one");
        rig.guest_write(3, 0, SECRET + round).unwrap();
        assert_eq!(rig.call(calls::END, [0; 3]), None);
        assert!(rig.is_scrubbed(guest));
    }
}

#[test]
fn when_the_hypervisor_shuts_down_all_is_scrubbed() {
    let mut rig = Rig::new();
    let guests = [0, 1, 2].map(|number| rig.with_secret(number, 3, SECRET + number));
    rig.host_read(guests[1].frame(3), 0).unwrap();
    rig.host_write(guests[2].frame(3), 0, 0).unwrap();
    rig.exit(ExitCode::By(Intercept::Shutdown), [0; 2]);
    assert_eq!(rig.ended, Some(End::Shutdown));
    for (number, guest) in (0..).zip(guests) {
        assert_eq!(rig.machine.find(SECRET + number, |_| false), None);
        assert!((0..PAGES).all(|gfn| !rig.is_owned(guest.frame(gfn))));
    }
    assert!(rig.is_scrubbed(guests[0]) && rig.is_scrubbed(guests[1]));
}

#[test]
fn there_is_room_for_so_many_guests_and_no_more() {
    let mut rig = Rig::new();
    let count = GUESTS as u64;
    for number in 0..count {
        let _ = rig.with_secret(number, 3, SECRET + number);
    }
    let last = rig.make(Guest(count));
    assert!(rig.enter(last.block()));
    assert_eq!(rig.launch(), Some(Answer::NoRoom as u64));
    assert_eq!(rig.guest_read(3, 511), Ok(0x103), "it goes on as it is");
    rig.interrupt();
    assert!(rig.enter(Guest(1).block()));
    assert_eq!(rig.guest_read(3, 0), Ok(SECRET + 1));
    assert_eq!(rig.call(calls::END, [0; 3]), None);
    assert!(rig.enter(last.block()));
    assert_eq!(rig.launch(), Some(Answer::Done as u64));
}

#[test]
fn a_block_that_serves_another_guest_gives_the_launched_one_up() {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, 3, SECRET);
    let next = rig.make(Guest(1));
    let page = rig.host_read_page(next.block()).unwrap();
    rig.host_write_page(guest.block(), &page).unwrap();
    assert!(rig.enter(guest.block()));
    assert!(rig.said("guest 0 was given up"));
    assert!(rig.is_scrubbed(guest));
    assert_eq!(rig.machine.find(SECRET, |_| false), None);
    assert_eq!(rig.guest_read(3, 511), Ok(0x103), "the other one runs");
}

#[test]
fn a_page_of_the_image_without_a_frame_is_asked_for() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    rig.propose_entry(guest, 5, 0);
    rig.propose_entry(guest, 6, guest.frame(6) << 12 | 5);
    assert!(rig.enter(guest.block()));
    for gfn in [5, 6] {
        assert_eq!(rig.launch(), None);
        let control = rig.block(guest.block()).control;
        assert_eq!((control.exit_code, control.exit_info_2), (0x400, gfn << 12));
        assert!((0..PAGES).all(|gfn| !rig.is_owned(guest.frame(gfn))), "nothing has changed");
        rig.propose(guest, gfn, guest.frame(gfn));
        assert!(rig.enter(guest.block()));
    }
    assert_eq!(rig.launch(), Some(0));
}

#[test]
fn geometry_that_means_nothing_is_refused() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    assert!(rig.enter(guest.block()));
    let operand = Some(Answer::Operand as u64);
    for image in [
        [0, 0, PAGES],
        [0, PAGES + 1, PAGES],
        [PAGES, 1, PAGES],
        [u64::MAX, 2, PAGES],
        [1, u64::MAX, PAGES],
        [0, 1, u64::MAX],
        [0, 1, 65],
        [0, 0, 0],
    ] {
        assert_eq!(rig.call(calls::LAUNCH, image), operand, "{image:x?}");
    }
    assert_eq!(rig.launch(), Some(0));
    assert_eq!(rig.launch(), Some(Answer::Launch as u64), "once only");
}

#[test]
fn a_guest_that_was_stopped_while_its_hypervisor_ran_is_found_shut_down_once() {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, 3, SECRET);
    rig.host_read(guest.frame(3), 0).unwrap();
    rig.propose(guest, 3, guest.frame(4));
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Err(Missed::Left));
    assert_eq!(rig.exit_code(guest), SHUT_DOWN);
    let guest = rig.launched(0);
    assert_eq!(rig.guest_read(3, 511), Ok(0x103));
    rig.interrupt();
    assert!(rig.enter(guest.block()));
}

#[test]
fn a_frame_that_failed_one_guest_serves_the_next() {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, 3, SECRET);
    rig.host_write(guest.frame(3), 0, 0xbad).unwrap();
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Err(Missed::Left));
    assert!(rig.said("page 0x3 came back as something else"));
    assert!(rig.is_scrubbed(guest));
    let next = rig.launched(0);
    assert!(rig.is_owned(next.frame(3)));
    assert_eq!(rig.guest_read(3, 511), Ok(0x103));
}
