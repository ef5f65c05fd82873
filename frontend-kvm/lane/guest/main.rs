//! The lane's guest: computes secrets, holds them in memory and in every register while it stops
//! in every way that it has, and says what became of them.
//!
//! It runs in ring 0 with tables of its own, and keeps what it knows in memory that is the guest's.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

#[path = "../../src/plain/abi.rs"]
mod abi;
mod answers;
mod costs;
mod say;
#[path = "../secrets.rs"]
mod secrets;
mod sys;

use abi::{boot, call, gfn, port, rights};
use say::say;
use secrets::{
    Digest, MAILBOX_GFN, PAGE_WORDS, PROBES, Probe, RECORD_GFN, SECRET_GFN, mode, number, order,
};

/// Exit codes: whether all secrets were kept.
const KEPT: u8 = 0;
const BROKEN: u8 = 1;

struct Guest {
    seed: u64,
    wide: bool,
    digest: Digest,
    broken: u64,
}

/// Entered once, from the assembly in `sys`.
pub extern "C" fn main() -> ! {
    sys::set_up(abi::DEVICE);
    let word = |at| sys::read(gfn::BOOT, at);
    if word(boot::MARK) != boot::MARK_WORD {
        end(0xbb);
    }
    let given = |at: usize| word(boot::WORDS + at as u64);
    let loaded = [gfn::BOOT, word(boot::IMAGE_END) - gfn::BOOT, word(boot::PAGES)];
    say!("launch {}", sys::call(call::LAUNCH, loaded));
    sys::set_up_timer();
    let seed = given(order::SEED);
    let mut guest = Guest { seed, wide: sys::is_wide(), digest: Digest::EMPTY, broken: 0 };
    match given(order::MODE) {
        mode::PAGES => guest.show_pages(),
        mode::REGISTERS => guest.show_registers(),
        mode::COSTS => show_costs(),
        _ => guest.do_all(),
    }
    let (verdict, code) = if guest.broken == 0 { ("kept", KEPT) } else { ("broken", BROKEN) };
    say!("verdict {verdict}");
    // Whoever serves this may take the guest's memory, and then nothing below is carried out.
    say!("end {}", sys::call(call::END, [0; 3]));
    end(code)
}

fn end(code: u8) -> ! {
    loop {
        sys::out_byte(port::END, code);
    }
}

/// Asks what was measured when the guest was launched: behind one word, 32 bytes.
fn tell_record() {
    sys::write(RECORD_GFN, 0, 0); // the page is the guest's when it has touched it
    let answer = sys::call(call::RECORD, [RECORD_GFN, 0, 0]);
    let measured = [1, 2, 3, 4].map(|word| sys::read(RECORD_GFN, word));
    say!("record {answer} measured {}", say::Hex(&measured));
}

/// Goes on when somebody at the other side of the doorbell wants it to.
fn wait_for_ring(kept: u32, mut meanwhile: impl FnMut()) {
    sys::out_double(port::DOORBELL, kept);
    // Not before: whoever rings now is heard.
    say!("settled");
    let quiet = abi::answer(kept.into()) as u32;
    while sys::in_double(port::DOORBELL) == quiet {
        meanwhile();
    }
}

/// What stops cost, and touches of pages: new ones, and those that the VMM has read.
fn show_costs() {
    costs::of_stops();
    costs::of_touches("touch");
    wait_for_ring(0, || ());
    costs::of_touches("touch-again");
}

impl Guest {
    fn do_all(&mut self) {
        say!("wide {}", u64::from(self.wide));
        tell_record();
        for page in 0..secrets::SECRET_PAGES {
            self.fill(SECRET_GFN + page, page);
        }
        let [cr2, fs, gs] = number::CONTROL;
        let control = [secrets::word(self.seed, cr2), self.base(fs), self.base(gs)];
        sys::set_control(control);
        for round in 0..secrets::ROUNDS {
            for (number, probe) in PROBES.iter().enumerate() {
                self.probe(round, number, probe);
            }
        }
        if sys::control() != control {
            self.broken += 1;
            say!("broken: control registers");
        }
        let kept = self.digest;
        // Halted or busy whenever somebody looks, with secrets in all registers.
        wait_for_ring(0, || {
            for (number, probe) in PROBES.iter().enumerate() {
                if ["halt", "timer"].contains(&probe.name) {
                    self.probe(0, number, probe);
                }
            }
        });
        self.digest = kept;
        for page in 0..secrets::SECRET_PAGES {
            for word in 0..PAGE_WORDS {
                self.digest = self.digest.with(sys::read(SECRET_GFN + page, word));
            }
        }
        say!("proof {:#x} broken {}", self.digest.0, self.broken);
        self.use_mailbox();
    }

    fn base(&self, number: u64) -> u64 {
        secrets::base(self.seed, number)
    }

    /// Fills a page with the secrets of page `page`.
    fn fill(&self, gfn: u64, page: u64) {
        for word in 0..PAGE_WORDS {
            sys::write(gfn, word, secrets::word(self.seed, number::memory(page, word)));
        }
    }

    /// The first word of a page that is not what `fill` left there.
    fn changed(&self, gfn: u64, page: u64) -> Option<u64> {
        let wanted = |word| secrets::word(self.seed, number::memory(page, word));
        let found = (0..PAGE_WORDS).map(|word| (sys::read(gfn, word), wanted(word)));
        found.filter(|(found, wanted)| found != wanted).map(|(found, _)| found).next()
    }

    /// Makes one probe: all registers full of secrets, one stop, and all secrets still there.
    fn probe(&mut self, round: u64, number: usize, probe: &Probe) {
        let word = |at: usize| {
            let place = number::register(round, number as u64, at as u64);
            secrets::word(self.seed, place)
        };
        for at in 0..secrets::GENERAL {
            sys::want(at, probe.filled(at, word(at)));
        }
        for at in secrets::GENERAL..secrets::GENERAL + secrets::VECTORS {
            sys::want(at, word(at));
        }
        match probe.name {
            "halt" => sys::start_timer(10_000_000),
            "timer" => sys::start_timer(2_000_000),
            _ => {}
        }
        sys::run_probe(number);
        sys::stop_timer();
        for at in 0..secrets::GENERAL + secrets::VECTORS {
            let general = at < secrets::GENERAL;
            if !general && !self.wide && at % 4 >= 2 {
                continue;
            }
            let keeps = if general { probe.keeps(at) } else { u64::MAX };
            if (sys::seen(at) ^ word(at)) & keeps != 0 {
                self.broken += 1;
                say!("broken: {} changes register word {at}", probe.name);
            }
            self.digest = self.digest.with(sys::seen(at) & keeps);
        }
        for (at, bits, value) in answers::to(probe.name) {
            if sys::seen(at) & bits != value {
                self.broken += 1;
                say!("broken: {} answers {:#x}, not {value:#x}", probe.name, sys::seen(at));
            }
        }
    }

    /// Shares a page, talks through it, takes it back, and keeps secrets in it.
    fn use_mailbox(&mut self) {
        for word in 0..PAGE_WORDS {
            sys::write(MAILBOX_GFN, word, u64::from_le_bytes(*b"public. "));
        }
        for (word, value) in (0..).zip(abi::GREETING) {
            sys::write(MAILBOX_GFN, word, value);
        }
        say!("share {}", sys::call(call::SHARE, [MAILBOX_GFN, rights::READ_WRITE, 0]));
        sys::out_double(port::MAILBOX, MAILBOX_GFN as u32);
        let answered = (2..).zip(abi::REPLY).all(|(at, word)| sys::read(MAILBOX_GFN, at) == word);
        say!("mailbox {}", if answered { "answered" } else { "silent" });
        say!("unshare {}", sys::call(call::UNSHARE, [MAILBOX_GFN, 0, 0]));
        self.fill(MAILBOX_GFN, secrets::SECRET_PAGES);
        sys::out_double(port::MAILBOX, MAILBOX_GFN as u32);
        let kept = self.changed(MAILBOX_GFN, secrets::SECRET_PAGES).is_none();
        self.broken += u64::from(!kept);
        say!("mailbox {}", if kept { "kept" } else { "broken" });
    }

    /// Two pages of secrets, and a new version of the first one: whether they stay so while
    /// somebody does something at each ring.
    fn show_pages(&mut self) {
        self.fill(SECRET_GFN, 0);
        self.fill(SECRET_GFN + 1, 1);
        sys::out_double(port::DOORBELL, 1);
        for page in 0..2 {
            self.report(SECRET_GFN + page, page);
        }
        self.fill(SECRET_GFN, 2);
        sys::out_double(port::DOORBELL, 2);
        self.report(SECRET_GFN, 2);
    }

    fn report(&mut self, gfn: u64, page: u64) {
        match self.changed(gfn, page) {
            None => say!("page kept"),
            Some(found) => {
                self.broken += 1;
                say!("page changed, digest {:#x}", Digest::EMPTY.with(found).0);
            }
        }
    }

    /// One stop with all registers full of secrets.
    fn show_registers(&mut self) {
        self.probe(0, 5, &PROBES[5]);
        say!("registers {}", if self.broken == 0 { "kept" } else { "changed" });
    }
}
