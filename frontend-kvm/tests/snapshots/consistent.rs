//! Every image of a running guest is one moment of it, whatever happens meanwhile.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use frontend_kvm::abi::{gfn, mailbox, rights};
use frontend_kvm::control::client::Client;
use frontend_kvm::control::server::Server;
use frontend_kvm::guest::place;
use frontend_kvm::trusted::TrustedVm;
use frontend_kvm::{Kvm, Mode};
use view_core::Gfn;

use crate::common::{PAGES, kvm, until};
use crate::moment::{MANAGED, Memory, busy};
use crate::{Running, file, key, steps};

const ROUNDS: u64 = 24;
/// So many that laying the write protection takes as long as several turns of a toggler.
const PAGES_OF_A_TOGGLER: usize = 0x1000;

#[test]
fn every_snapshot_of_a_counting_guest_is_one_moment_and_goes_on() {
    let Some(kvm) = kvm("every_snapshot_of_a_counting_guest_is_one_moment_and_goes_on") else {
        return;
    };
    let guest = Running::boot(&kvm, PAGES, Mode::Counter, busy);
    for round in 0..ROUNDS {
        let before = guest.steps();
        let (image, told) = guest.snapshot();
        let after = guest.steps();
        let image = file(&image);
        let memory = Memory::of(&image);
        let (_, b) = memory.counters();
        assert!((before..=after).contains(&b), "{before} <= {b} <= {after}");
        memory.working_set(&guest.program.boot);
        memory.mailbox_of_a_counter(&guest.program.boot);
        memory.secrets(&guest.program);
        assert_eq!((memory.verified.root, told.pages), (told.root, PAGES as u64));
        let header = memory.verified.header;
        assert_eq!((header.sequence, header.epoch.0), (round + 1, 1), "sequences never repeat");
        goes_on(&kvm, &image, &memory);
    }
}

/// Restores an image and lets it run: the counter, the open mailbox and its words are back.
fn goes_on(kvm: &Kvm, image: &std::fs::File, memory: &Memory) {
    let vm = TrustedVm::restore(kvm, &key(), image, Some(memory.verified.root)).unwrap();
    let (_, b) = memory.counters();
    assert_eq!(steps(&vm), b);
    assert_eq!(vm.guard().open_pages(), [place(gfn::MAILBOX)]);
    let said = |vm: &TrustedVm| {
        let page = vm.guard().look(place(gfn::MAILBOX)).unwrap().bytes;
        u64::from_le_bytes(page.bytes().as_chunks::<8>().0[mailbox::STEPS as usize])
    };
    assert_eq!(said(&vm), memory.word(gfn::MAILBOX, mailbox::STEPS));
    vm.start().unwrap();
    until("the restored guest counts on", || steps(&vm) > b + 1000 && said(&vm) > b);
    vm.machine().stop();
}

/// A manager that stores, looks and maps while the guest takes its mailbox back and shares it.
struct Meddler {
    over: Arc<AtomicBool>,
    stored: Arc<AtomicU64>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Meddler {
    fn new(guest: &Running) -> Self {
        let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
        let server = Server::new(Arc::clone(&guest.vm), vec![me]).unwrap();
        let (over, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            server.welcome(theirs);
            Client::over(ours)
        };
        let (mut writer, mut looker) = (client(), client());
        let (done, count) = (Arc::clone(&over), Arc::clone(&stored));
        let store = move || {
            while !done.load(Ordering::Relaxed) {
                // Refused while the guest has the page to itself.
                if writer.write(gfn::MAILBOX, 2048, &MANAGED.to_le_bytes()).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let done = Arc::clone(&over);
        let look = move || {
            while !done.load(Ordering::Relaxed) {
                looker.read(gfn::MAILBOX, 1).unwrap();
                looker.unmap(gfn::MAILBOX).ok();
                looker.read(gfn::WORK, 8).unwrap();
            }
        };
        let threads = vec![std::thread::spawn(store), std::thread::spawn(look)];
        Self { over, stored, threads }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a manager's thread failed");
        }
    }
}

#[test]
fn sharing_unsharing_and_stores_of_the_manager_do_not_tear_a_snapshot() {
    let Some(kvm) = kvm("sharing_unsharing_and_stores_of_the_manager_do_not_tear_a_snapshot")
    else {
        return;
    };
    let guest = Running::boot(&kvm, PAGES_OF_A_TOGGLER, Mode::Toggler, |boot| {
        busy(boot);
        boot.toggle_every = 256;
        boot.share_perm = rights::READ_WRITE;
    });
    let meddler = Meddler::new(&guest);
    until("the manager stores", || meddler.stored.load(Ordering::Relaxed) > 10);
    let [mut open_images, mut private_images] = [0; 2];
    for _ in 0..ROUNDS {
        let (image, told) = guest.snapshot();
        let image = file(&image);
        let memory = Memory::of(&image);
        memory.working_set(&guest.program.boot);
        memory.secrets(&guest.program);
        let vm = TrustedVm::restore(&kvm, &key(), &image, Some(told.root)).unwrap();
        let open: Vec<Gfn> = vm.guard().open_pages();
        memory.mailbox_of_a_toggler(&guest.program, !open.is_empty());
        *(if open.is_empty() { &mut private_images } else { &mut open_images }) += 1;
        let b = steps(&vm);
        vm.start().unwrap();
        until("the restored guest counts on", || steps(&vm) > b + 1000);
        vm.machine().stop();
    }
    println!("{open_images} images with an open mailbox, {private_images} with a private one");
}
