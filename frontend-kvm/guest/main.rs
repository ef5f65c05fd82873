//! The toy guest: counts, keeps secrets, shares a mailbox. Runs in ring 3, one program a machine.
//!
//! It keeps what it needs in memory and registers only, so that it goes on wherever both go.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod abi;
mod sys;

use abi::{Boot, code, gfn, mailbox, mode, port, status};
use sys::{doorbell, out_byte, read, write};

struct Guest {
    boot: Boot,
    steps: u64,
    toggles: u64,
    shared: bool,
}

/// Entered once, from the assembly in `sys`.
pub extern "C" fn main() -> ! {
    let mut guest = Guest::start();
    if guest.boot.mode == mode::BAD {
        guest.misbehave();
    }
    if guest.boot.mode != mode::SPIN {
        guest.open_mailbox();
    }
    loop {
        guest.step();
    }
}

const fn due(step: u64, every: u64) -> bool {
    every != 0 && step.is_multiple_of(every)
}

fn end(exit_code: u8) -> ! {
    loop {
        out_byte(port::END, exit_code);
    }
}

impl Guest {
    /// Reads the boot page, derives the secrets, wipes what they came from.
    fn start() -> Self {
        let mut words = [0; abi::BOOT_WORDS];
        for (word, at) in words.iter_mut().zip(0..) {
            *word = read(gfn::BOOT, at);
        }
        if words[0] != abi::BOOT_MARK {
            end(0xbb);
        }
        let mut boot = Boot::from_words(&words);
        boot.secret_pages = boot.secret_pages.min(abi::SECRET_PAGES_MAX);
        boot.work_pages = boot.work_pages.min(boot.pages.saturating_sub(gfn::WORK));
        for page in 0..boot.secret_pages {
            for word in 0..abi::WORDS {
                write(gfn::SECRET + page, word, abi::secret_word(&boot.entropy, page, word));
            }
        }
        for at in abi::ENTROPY_WORD..abi::BOOT_WORDS {
            write(gfn::BOOT, at as u64, 0);
        }
        sys::wipe(&mut boot.entropy);
        sys::wipe(&mut words);
        write(gfn::STATUS, status::READY, status::READY_MARK);
        Self { boot, steps: 0, toggles: 0, shared: false }
    }

    fn step(&mut self) {
        self.steps += 1;
        let (steps, boot) = (self.steps, self.boot);
        write(gfn::COUNTER_A, 0, steps);
        write(gfn::COUNTER_B, 0, steps);
        if boot.mode == mode::SPIN {
            core::hint::spin_loop();
        }
        if boot.work_pages != 0 && due(steps, boot.work_every) {
            self.work();
        }
        if boot.mode == mode::TOGGLER && due(steps, boot.toggle_every) {
            if self.shared { self.close_mailbox() } else { self.open_mailbox() }
        }
        if self.shared && due(steps, boot.mailbox_every) {
            write(gfn::MAILBOX, mailbox::STEPS, steps);
        }
        if due(steps, boot.step_every) {
            doorbell(port::STEP, [steps, 0, 0]);
        }
        if steps == boot.steps_max {
            end(0);
        }
    }

    /// Rewrites the next page of the working set: step first, its mark at the end of the page.
    fn work(&self) {
        let page = self.steps / self.boot.work_every % self.boot.work_pages;
        write(gfn::WORK + page, 0, self.steps);
        write(gfn::WORK + page, abi::WORDS - 1, abi::work_check(page, self.steps));
    }

    /// Overwrites the mailbox with public text, then shares it.
    fn open_mailbox(&mut self) {
        let (greeting, _) = mailbox::GREETING.as_chunks::<8>();
        for (chunk, at) in greeting.iter().zip(0..) {
            write(gfn::MAILBOX, at, u64::from_le_bytes(*chunk));
        }
        write(gfn::MAILBOX, mailbox::STEPS, self.steps);
        write(gfn::MAILBOX, mailbox::TOGGLES, self.toggles);
        for word in mailbox::FILLING..abi::WORDS {
            write(gfn::MAILBOX, word, mailbox::FILLING_WORD);
        }
        let rights = self.boot.share_perm | self.boot.share_mask << 8;
        let answer = doorbell(port::SHARE, [gfn::MAILBOX, rights, self.boot.share_expiry]);
        write(gfn::STATUS, status::SHARE_CODE, u64::from(answer));
        self.shared = answer == code::DONE;
    }

    /// Takes the mailbox back, then keeps a secret in it.
    fn close_mailbox(&mut self) {
        let answer = doorbell(port::UNSHARE, [gfn::MAILBOX, 0, 0]);
        write(gfn::STATUS, status::UNSHARE_CODE, u64::from(answer));
        if answer != code::DONE {
            return;
        }
        self.shared = false;
        self.toggles += 1;
        if self.boot.secret_pages != 0 {
            let source = gfn::SECRET + self.toggles % self.boot.secret_pages;
            for word in 0..abi::WORDS {
                write(gfn::MAILBOX, word, read(source, word));
            }
        }
        write(gfn::STATUS, status::TOGGLES, self.toggles);
    }

    /// Rings every doorbell that must be refused; ends with 0 if all of them were.
    fn misbehave(&self) -> ! {
        let mut wrong = 0;
        for number in 0..abi::TRIES {
            let attempt = abi::bad_try(number, self.boot.pages);
            let answer = doorbell(attempt.port, attempt.arguments);
            write(gfn::STATUS, status::BAD + number, u64::from(answer));
            say(if answer == attempt.answer { b'.' } else { b'!' });
            wrong += u8::from(answer != attempt.answer);
        }
        let narrow = sys::doorbell_byte(port::SHARE);
        write(gfn::STATUS, status::BAD + abi::TRIES, u64::from(narrow));
        wrong += u8::from(narrow != code::BAD_WIDTH as u8);
        out_byte(port::SHARE, 1);
        say(b'\n');
        end(wrong)
    }
}

fn say(byte: u8) {
    out_byte(port::CONSOLE, byte);
}
