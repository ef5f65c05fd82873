//! The system calls under the machine: memory files, private pages, userfaultfd, sockets.

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use common::{Ear, PAGES, boot, kvm, steps, until, word};
use frontend_kvm::abi::gfn;
use frontend_kvm::guest::place;
use frontend_kvm::socket::{peer, receive_fd, send_fd};
use frontend_kvm::sys::{Mapping, MemFd, Secrecy, Uffd};
use frontend_kvm::{Machine, Mode};
use view_core::Page;

fn page_of(byte: u8) -> Page {
    let mut page = Page::zeroed();
    page.bytes_mut().fill(byte);
    page
}

#[test]
fn memory_keeps_its_size_and_crosses_a_socket() {
    let memory = MemFd::create(c"pageveil-test", 3).unwrap();
    let view = Mapping::shared(&memory).unwrap();
    assert!(view.write_page(2, &page_of(7)) && !view.write_page(3, &page_of(7)));
    let (here, there) = UnixStream::pair().unwrap();
    send_fd(&here, b"page", &memory).unwrap();
    let mut bytes = [0; 16];
    let (count, came) = receive_fd(&there, &mut bytes).unwrap();
    let came = came.unwrap();
    assert_eq!(&bytes[..count], b"page");
    let flags = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", came.as_raw_fd())).unwrap();
    let mode = flags.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
    assert_ne!(u32::from_str_radix(mode, 8).unwrap() & 0o2_000_000, 0, "it survives exec");
    assert!(File::from(came.as_fd().try_clone_to_owned().unwrap()).set_len(0).is_err());
    let adopted = MemFd::adopt(came).unwrap();
    assert_eq!(adopted.pages(), 3);
    let other = Mapping::shared(&adopted).unwrap();
    let mut page = Page::zeroed();
    assert!(other.read_page(2, &mut page) && page.bytes()[4095] == 7);
    memory.punch(2, 1).unwrap();
    assert!(other.read_page(2, &mut page) && page.bytes()[4095] == 0);
    assert!(memory.punch(2, 2).is_err() && memory.punch(usize::MAX, 2).is_err());
    (&there).write_all(b"bare").unwrap();
    let (count, came) = receive_fd(&here, &mut bytes).unwrap();
    assert!(count == 4 && came.is_none());
}

#[test]
fn memory_whose_size_may_change_is_not_adopted() {
    let file = File::open("/proc/self/exe").unwrap();
    assert!(MemFd::adopt(OwnedFd::from(file)).is_err());
}

#[test]
fn the_peer_of_a_socket_is_known() {
    let (here, _there) = UnixStream::pair().unwrap();
    assert_eq!(peer(&here).unwrap().pid, std::process::id().cast_signed());
}

#[test]
fn private_pages_hold_bytes_and_secret_ones_show_none_of_them() {
    let (private, secrecy) = Mapping::private(2).unwrap();
    assert!(private.write_page(1, &page_of(9)));
    let mut page = Page::zeroed();
    assert!(private.read_page(1, &mut page) && page.bytes()[17] == 9);
    let at = private.words(1).unwrap().as_ptr().addr() as u64;
    let mut seen = [0; 8];
    let read = File::open("/proc/self/mem").unwrap().read_at(&mut seen, at);
    match secrecy {
        Secrecy::Secret => assert!(read.is_err() && seen == [0; 8]),
        Secrecy::Locked => assert_eq!(seen, [9; 8]),
    }
}

/// A guest that runs while its pages come late: in turns copied, zeroed, or mapped from the file.
#[test]
fn missing_pages_are_served_to_the_running_guest() {
    let Some(kvm) = kvm("missing_pages_are_served_to_the_running_guest") else { return };
    let (machine, _) = boot(&kvm, Mode::Spin, |boot| {
        boot.work_pages = 64;
        boot.work_every = 1;
    });
    let memory = Arc::clone(machine.memory());
    let uffd = Uffd::open(Uffd::FEATURE_MISSING_SHMEM | Uffd::FEATURE_MINOR_SHMEM).unwrap();
    assert!(uffd.serves_guests());
    let first = gfn::WORK as usize;
    uffd.register(memory.window(), first, 64, Uffd::MISSING).unwrap();
    machine.start(Ear::new()).unwrap();
    for _ in 0..64 {
        let mut touch = None;
        until("a page is missed", || {
            touch = uffd.next_touch(memory.window()).unwrap();
            touch.is_some()
        });
        let page = touch.unwrap().page;
        if page % 2 == 0 {
            uffd.copy(memory.window(), page, &page_of(5)).unwrap();
        } else {
            uffd.zero(memory.window(), page, 1).unwrap();
        }
    }
    let now = steps(&machine);
    until("it runs freely", || steps(&machine) > now + 1000);
    let filled = |page: u64| word(&machine, gfn::WORK + page, 100);
    assert!(
        (0..64).all(|page| filled(page) == if page % 2 == 0 { 0x0505_0505_0505_0505 } else { 0 })
    );
    assert!(uffd.register(memory.window(), PAGES - 1, 2, Uffd::MISSING).is_err());
}

#[test]
fn pages_that_are_in_the_file_are_mapped_on_demand() {
    let Some(kvm) = kvm("pages_that_are_in_the_file_are_mapped_on_demand") else { return };
    let (machine, _) = boot(&kvm, Mode::Spin, |_| {});
    let memory = Arc::clone(machine.memory());
    let uffd = Uffd::open(Uffd::FEATURE_MINOR_SHMEM).unwrap();
    let counter = gfn::COUNTER_A as usize;
    memory.write_word(place(gfn::COUNTER_A), 1, 77).unwrap();
    uffd.register(memory.window(), counter, 1, Uffd::MINOR).unwrap();
    machine.start(Ear::new()).unwrap();
    let mut touch = None;
    until("the page is touched", || {
        touch = uffd.next_touch(memory.window()).unwrap();
        touch.is_some()
    });
    assert_eq!((touch.unwrap().page, steps(&machine)), (counter, 0));
    assert_ne!(touch.unwrap().bits & Uffd::FAULT_MINOR, 0);
    // A guest that waits for its page can be paused all the same.
    machine.pause();
    machine.resume().unwrap();
    uffd.go_on(memory.window(), counter, 1).unwrap();
    until("it goes on", || steps(&machine) > 0);
    assert_eq!(word(&machine, gfn::COUNTER_A, 1), 77);
}

#[test]
fn writes_are_noted_while_that_is_asked_for() {
    let Some(kvm) = kvm("writes_are_noted_while_that_is_asked_for") else { return };
    let (machine, _) = boot(&kvm, Mode::Counter, |boot| boot.work_every = 1);
    machine.start(Ear::new()).unwrap();
    until("it works", || steps(&machine) > 1000);
    let written = |machine: &Machine| {
        let now = steps(machine);
        until("it works", || steps(machine) > now + 10_000);
        machine.written()
    };
    assert!(written(&machine).is_err());
    machine.note_writes(true).unwrap();
    for _ in 0..5 {
        let pages = written(&machine).unwrap();
        let has = |number: u64| pages.contains(&place(number));
        assert!(has(gfn::COUNTER_A) && has(gfn::COUNTER_B));
        assert!((0..64).all(|page| has(gfn::WORK + page)), "{pages:?}");
        assert!(!has(gfn::SECRET) && !has(gfn::WORK + 64) && pages.len() < 80);
    }
    machine.pause();
    machine.written().unwrap();
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(machine.written().unwrap(), []);
    machine.resume().unwrap();
    machine.note_writes(false).unwrap();
    assert!(written(&machine).is_err());
}
