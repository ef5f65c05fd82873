//! What the tests on a real KVM share: skipping in the open, a handler that notes what it hears.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use frontend_kvm::abi::{self, code, gfn, status};
use frontend_kvm::{
    Doorbell, GuestEvent, Handler, Kvm, Machine, Mode, OnFault, Program, Reply, guest,
};
use view_core::{Gfn, Page};

/// Longer than anything here takes on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(30);
pub(crate) const ENTROPY: [u8; 32] = *b"thirty-two bytes of test entropy";
pub(crate) const PAGES: usize = 0x800;

/// KVM, or nothing if this host has none: then the skip is said where no harness hides it.
pub(crate) fn kvm(test: &str) -> Option<Kvm> {
    match Kvm::usable().and_then(|()| Kvm::open()) {
        Ok(kvm) => Some(kvm),
        Err(why) => {
            let required = std::env::var("PAGEVEIL_REQUIRE").unwrap_or_default();
            assert!(!required.split(',').any(|r| r == "kvm"), "kvm is required, but {why}");
            skip(test, &why.to_string());
            None
        }
    }
}

pub(crate) fn skip(test: &str, why: &str) {
    let line = format!("skipped: {test}: {why}\n");
    // A descriptor of its own: the harness catches what goes through `eprintln!`.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
    stderr.and_then(|mut e| e.write_all(line.as_bytes())).expect("stderr is there");
}

/// Notes every event and says yes to what the guest owns.
#[derive(Default)]
pub(crate) struct Ear {
    heard: Mutex<Vec<GuestEvent>>,
    shared: Mutex<BTreeSet<Gfn>>,
    faults: Mutex<u64>,
    on_fault: Mutex<Option<Box<dyn FnMut() -> OnFault + Send>>>,
}

impl Ear {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn heard(&self) -> MutexGuard<'_, Vec<GuestEvent>> {
        self.heard.lock().unwrap()
    }

    pub(crate) fn on_fault(&self, act: impl FnMut() -> OnFault + Send + 'static) {
        *self.on_fault.lock().unwrap() = Some(Box::new(act));
    }

    pub(crate) fn faults(&self) -> u64 {
        *self.faults.lock().unwrap()
    }

    pub(crate) fn console(&self) -> String {
        let byte = |event: &GuestEvent| {
            if let GuestEvent::Console(byte) = event { Some(char::from(*byte)) } else { None }
        };
        self.heard().iter().filter_map(byte).collect()
    }

    fn answer(&self, doorbell: Doorbell) -> u32 {
        let mut shared = self.shared.lock().unwrap();
        let done = match doorbell {
            Doorbell::Share { gfn, .. } => gfn.number() >= gfn::STATUS && shared.insert(gfn),
            Doorbell::Unshare { gfn } => shared.remove(&gfn),
            Doorbell::Exclude { .. } | Doorbell::Step(_) => true,
        };
        if done { code::DONE } else { code::REFUSED }
    }
}

impl Handler for Ear {
    fn may_enter(&self, _vcpu: u8) -> bool {
        true
    }

    fn event(&self, _vcpu: u8, event: GuestEvent) -> Reply {
        self.heard().push(event);
        let GuestEvent::Doorbell(doorbell) = event else { return Reply::Answer(code::REFUSED) };
        Reply::Answer(self.answer(doorbell))
    }

    fn fault(&self, _vcpu: u8) -> OnFault {
        *self.faults.lock().unwrap() += 1;
        match &mut *self.on_fault.lock().unwrap() {
            Some(act) => act(),
            None => OnFault::Stop,
        }
    }
}

/// A booted guest and who listens to it; not started.
pub(crate) fn boot(
    kvm: &Kvm,
    mode: Mode,
    change: impl FnOnce(&mut abi::Boot),
) -> (Machine, Arc<Ear>) {
    let mut program = Program::new(mode, &ENTROPY);
    change(&mut program.boot);
    (Machine::boot(kvm, PAGES, &program).unwrap(), Ear::new())
}

pub(crate) fn word(machine: &Machine, page: u64, word: u64) -> u64 {
    machine.memory().read_word(guest::place(page), word).unwrap()
}

pub(crate) fn steps(machine: &Machine) -> u64 {
    word(machine, gfn::COUNTER_B, 0)
}

pub(crate) fn page(machine: &Machine, number: u64) -> Page {
    let mut page = Page::zeroed();
    machine.memory().read_page(guest::place(number), &mut page).unwrap();
    page
}

/// Waits until something holds; fails after a long while.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LONG, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn until_ready(machine: &Machine) {
    until("the guest is ready", || word(machine, gfn::STATUS, status::READY) == status::READY_MARK);
}
