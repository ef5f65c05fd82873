//! One guest, two views, end to end on a real KVM: what the management side gets, what it does not,
//! and what a snapshot brings back.

mod common;

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{kvm, until};
use frontend_kvm::abi::{code, gfn, mailbox};
use frontend_kvm::control::client::Client;
use frontend_kvm::control::server::Server;
use frontend_kvm::guest::place;
use frontend_kvm::trusted::{Denied, TrustedVm, Witness, verify};
use frontend_kvm::{Doorbell, GuestEvent, Handler, Kvm, Mode, Program, Reply, VcpuStatus};
use view_core::key::RootKey;
use view_core::{Act, Frame, Gfn, MaskId, Page, PageState, Perm, Request, VmId};

const PAGES: usize = 0x800;

struct Stage {
    vm: Arc<TrustedVm>,
    server: Arc<Server>,
    program: Program,
}

impl Stage {
    fn new(kvm: &Kvm, mode: Mode) -> Self {
        Self::with(kvm, Program::new(mode, &[7; 32]))
    }

    fn with(kvm: &Kvm, program: Program) -> Self {
        let vm = TrustedVm::boot(kvm, &key(), VmId([1; 16]), PAGES, &program).unwrap();
        let vm = Arc::new(vm);
        vm.start().unwrap();
        let me =
            std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
        let server = Server::new(Arc::clone(&vm), vec![me.unwrap()]).unwrap();
        Self { vm, server, program }
    }

    fn client(&self) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.server.welcome(theirs);
        Client::over(ours)
    }

    fn wait_until_it_shares(&self) {
        until("the guest shares its mailbox", || !self.vm.guard().open_pages().is_empty());
    }

    fn steps(&self) -> u64 {
        let memory = self.vm.machine().memory();
        memory.read_word(place(gfn::COUNTER_B), 0).unwrap()
    }
}

fn key() -> RootKey {
    RootKey::new([9; 32])
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|some| some == needle)
}

/// 32 bytes of the guest's secret.
fn needle(program: &Program) -> Vec<u8> {
    program.secret(0).bytes()[..32].to_vec()
}

#[test]
fn management_sees_the_mailbox_and_no_secret() {
    let Some(kvm) = kvm("management_sees_the_mailbox_and_no_secret") else { return };
    let stage = Stage::new(&kvm, Mode::Counter);
    stage.wait_until_it_shares();
    let mut client = stage.client();
    let about = client.about().unwrap();
    assert_eq!((about.pages, about.epoch, about.runnable), (PAGES as u64, 1, true));
    let mut plain = Page::zeroed();
    stage.vm.machine().memory().read_page(place(gfn::SECRET), &mut plain).unwrap();
    let needle = needle(&stage.program);
    assert!(contains(plain.bytes(), &needle), "the guest has its secret");
    for first in (0..about.pages).step_by(64) {
        for page in client.read(first, 64).unwrap() {
            assert!(!contains(page.bytes.bytes(), &needle), "page {:#x}", page.gfn);
            let open = page.gfn == gfn::MAILBOX;
            assert_eq!(page.state.terms().is_some(), open);
            assert_eq!(page.sealed.is_none(), open);
            assert_eq!(page.bytes.bytes().starts_with(&mailbox::GREETING), open);
        }
    }
}

#[test]
fn a_mapped_view_shows_sealed_pages_and_the_live_mailbox() {
    let Some(kvm) = kvm("a_mapped_view_shows_sealed_pages_and_the_live_mailbox") else { return };
    let stage = Stage::new(&kvm, Mode::Counter);
    stage.wait_until_it_shares();
    let view = stage.client().view().unwrap();
    let needle = needle(&stage.program);
    let mut page = Page::zeroed();
    for index in 0..view.pages {
        view.mapping().read(index, &mut page).unwrap();
        assert!(!contains(page.bytes(), &needle), "page {index:#x}");
        assert!(index == gfn::MAILBOX as usize || page.bytes().iter().any(|byte| *byte != 0));
    }
    let steps = || view.mapping().word(gfn::MAILBOX as usize, mailbox::STEPS as usize).unwrap();
    let first = steps();
    until("the mailbox moves while we look", || steps() > first);
    assert!(stage.vm.guard().vm().state(place(0x700)).unwrap() == PageState::Replica);
}

#[test]
fn a_snapshot_of_a_running_guest_goes_on_where_it_was() {
    let Some(kvm) = kvm("a_snapshot_of_a_running_guest_goes_on_where_it_was") else { return };
    let stage = Stage::new(&kvm, Mode::Counter);
    stage.wait_until_it_shares();
    let before = stage.steps();
    let file = tempfile();
    let taken = stage.client().snapshot(&mut &file, |_| {}).unwrap();
    let after = stage.steps();
    assert_eq!(file.metadata().unwrap().len(), taken.bytes);
    let mut hits = 0;
    let needle = needle(&stage.program);
    let count = |page: &Page| hits += u64::from(contains(page.bytes(), &needle));
    let verified = verify(&key(), &file, None, count).unwrap();
    assert!(hits >= 1, "the owner's key opens the secret");
    let image = std::fs::read(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    assert!(!contains(&image.unwrap(), &needle), "the image holds no secret in plain");

    let restored = TrustedVm::restore(&kvm, &key(), &file, Some(verified.root)).unwrap();
    let memory = restored.machine().memory();
    let [a, b] =
        [gfn::COUNTER_A, gfn::COUNTER_B].map(|page| memory.read_word(place(page), 0).unwrap());
    assert!(a == b || a == b + 1, "one moment: {a} and {b}");
    assert!((before..=after).contains(&b), "{before} <= {b} <= {after}");
    assert_eq!(restored.incarnation().epoch.0, 2);
    restored.start().unwrap();
    until("it goes on", || memory.read_word(place(gfn::COUNTER_B), 0).unwrap() > b + 1000);
    assert_eq!(restored.guard().open_pages(), [place(gfn::MAILBOX)]);
}

fn tempfile() -> std::fs::File {
    let path = std::env::temp_dir().join(format!("pageveil-{}-{:p}", std::process::id(), &PAGES));
    let file =
        std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path);
    std::fs::remove_file(&path).unwrap();
    file.unwrap()
}

#[test]
fn a_page_sealed_in_place_comes_back_when_its_guest_touches_it() {
    let Some(kvm) = kvm("a_page_sealed_in_place_comes_back_when_its_guest_touches_it") else {
        return;
    };
    let stage = Stage::new(&kvm, Mode::Counter);
    stage.wait_until_it_shares();
    let (guard, page) = (stage.vm.guard(), place(gfn::COUNTER_A));
    for _ in 0..20 {
        let steps = stage.steps();
        guard.request(page, Request::Seal).unwrap();
        until("the guest has its page again", || guard.state(page) == Ok(PageState::Private));
        until("it counts on", || stage.steps() > steps);
    }
}

#[test]
fn a_page_that_comes_back_changed_stops_its_guest_for_good() {
    let Some(kvm) = kvm("a_page_that_comes_back_changed_stops_its_guest_for_good") else { return };
    let stage = Stage::new(&kvm, Mode::Counter);
    stage.wait_until_it_shares();
    let (guard, page) = (stage.vm.guard(), place(gfn::COUNTER_A));
    // While the guest stands still, so that the page stays sealed until it was changed.
    stage.vm.machine().pause();
    guard.request(page, Request::Seal).unwrap();
    let memory = stage.vm.machine().memory();
    let word = memory.read_word(page, 9).unwrap();
    memory.write_word(page, 9, word ^ 1).unwrap();
    stage.vm.machine().resume().unwrap();
    until("it touches the page", || guard.state(page) == Ok(PageState::Poisoned));
    let running = || stage.vm.machine().status(0).unwrap() == VcpuStatus::Running;
    until("it is stopped", || !running());
    assert!(guard.vm().runnable().is_err());
    assert!(!stage.client().about().unwrap().runnable);
}

#[test]
fn a_guest_with_a_page_that_others_poisoned_is_not_entered_again() {
    let test = "a_guest_with_a_page_that_others_poisoned_is_not_entered_again";
    let Some(kvm) = kvm(test) else { return };
    // No server: nobody but the vCPU itself asks whether it may run.
    let program = Program::new(Mode::Spin, &[7; 32]);
    let vm = TrustedVm::boot(&kvm, &key(), VmId([1; 16]), PAGES, &program).unwrap();
    vm.start().unwrap();
    let steps = || vm.machine().memory().read_word(place(gfn::COUNTER_B), 0).unwrap();
    until("it counts", || steps() > 0);
    vm.machine().pause();
    let (guard, page) = (vm.guard(), place(gfn::SECRET));
    guard.request(page, Request::Seal).unwrap();
    vm.machine().memory().write_word(page, 9, 1).unwrap();
    assert!(matches!(guard.act(page, Act::Touch), Err(Denied::Forged(_))));
    let stood = steps();
    for _ in 0..5 {
        vm.machine().resume().unwrap();
        until("it parks", || vm.machine().status(0).unwrap() == VcpuStatus::Paused);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(steps(), stood, "told to run, it did");
}

#[test]
fn a_page_that_has_a_replica_out_survives_being_paged_out() {
    let Some(kvm) = kvm("a_page_that_has_a_replica_out_survives_being_paged_out") else { return };
    let stage = Stage::new(&kvm, Mode::Spin);
    let (guard, page) = (stage.vm.guard(), place(gfn::SECRET));
    let memory = stage.vm.machine().memory();
    memory.write_word(page, 3, 0x5eed).unwrap();
    for mapped in [false, true] {
        if mapped {
            guard.request(page, Request::Map(Perm::Read)).unwrap();
        }
        let sealed = guard.request(page, Request::PageOut).unwrap().wire.expect("its only copy");
        assert_eq!(memory.read_word(page, 3).unwrap(), 0, "nothing is left in the frame");
        let frame = Frame::new(page.number()).unwrap();
        guard.vm().frames().offer(frame, guard.vm().number(), page).unwrap();
        guard.shared().hand_over(page, sealed).unwrap();
        guard.request(page, Request::PageIn(frame)).unwrap();
        guard.act(page, Act::Touch).unwrap();
        assert_eq!(memory.read_word(page, 3).unwrap(), 0x5eed);
    }
}

#[test]
fn looking_at_a_private_page_leaves_nothing_behind_in_the_view_file() {
    let test = "looking_at_a_private_page_leaves_nothing_behind_in_the_view_file";
    let Some(kvm) = kvm(test) else { return };
    let stage = Stage::new(&kvm, Mode::Spin);
    let mut client = stage.client();
    client.read(0x500, 64).unwrap();
    let reader = stage.vm.guard().shared().views.reader();
    let blocks = || std::os::unix::fs::MetadataExt::blocks(&reader.metadata().unwrap());
    assert_eq!(blocks(), 0);
    // So a mapping finds the sealed page, not a hole that was filled with zeroes.
    let view = stage.client().view().unwrap();
    let mut page = Page::zeroed();
    view.mapping().read(0x500, &mut page).unwrap();
    assert!(page.bytes().iter().any(|byte| *byte != 0));
}

#[test]
fn a_deadline_is_kept_whatever_the_connections_do() {
    let Some(kvm) = kvm("a_deadline_is_kept_whatever_the_connections_do") else { return };
    let mut program = Program::new(Mode::Counter, &[7; 32]);
    program.boot.share_expiry = 300;
    let stage = Stage::with(&kvm, program);
    stage.wait_until_it_shares();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let over = AtomicBool::new(false);
    let knocks = AtomicU64::new(0);
    let closed = std::thread::scope(|listening| {
        listening.spawn(|| stage.server.listen(&listener).unwrap());
        // Who knocks is let in to the end: nobody is left waiting at a door that closed.
        let closed = std::thread::scope(|knocking| {
            for _ in 0..3 {
                knocking.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let knocked = UnixStream::connect(&path).is_ok();
                        knocks.fetch_add(u64::from(knocked), Ordering::Relaxed);
                    }
                });
            }
            let guard = stage.vm.guard();
            while !guard.open_pages().is_empty() && guard.ticks() < 5000 {
                std::thread::sleep(Duration::from_millis(1));
            }
            over.store(true, Ordering::Relaxed);
            guard.ticks()
        });
        stage.server.stop();
        closed
    });
    assert!((300..2000).contains(&closed), "due at 300, closed at {closed}");
    assert!(knocks.into_inner() > 100, "nobody knocked");
}

#[test]
fn a_guest_that_shares_without_end_during_a_snapshot_is_told_to_wait() {
    let test = "a_guest_that_shares_without_end_during_a_snapshot_is_told_to_wait";
    let Some(kvm) = kvm(test) else { return };
    struct Nobody;
    impl Witness for Nobody {
        fn secure(&self, _gfn: Gfn) {}
    }
    let stage = Stage::new(&kvm, Mode::Spin);
    let (guard, gfn) = (stage.vm.guard(), place(gfn::MAILBOX));
    let ring = |doorbell| guard.event(0, GuestEvent::Doorbell(doorbell));
    let (perm, mask) = (Perm::Read, MaskId::ALL);
    let share = || ring(Doorbell::Share { gfn, perm, mask, expiry: 0 });
    guard.watch(Some(Arc::new(Nobody)), || ());
    let mut shared = 0;
    while share() == Reply::Answer(code::DONE) {
        assert_eq!(ring(Doorbell::Unshare { gfn }), Reply::Answer(code::DONE), "always");
        shared += 1;
        assert!(shared < 10_000, "without end");
    }
    assert_eq!(share(), Reply::Answer(code::BUSY));
    guard.watch(None, || ());
    assert_eq!(share(), Reply::Answer(code::DONE), "once the snapshot is over");
}
