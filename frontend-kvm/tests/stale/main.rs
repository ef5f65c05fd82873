//! A guest that shares a page and takes it back without end, and managers that keep what they
//! were shown: through a mapping, past the userfaultfd, by reading the file, pinned in a pipe.
//!
//! While the page is the guest's own it is full of words of the guest's secret. So a single secret
//! word on the other side is a store that came after the page was taken back.

#[path = "../common/mod.rs"]
mod common;
mod sys;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{kvm, until};
use frontend_kvm::abi::{gfn, mailbox, status};
use frontend_kvm::control::client::{Client, View};
use frontend_kvm::control::server::Server;
use frontend_kvm::guest::place;
use frontend_kvm::trusted::{TrustedVm, random};
use frontend_kvm::{Mode, Program};
use view_core::key::RootKey;
use view_core::{Page, PageState, VmId};

use sys::{Bare, unpin};

const MAILBOX: usize = gfn::MAILBOX as usize;
/// How often the guest takes its mailbox back while we look.
const TOGGLES: u64 = 300;

/// What came through one way of looking.
#[derive(Debug, Default)]
struct Seen {
    /// Looks that began and ended in public text.
    public: u64,
    /// Looks that were neither: zeroes, sealed bytes, or a page that changed meanwhile.
    other: u64,
    /// Words of the guest's secret. Must stay 0.
    private: u64,
}

impl Seen {
    fn look(&mut self, words: &[u64], secret: &BTreeSet<u64>) {
        let filling = words.iter().skip(mailbox::FILLING as usize);
        if filling.clone().all(|word| *word == mailbox::FILLING_WORD) {
            self.public += 1;
        } else {
            self.other += 1;
        }
        self.private += words.iter().filter(|word| secret.contains(word)).count() as u64;
    }
}

struct Stage {
    vm: Arc<TrustedVm>,
    server: Arc<Server>,
    secret: BTreeSet<u64>,
}

impl Stage {
    fn new(kvm: &frontend_kvm::Kvm) -> Self {
        let program = Program::new(Mode::Toggler, &random().unwrap());
        let root = RootKey::new([9; 32]);
        let vm = TrustedVm::boot(kvm, &root, VmId([1; 16]), 0x800, &program).unwrap();
        let vm = Arc::new(vm);
        let pages = (0..program.boot.secret_pages).map(|page| program.secret(page));
        let secret = pages.flat_map(|page| words(page.bytes())).collect();
        let me = std::fs::metadata("/proc/self").unwrap();
        let managers = vec![std::os::unix::fs::MetadataExt::uid(&me)];
        let server = Server::new(Arc::clone(&vm), managers).unwrap();
        vm.start().unwrap();
        Self { vm, server, secret }
    }

    fn view(&self) -> View {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.server.welcome(theirs);
        Client::over(ours).view().unwrap()
    }

    /// The view file as it is handed to managers.
    fn file(&self) -> &File {
        self.vm.guard().shared().views.reader()
    }

    fn toggles(&self) -> u64 {
        self.vm.machine().memory().read_word(place(gfn::STATUS), status::TOGGLES).unwrap()
    }

    fn until_toggled(&self, look: impl Fn(&mut Seen, &BTreeSet<u64>)) -> Seen {
        let (mut seen, began) = (Seen::default(), Instant::now());
        let enough = |seen: &Seen| seen.public > 50 && seen.other > 50;
        while self.toggles() < TOGGLES || !enough(&seen) {
            assert!(began.elapsed() < common::LONG, "still not toggled enough: {seen:?}");
            look(&mut seen, &self.secret);
        }
        seen
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// Each look on a thread of its own, all at once, over the same toggles.
#[test]
fn a_stale_management_mapping_never_shows_a_byte_stored_after_the_page_was_taken_back() {
    let test = "a_stale_management_mapping_never_shows_a_byte_stored_after_the_page_was_taken_back";
    let Some(kvm) = kvm(test) else { return };
    let stage = Stage::new(&kvm);
    let view = stage.view();
    let bare = || Bare::new(stage.file(), MAILBOX).unwrap();
    let seen = std::thread::scope(|scope| {
        let mapped = || stage.until_toggled(|seen, secret| through_mapping(&view, seen, secret));
        let past = || {
            let bare = bare();
            stage.until_toggled(|seen, secret| past_the_userfaultfd(&bare, seen, secret))
        };
        let read = || stage.until_toggled(|seen, secret| from_file(&stage, seen, secret));
        let pinned = || {
            let bare = bare();
            stage.until_toggled(|seen, secret| in_pipe(&bare, seen, secret))
        };
        let ways = [scope.spawn(mapped), scope.spawn(past), scope.spawn(read), scope.spawn(pinned)];
        ways.map(|way| way.join().unwrap())
    });
    for (way, seen) in ["mapped", "past", "read", "pinned"].into_iter().zip(&seen) {
        assert_eq!(seen.private, 0, "{way}: {seen:?}");
        assert!(seen.public > 50 && seen.other > 50, "{way}: {seen:?}");
    }
    assert!(stage.toggles() >= TOGGLES);
    let mut own = Seen::default();
    until("the guest keeps a secret in its mailbox", || {
        let mut page = Page::zeroed();
        let _ = stage.vm.guard().shared().views.read_guest(place(gfn::MAILBOX), &mut page);
        own.look(&words(page.bytes()), &stage.secret);
        own.private > 0
    });
}

fn through_mapping(view: &View, seen: &mut Seen, secret: &BTreeSet<u64>) {
    let mut page = Page::zeroed();
    view.mapping().read(MAILBOX, &mut page).unwrap();
    seen.look(&words(page.bytes()), secret);
}

fn past_the_userfaultfd(bare: &Bare, seen: &mut Seen, secret: &BTreeSet<u64>) {
    seen.look(&bare.words().collect::<Vec<_>>(), secret);
}

fn from_file(stage: &Stage, seen: &mut Seen, secret: &BTreeSet<u64>) {
    let mut bytes = vec![0; 4096];
    stage.file().read_exact_at(&mut bytes, gfn::MAILBOX * 4096).unwrap();
    seen.look(&words(&bytes), secret);
}

/// Pins the page that is there now, waits for a while, and looks what became of it.
fn in_pipe(bare: &Bare, seen: &mut Seen, secret: &BTreeSet<u64>) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    bare.pin(&writer).unwrap();
    std::thread::sleep(Duration::from_micros(500));
    seen.look(&unpin(&mut reader).unwrap(), secret);
}

/// What was public stays in no mapping: who looks again sees the page as it is now.
#[test]
fn a_page_that_was_taken_back_is_gone_from_every_mapping() {
    let Some(kvm) = kvm("a_page_that_was_taken_back_is_gone_from_every_mapping") else { return };
    let stage = Stage::new(&kvm);
    let (view, bare) = (stage.view(), Bare::new(stage.file(), MAILBOX).unwrap());
    let machine = stage.vm.machine();
    let state = || stage.vm.guard().vm().state(place(gfn::MAILBOX)).unwrap();
    for _ in 0..20 {
        until("it is open, and we have it mapped", || {
            let (mut mapped, mut public) = (Seen::default(), Seen::default());
            through_mapping(&view, &mut mapped, &stage.secret);
            past_the_userfaultfd(&bare, &mut public, &stage.secret);
            mapped.public + public.public == 2 && state().terms().is_some()
        });
        until("the guest stands still with its mailbox taken back", || {
            machine.pause();
            let taken = matches!(state(), PageState::Private | PageState::Replica);
            if !taken {
                machine.resume().unwrap();
            }
            taken
        });
        let mut seen = Seen::default();
        through_mapping(&view, &mut seen, &stage.secret);
        past_the_userfaultfd(&bare, &mut seen, &stage.secret);
        from_file(&stage, &mut seen, &stage.secret);
        assert_eq!((seen.public, seen.other, seen.private), (0, 3, 0));
        machine.resume().unwrap();
    }
}
