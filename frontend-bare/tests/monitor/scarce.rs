//! Frames for the monitor's tables are few: a guest that makes it use many takes none from others.

use crate::guest::{Guest, IMAGE, SHUT_DOWN};
use crate::rig::{Rig, Size};

const SECRET: u64 = 0x5ec2_e700_0000_0006;

/// How far apart pages are that share no table but the root.
const FAR: u64 = 1 << 27;

/// A launched guest whose pages are where the hypervisor never was, stopped.
fn victim(rig: &mut Rig) -> Guest {
    let guest = rig.make(Guest(0));
    for gfn in 0..IMAGE {
        rig.propose(guest, gfn, 700 + gfn);
    }
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), Some(0));
    rig.guest_write(3, 0, SECRET).unwrap();
    rig.interrupt();
    guest
}

/// A guest whose root leads to the same tables by each of its entries.
fn spread(rig: &mut Rig) -> Guest {
    let guest = rig.make(Guest(1));
    for index in 0..512 {
        rig.host_write(guest.table(4), index, guest.table(3) << 12 | 7).unwrap();
    }
    rig.host_write(guest.frame(9), 0, 9).unwrap();
    guest
}

/// It touches pages for which the monitor needs three tables each.
fn touch(rig: &mut Rig, guest: Guest, count: u64) {
    assert!(rig.enter(guest.block()));
    for far in 0..count {
        assert_eq!(rig.guest_read(far * FAR + 9, 0), Ok(9), "{far}");
    }
    rig.interrupt();
}

#[test]
fn a_guest_of_many_tables_leaves_others_theirs() {
    for tables in 60..=62 {
        for count in 12..20 {
            let mut rig = Rig::of(&Size { tables, ..Size::COMMON });
            let victim = victim(&mut rig);
            let spread = spread(&mut rig);
            touch(&mut rig, spread, count);
            assert_ne!(rig.host_read(703, 0), Ok(SECRET));
            assert_eq!(rig.host_read(spread.frame(9), 0), Ok(9));
            assert!(rig.enter(victim.block()), "{:?}", rig.machine.console);
            assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
            assert_eq!(rig.guest_write(12, 0, SECRET), Ok(()));
            assert_eq!(rig.machine.console.len(), 1, "launched, and nothing since");
        }
    }
}

#[test]
fn guests_are_launched_while_another_has_many_tables() {
    let mut rig = Rig::new();
    let spread = spread(&mut rig);
    touch(&mut rig, spread, 99);
    let guest = victim(&mut rig);
    touch(&mut rig, spread, 99);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
}

#[test]
fn a_machine_of_many_large_pages_is_the_hypervisors_to_the_last() {
    let size = Size { frames: 512 * 48, own: 512 * 47..512 * 47 + 64, tables: 60 };
    let mut rig = Rig::of(&size);
    let guest = rig.make(Guest(0));
    for round in 0..46 {
        // One frame of a large page becomes a guest's, and all others need a table of their own.
        let frame = 512 * (round + 1) + 7;
        if round == 0 {
            rig.propose(guest, 3, frame);
            assert!(rig.enter(guest.block()));
            assert_eq!(rig.launch(), Some(0));
            rig.guest_write(3, 0, SECRET).unwrap();
            rig.interrupt();
        } else {
            rig.host_copy(512 * round + 7, frame);
            rig.propose(guest, 3, frame);
            assert!(rig.enter(guest.block()), "{round}");
            assert_eq!(rig.guest_read(3, 0), Ok(SECRET));
            rig.interrupt();
        }
        assert_eq!(rig.host_write(frame + 1, 0, round), Ok(()));
    }
}

#[test]
fn a_page_that_no_table_leads_to_is_the_hypervisors_business() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    assert!(rig.enter(guest.block()));
    // Four levels lead to 48 bits of an address, the highest of which is not to be left out.
    let beyond = 1 << 36 | 3;
    assert!(rig.guest_read(beyond, 0).is_err());
    let control = rig.block(guest.block()).control;
    assert_eq!((control.exit_code, control.exit_info_2), (0x400, beyond << 12));
}

/// A guest that was stopped while its hypervisor ran: no table is left through which that could see
/// the page.
fn stopped(rig: &mut Rig) -> Guest {
    let guest = rig.with_secret(0, 3, SECRET);
    assert_eq!(rig.host_read(guest.frame(3), 0), Ok(0));
    assert!(rig.said("guest 0 is stopped: a page cannot be shown"));
    assert!(rig.is_scrubbed(guest));
    guest
}

#[test]
fn a_guest_that_was_stopped_while_its_hypervisor_ran_is_found_shut_down() {
    let mut rig = Rig::of(&Size { tables: 7, ..Size::COMMON });
    let guest = stopped(&mut rig);
    assert!(!rig.enter(guest.block()));
    assert_eq!(rig.exit_code(guest), SHUT_DOWN);
    // Once: what the hypervisor makes there next runs.
    rig.make(guest);
    assert!(rig.enter(guest.block()));
}

#[test]
fn a_block_of_one_that_was_stopped_serves_another() {
    let mut rig = Rig::of(&Size { tables: 7, ..Size::COMMON });
    let guest = stopped(&mut rig);
    let next = rig.make(Guest(1));
    let page = rig.host_read_page(next.block()).unwrap();
    rig.host_write_page(guest.block(), &page).unwrap();
    assert!(rig.enter(guest.block()));
}
