//! What becomes of a launched guest's pages when its hypervisor touches, moves or forges them.

use view_core::{Ownership, Page};

use crate::guest::{Guest, IMAGE, PAGES, SHUT_DOWN};
use crate::rig::{Missed, Rig};

const SECRET: u64 = 0x5ec2_e700_0000_0001;
const PAGE: u64 = 3;

fn has(page: &Page, word: u64) -> bool {
    let (words, _) = page.bytes().as_chunks::<8>();
    words.contains(&word.to_le_bytes())
}

/// A guest with a secret in a page, stopped at an interrupt.
fn started() -> (Rig, Guest) {
    let mut rig = Rig::new();
    let guest = rig.with_secret(0, PAGE, SECRET);
    (rig, guest)
}

/// The guest has its page as it left it.
fn goes_on(rig: &mut Rig, guest: Guest) {
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(PAGE, 0), Ok(SECRET));
    assert_eq!(rig.guest_read(PAGE, 511), Ok(0x100 + PAGE));
}

/// The guest touches its page and is stopped for it, with this on the console.
fn is_stopped(rig: &mut Rig, guest: Guest, reason: &str) {
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(PAGE, 0), Err(Missed::Left));
    assert_eq!(rig.exit_code(guest), SHUT_DOWN);
    let lines = &rig.machine.console;
    assert!(rig.said("guest 0 is stopped") && rig.said(reason), "{lines:?}");
    assert!((0..PAGES).all(|gfn| !rig.is_owned(guest.frame(gfn))));
    assert!(
        (4..IMAGE).all(|gfn| rig.machine.page(guest.frame(gfn)).unwrap().bytes() == &[0; 4096])
    );
    assert_eq!(rig.machine.find(SECRET, |_| false), None);
}

#[test]
fn what_a_hypervisor_reads_is_sealed_and_fresh_each_time() {
    let (mut rig, guest) = started();
    let first = rig.host_read_page(guest.frame(PAGE)).unwrap();
    assert!(!has(&first, SECRET) && !has(&first, 0x100 + PAGE));
    let again = rig.host_read_page(guest.frame(PAGE)).unwrap();
    assert_eq!(first.bytes()[..], again.bytes()[..], "nothing happened in between");
    goes_on(&mut rig, guest);
    rig.interrupt();
    let second = rig.host_read_page(guest.frame(PAGE)).unwrap();
    assert_ne!(first.bytes()[..], second.bytes()[..]);
    goes_on(&mut rig, guest);
}

#[test]
fn a_hypervisor_that_remembers_a_plain_page_is_made_to_forget_it() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    for _ in 0..2 {
        // The second time the page is remembered as one to be written.
        assert_eq!(rig.host_read(guest.frame(PAGE), 511), Ok(0x100 + PAGE));
        rig.host_write(guest.frame(PAGE), 7, 7).unwrap();
    }
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), Some(0));
    rig.guest_write(PAGE, 0, SECRET).unwrap();
    rig.interrupt();
    assert_ne!(rig.host_read(guest.frame(PAGE), 0), Ok(SECRET));
    goes_on(&mut rig, guest);
    // And again after it remembers the sealed one.
    rig.guest_write(PAGE, 1, SECRET).unwrap();
    rig.interrupt();
    assert_ne!(rig.host_read(guest.frame(PAGE), 1), Ok(SECRET));
}

#[test]
fn a_hypervisor_that_writes_has_the_frame_and_not_the_guest() {
    let (mut rig, guest) = started();
    rig.host_write(guest.frame(PAGE), 0, 0xbad).unwrap();
    assert_eq!(rig.owner(guest.frame(PAGE)), Some(Ownership::Free));
    assert!(!has(&rig.host_read_page(guest.frame(PAGE)).unwrap(), SECRET));
    is_stopped(&mut rig, guest, "page 0x3 came back as something else");
}

#[test]
fn what_is_written_and_put_back_does_no_harm() {
    let (mut rig, guest) = started();
    let sealed = rig.host_read_page(guest.frame(PAGE)).unwrap();
    rig.host_write(guest.frame(PAGE), 0, 0xbad).unwrap();
    rig.host_write_page(guest.frame(PAGE), &sealed).unwrap();
    goes_on(&mut rig, guest);
}

#[test]
fn a_write_that_changes_nothing_does_no_harm() {
    for is_looked_at in [false, true] {
        let (mut rig, guest) = started();
        if is_looked_at {
            rig.host_read(guest.frame(PAGE), 0).unwrap();
        }
        rig.host_touch(guest.frame(PAGE)).unwrap();
        assert_eq!(rig.owner(guest.frame(PAGE)), Some(Ownership::Free));
        goes_on(&mut rig, guest);
    }
}

#[test]
fn a_page_goes_out_and_comes_in_through_another_frame() {
    let (mut rig, guest) = started();
    rig.host_copy(guest.frame(PAGE), guest.spare(0));
    // The hypervisor uses the old frame for something else.
    rig.host_write_page(guest.frame(PAGE), &Page::zeroed()).unwrap();
    rig.host_write(guest.frame(PAGE), 5, 55).unwrap();
    rig.propose(guest, PAGE, guest.spare(0));
    goes_on(&mut rig, guest);
    assert!(rig.is_owned(guest.spare(0)) && !rig.is_owned(guest.frame(PAGE)));
    rig.interrupt();
    assert_eq!(rig.host_read(guest.frame(PAGE), 5), Ok(55));
    assert_ne!(rig.host_read(guest.spare(0), 0), Ok(SECRET));
}

#[test]
fn a_page_moves_also_if_its_old_frame_stays_as_it_is() {
    let (mut rig, guest) = started();
    rig.host_copy(guest.frame(PAGE), guest.spare(0));
    rig.propose(guest, PAGE, guest.spare(0));
    goes_on(&mut rig, guest);
    assert_eq!(rig.owner(guest.frame(PAGE)), Some(Ownership::Free));
    rig.interrupt();
    assert_eq!(rig.host_read(guest.frame(PAGE), 0), Ok(0), "wiped");
}

#[test]
fn a_page_is_not_brought_in_from_a_frame_that_the_guest_may_only_read() {
    let (mut rig, guest) = started();
    rig.host_copy(guest.frame(PAGE), guest.spare(0));
    rig.propose_entry(guest, PAGE, guest.spare(0) << 12 | 5);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_read(PAGE, 0), Err(Missed::Left));
    let control = rig.block(guest.block()).control;
    assert_eq!(control.exit_code, 0x400);
    assert_eq!(control.exit_info_2, PAGE << 12);
    assert_eq!(control.exit_info_1 & 3, 2, "a write to a page that is not there");
    rig.propose(guest, PAGE, guest.spare(0));
    goes_on(&mut rig, guest);
}

#[test]
fn another_page_in_its_place_stops_the_guest() {
    let (mut rig, guest) = started();
    rig.host_copy(guest.frame(PAGE + 1), guest.spare(0));
    rig.host_copy(guest.frame(PAGE), guest.spare(1));
    rig.propose(guest, PAGE, guest.spare(0));
    is_stopped(&mut rig, guest, "page 0x3 came back as something else");
}

#[test]
fn an_older_version_stops_the_guest() {
    let (mut rig, guest) = started();
    rig.host_copy(guest.frame(PAGE), guest.spare(0));
    goes_on(&mut rig, guest);
    rig.guest_write(PAGE, 1, 1).unwrap();
    rig.interrupt();
    rig.host_write(guest.frame(PAGE), 0, 0).unwrap();
    rig.propose(guest, PAGE, guest.spare(0));
    is_stopped(&mut rig, guest, "page 0x3 came back as something else");
}

#[test]
fn an_older_version_of_the_same_bytes_stops_the_guest_too() {
    let (mut rig, guest) = started();
    rig.host_copy(guest.frame(PAGE), guest.spare(0));
    goes_on(&mut rig, guest);
    rig.interrupt();
    rig.host_read(guest.frame(PAGE), 0).unwrap();
    rig.propose(guest, PAGE, guest.spare(0));
    is_stopped(&mut rig, guest, "page 0x3 came back as something else");
}

#[test]
fn another_guests_page_stops_the_guest() {
    let (mut rig, guest) = started();
    let other = rig.with_secret(1, PAGE, SECRET + 1);
    rig.host_copy(other.frame(PAGE), guest.spare(0));
    rig.host_read(guest.frame(PAGE), 0).unwrap();
    rig.propose(guest, PAGE, guest.spare(0));
    is_stopped(&mut rig, guest, "page 0x3 came back as something else");
    assert!(rig.enter(other.block()));
    assert_eq!(rig.guest_read(PAGE, 0), Ok(SECRET + 1));
}

#[test]
fn one_bit_of_a_page_stops_the_guest() {
    for bit in [0, 77, 4095 * 8 + 7] {
        let (mut rig, guest) = started();
        let mut page = rig.host_read_page(guest.frame(PAGE)).unwrap();
        page.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        rig.host_write_page(guest.spare(0), &page).unwrap();
        rig.propose(guest, PAGE, guest.spare(0));
        is_stopped(&mut rig, guest, "page 0x3 came back as something else");
    }
}

#[test]
fn memory_beyond_the_image_begins_as_zeroes_whatever_the_hypervisor_put_there() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    rig.host_write(guest.frame(12), 9, 0xbad).unwrap();
    rig.propose_entry(guest, 13, 0);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), Some(0));
    assert_eq!(rig.guest_read(12, 9), Ok(0));
    assert!(rig.is_owned(guest.frame(12)));
    // Where there is no frame yet, the hypervisor is asked for one, and sees nothing else.
    assert_eq!(rig.guest_read(13, 3), Err(Missed::Left));
    assert_eq!(rig.block(guest.block()).control.exit_info_2, 13 << 12);
    rig.propose(guest, 13, guest.frame(13));
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.guest_write(13, 0, SECRET), Ok(()));
}

#[test]
fn an_interrupt_that_a_page_was_needed_for_is_delivered_again() {
    use frontend_bare::exit_code::ExitCode;
    use frontend_bare::vmcb::{Event, EventKind};
    let (mut rig, guest) = started();
    rig.host_read(guest.frame(PAGE), 0).unwrap();
    assert!(rig.enter(guest.block()));
    let cut_short = Event::new(EventKind::Interrupt, 0x31, None);
    rig.cpu().0.control.exit_event = cut_short;
    rig.exit(ExitCode::NestedPageFault, [1 << 32 | 6, PAGE << 12]);
    assert!(rig.is_in_guest());
    assert_eq!(rig.cpu().0.control.event, cut_short);
}
