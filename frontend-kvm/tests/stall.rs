//! How long a guest stands still for its snapshot, and that this does not grow with its memory.
//!
//! A file of its own, so that no other test runs beside it.

mod common;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{ENTROPY, kvm, until};
use frontend_kvm::abi::gfn;
use frontend_kvm::guest::place;
use frontend_kvm::trusted::TrustedVm;
use frontend_kvm::{Kvm, Mode, Program};
use view_core::VmId;
use view_core::key::RootKey;

const SMALL: usize = 64 << 8;
const LARGE: usize = 1 << 18;
/// Snapshots of each guest for one median.
const ROUNDS: usize = 3;
/// Other people's work on the same processors makes single medians lie, but not for ever.
const ATTEMPTS: usize = 4;

/// Takes an image and throws it away; notes how far the guest is at its first and last byte.
struct Sink<'g> {
    vm: &'g TrustedVm,
    bytes: u64,
    first: Option<u64>,
    last: u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.last = steps(self.vm);
        self.first.get_or_insert(self.last);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One snapshot from both sides.
struct Taken {
    /// Between pause and resume, as the trusted process measures it.
    stall: Duration,
    /// For how long at least the guest's counter stood, as another thread saw it.
    gap: Duration,
    /// For the whole image.
    length: Duration,
    /// What the guest did between the first byte and the last.
    steps: u64,
}

fn take(guest: &Arc<TrustedVm>) -> Taken {
    guest.machine().resume().unwrap();
    let watcher = Watcher::new(guest);
    let mut sink = Sink { vm: guest, bytes: 0, first: None, last: 0 };
    let begun = Instant::now();
    let told = guest.snapshot(&mut sink).unwrap();
    let (length, gap) = (begun.elapsed(), watcher.longest_gap());
    guest.machine().pause();
    assert!(sink.bytes > told.pages * 4096);
    Taken { stall: told.stall, gap, length, steps: sink.last - sink.first.unwrap() }
}

/// Watches the guest's counter from outside.
struct Watcher {
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Duration>,
}

impl Watcher {
    fn new(guest: &Arc<TrustedVm>) -> Self {
        let (vm, over) = (Arc::clone(guest), Arc::new(AtomicBool::new(false)));
        let done = Arc::clone(&over);
        let watch = move || {
            let (mut last, mut since, mut longest) = (0, Instant::now(), Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let (now, at) = (steps(&vm), Instant::now());
                if now == last {
                    longest = longest.max(at - since);
                } else {
                    (last, since) = (now, at);
                }
                // Three threads want two processors, and this one is the least important.
                std::thread::sleep(Duration::from_micros(50));
            }
            longest
        };
        Self { over, thread: std::thread::spawn(watch) }
    }

    fn longest_gap(self) -> Duration {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// How long the counter stands on this machine when nobody asks for anything.
fn gap_of_a_second(guest: &Arc<TrustedVm>) -> Duration {
    guest.machine().resume().unwrap();
    let watcher = Watcher::new(guest);
    std::thread::sleep(Duration::from_secs(1));
    let gap = watcher.longest_gap();
    guest.machine().pause();
    gap
}

/// A guest that counts and rewrites its working set; it stands still between measurements.
fn boot(kvm: &Kvm, pages: usize) -> Arc<TrustedVm> {
    let (key, program) = (RootKey::new([9; 32]), Program::new(Mode::Counter, &ENTROPY));
    let vm = TrustedVm::boot(kvm, &key, VmId([5; 16]), pages, &program).unwrap();
    vm.start().unwrap();
    until("the guest counts", || steps(&vm) > 10_000);
    vm.machine().pause();
    Arc::new(vm)
}

fn steps(vm: &TrustedVm) -> u64 {
    vm.machine().memory().read_word(place(gfn::COUNTER_B), 0).unwrap()
}

fn median(of: &[Taken], what: impl Fn(&Taken) -> Duration) -> Duration {
    let mut all: Vec<Duration> = of.iter().map(what).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

/// Interleaved, so that whatever else the machine does meets both.
fn medians(small: &Arc<TrustedVm>, large: &Arc<TrustedVm>) -> [Duration; 2] {
    let (mut of_small, mut of_large) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_small.push(take(small));
        of_large.push(take(large));
    }
    for (name, taken) in [("64 MiB", &of_small), ("1 GiB", &of_large)] {
        let (stall, gap) = (median(taken, |one| one.stall), median(taken, |one| one.gap));
        let length = median(taken, |one| one.length);
        let steps = taken.iter().map(|one| one.steps).min().unwrap();
        println!("{name}: stall {stall:?}, gap {gap:?}, image {length:?}, at least {steps} steps");
        assert!(steps > 1000, "the guest stood while its image was written: {steps} steps");
    }
    [median(&of_small, |one| one.stall), median(&of_large, |one| one.stall)]
}

#[test]
fn a_gibibyte_stands_still_no_longer_than_twice_as_long_as_64_mebibytes() {
    let name = "a_gibibyte_stands_still_no_longer_than_twice_as_long_as_64_mebibytes";
    let Some(kvm) = kvm(name) else { return };
    let (small, large) = (boot(&kvm, SMALL), boot(&kvm, LARGE));
    println!("gap without a snapshot, in a second: {:?}", gap_of_a_second(&small));
    let mut all = Vec::new();
    for _ in 0..ATTEMPTS {
        let [of_small, of_large] = medians(&small, &large);
        if of_large <= of_small * 2 {
            return;
        }
        all.push((of_small, of_large));
    }
    panic!("64 MiB and 1 GiB stand still for {all:?}");
}
