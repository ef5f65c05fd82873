//! What a guest's memory may look like at one moment, and nothing else.
//!
//! The guest's program is known step by step, so every word that it stores follows from how many
//! steps it did.

use std::fs::File;

use frontend_kvm::Program;
use frontend_kvm::abi::{self, Boot, WORDS, gfn, mailbox, status};
use frontend_kvm::trusted::{Verified, verify};
use view_core::Page;

use crate::key;

/// What a test's manager stores into the mailbox.
pub(crate) const MANAGED: u64 = u64::from_le_bytes(*b"managed!");

/// No count of a test's guest is as large, and no word of its secrets as small.
const FIRST_SECRET: u64 = 1 << 40;

/// A guest's memory, as an image has it.
pub(crate) struct Memory {
    pub(crate) verified: Verified,
    pages: Vec<Page>,
}

impl Memory {
    pub(crate) fn of(image: &File) -> Self {
        let mut pages = Vec::new();
        let verified = verify(&key(), image, None, |page| pages.push(page.clone())).unwrap();
        Self { verified, pages }
    }

    pub(crate) fn word(&self, page: u64, word: u64) -> u64 {
        let bytes = self.pages[page as usize].bytes();
        u64::from_le_bytes(bytes.as_chunks::<8>().0[word as usize])
    }

    fn words(&self, page: u64) -> Vec<u64> {
        (0..WORDS).map(|word| self.word(page, word)).collect()
    }

    /// Both counters: the one that is stored first may be one ahead.
    pub(crate) fn counters(&self) -> (u64, u64) {
        let (a, b) = (self.word(gfn::COUNTER_A, 0), self.word(gfn::COUNTER_B, 0));
        assert!(a == b || a == b + 1, "two counters of one moment: {a} and {b}");
        (a, b)
    }

    /// Every page of the working set is as it was at that step; the one that the step itself
    /// rewrites may be half done.
    pub(crate) fn working_set(&self, boot: &Boot) {
        let (a, b) = self.counters();
        let (pages, every) = (boot.work_pages, boot.work_every);
        let latest = |page: u64, upto: u64| {
            let round = every * pages;
            let first = if page == 0 { round } else { page * every };
            if upto < first { 0 } else { first + (upto - first) / round * round }
        };
        let check = |page, step| if step == 0 { 0 } else { abi::work_check(page, step) };
        for page in 0..pages {
            let found = (self.word(gfn::WORK + page, 0), self.word(gfn::WORK + page, WORDS - 1));
            let (before, after) = (latest(page, b - 1), latest(page, b));
            let done = (after, check(page, after));
            let begun = (after, check(page, before));
            let still = (before, check(page, before));
            // One ahead, the first counter says that the step before is over.
            let fine = found == done || a == b && (found == begun || found == still);
            assert!(fine, "page {page} of the working set at step {b} ({a}): {found:x?}");
        }
    }

    /// The mailbox says a step that was, and is not more behind than it may.
    pub(crate) fn mailbox_of_a_counter(&self, boot: &Boot) {
        let (a, b) = self.counters();
        let said = self.word(gfn::MAILBOX, mailbox::STEPS);
        let now = b - b % boot.mailbox_every;
        let before = (b - 1) - (b - 1) % boot.mailbox_every;
        assert!(said == now || a == b && said == before, "the mailbox says {said} at step {b}");
        let (greeting, _) = mailbox::GREETING.as_chunks::<8>();
        for (word, wanted) in greeting.iter().zip(0..) {
            assert_eq!(self.word(gfn::MAILBOX, wanted), u64::from_le_bytes(*word));
        }
    }

    pub(crate) fn secrets(&self, program: &Program) {
        assert_eq!(self.word(gfn::STATUS, status::READY), status::READY_MARK);
        for page in 0..program.boot.secret_pages {
            let found = &self.pages[(gfn::SECRET + page) as usize];
            assert!(found.bytes() == program.secret(page).bytes(), "secret page {page}");
        }
    }

    /// What a toggler's mailbox can be after as many toggles as its notes say: public words, the
    /// secret that is due, or one of them half written over the other.
    pub(crate) fn mailbox_of_a_toggler(&self, program: &Program, open: bool) {
        let toggles = self.word(gfn::STATUS, status::TOGGLES);
        let secret = |toggles: u64| -> Vec<u64> {
            let page = program.secret(toggles % program.boot.secret_pages);
            page.bytes().as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect()
        };
        let (kept, next) = (secret(toggles), secret(toggles + 1));
        let words = self.words(gfn::MAILBOX);
        let is = |what: &Vec<u64>| words.iter().zip(what).map(|(a, b)| a == b).collect::<Vec<_>>();
        let (public, kept, next) = (words_that_are_public(&words), is(&kept), is(&next));
        let (_, b) = self.counters();
        let (said, toggles_said) =
            (words[mailbox::STEPS as usize], words[mailbox::TOGGLES as usize]);
        assert!(said <= b || said >= FIRST_SECRET, "the mailbox says {said} at step {b}");
        let fine = toggles_said <= toggles || toggles_said >= FIRST_SECRET;
        assert!(fine, "the mailbox says {toggles_said} toggles, the notes say {toggles}");
        let whole = |what: &[bool]| what.iter().all(|fits| *fits);
        let over = |first: &[bool], rest: &[bool]| {
            let begun = first.iter().take_while(|fits| **fits).count();
            rest[begun..].iter().all(|fits| *fits)
        };
        if open {
            assert!(whole(&public), "an open page holds what was never public: {words:x?}");
        } else {
            let fine = over(&next, &public) || over(&public, &kept) || toggles == 0;
            assert!(fine, "after {toggles} toggles the mailbox is no moment's: {words:x?}");
        }
    }
}

fn words_that_are_public(words: &[u64]) -> Vec<bool> {
    let (greeting, _) = mailbox::GREETING.as_chunks::<8>();
    let fits = |(at, word): (u64, &u64)| match at {
        0..mailbox::STEPS => *word == u64::from_le_bytes(greeting[at as usize]),
        mailbox::STEPS | mailbox::TOGGLES => *word < FIRST_SECRET,
        _ => *word == mailbox::FILLING_WORD || *word == MANAGED,
    };
    (0..).zip(words).map(fits).collect()
}

/// The orders of a guest that stores as much as it can while an image is written.
pub(crate) fn busy(boot: &mut Boot) {
    boot.work_pages = 512;
    boot.work_every = 64;
}
