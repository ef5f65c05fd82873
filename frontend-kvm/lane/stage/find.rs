//! Looks for secrets without holding any: what it keeps is what they are made of, and each word
//! that it looks at is turned into that first.

use std::collections::BTreeMap;

use crate::secrets::{
    self, GENERAL, INVERSE, PAGE_WORDS, PROBES, ROUNDS, SECRET_PAGES, VECTORS, number,
};

/// Where a guest keeps a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// In its private pages.
    Memory,
    /// In the page that it shared before.
    Mailbox,
    /// In a general register.
    General,
    /// In a control register or the base of a segment.
    Control,
    /// In the lower half of a vector register.
    Xmm,
    /// In the upper half of one.
    Ymm,
}

impl Class {
    pub(crate) const ALL: [Self; 6] =
        [Self::Memory, Self::Mailbox, Self::General, Self::Control, Self::Xmm, Self::Ymm];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Mailbox => "mailbox",
            Self::General => "general",
            Self::Control => "control",
            Self::Xmm => "xmm",
            Self::Ymm => "ymm",
        }
    }
}

/// Whose secret it is, and of which class.
type Kind = (usize, Class);

/// Bits of what a word is made of that choose a bit of the filter.
const FILTER_BITS: u32 = 18;

/// What can be found.
pub(crate) struct Finder {
    roots: Vec<(u64, Kind)>,
    filter: Vec<u64>,
    words: BTreeMap<Kind, u64>,
}

/// How often what was found, and in how many bytes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) hits: BTreeMap<Kind, u64>,
    pub(crate) bytes: u64,
}

impl Finder {
    /// Of guests with these seeds.
    pub(crate) fn new(seeds: &[u64]) -> Self {
        let mut this =
            Self { roots: vec![], filter: vec![0; 1 << (FILTER_BITS - 6)], words: BTreeMap::new() };
        for (guest, seed) in seeds.iter().enumerate() {
            this.add_guest(guest, *seed);
        }
        this.roots.sort_unstable();
        this
    }

    fn add(&mut self, root: u64, kind: Kind) {
        let bit = root >> (64 - FILTER_BITS);
        self.filter[(bit / 64) as usize] |= 1 << (bit % 64);
        self.roots.push((root, kind));
        *self.words.entry(kind).or_default() += 1;
    }

    fn add_guest(&mut self, guest: usize, seed: u64) {
        for page in 0..=SECRET_PAGES {
            let class = if page == SECRET_PAGES { Class::Mailbox } else { Class::Memory };
            for word in 0..PAGE_WORDS {
                self.add(secrets::root(seed, number::memory(page, word)), (guest, class));
            }
        }
        let [cr2, bases @ ..] = number::CONTROL;
        self.add(secrets::root(seed, cr2), (guest, Class::Control));
        for base in bases {
            let root = secrets::base(seed, base).wrapping_mul(INVERSE);
            self.add(root, (guest, Class::Control));
        }
        for round in 0..ROUNDS {
            for probe in 0..PROBES.len() {
                self.add_probe((guest, seed), round, probe);
            }
        }
    }

    /// What a probe leaves in registers: whole secrets, and secrets with what it names among them.
    fn add_probe(&mut self, (guest, seed): (usize, u64), round: u64, probe: usize) {
        for at in 0..GENERAL + VECTORS {
            let place = number::register(round, probe as u64, at as u64);
            let class = match at.checked_sub(GENERAL) {
                None => Class::General,
                Some(vector) if vector % 4 < 2 => Class::Xmm,
                Some(_) => Class::Ymm,
            };
            let named = &PROBES[probe];
            let holds = if at < GENERAL { named.holds(at) } else { u64::MAX };
            let root = match holds {
                0 => continue,
                u64::MAX => secrets::root(seed, place),
                _ => named.filled(at, secrets::word(seed, place)).wrapping_mul(INVERSE),
            };
            self.add(root, (guest, class));
        }
    }

    /// How many different words of a kind there are to find.
    pub(crate) fn words(&self, kind: Kind) -> u64 {
        self.words.get(&kind).copied().unwrap_or(0)
    }

    /// Looks at one word.
    fn look(&self, word: u64, seen: &mut Seen) {
        let root = word.wrapping_mul(INVERSE);
        let bit = root >> (64 - FILTER_BITS);
        if self.filter[(bit / 64) as usize] >> (bit % 64) & 1 == 0 {
            return;
        }
        if let Ok(at) = self.roots.binary_search_by_key(&root, |(root, _)| *root) {
            *seen.hits.entry(self.roots[at].1).or_default() += 1;
        }
    }

    /// Looks at every aligned word of some bytes.
    pub(crate) fn look_at_words(&self, bytes: &[u8], seen: &mut Seen) {
        seen.bytes += bytes.len() as u64;
        self.look_at_all(bytes, seen);
    }

    fn look_at_all(&self, bytes: &[u8], seen: &mut Seen) {
        for word in bytes.as_chunks::<8>().0 {
            let word = u64::from_le_bytes(*word);
            if word != 0 {
                self.look(word, seen);
            }
        }
    }

    /// Looks at the word at every byte.
    pub(crate) fn look_everywhere(&self, bytes: &[u8], seen: &mut Seen) {
        seen.bytes += bytes.len() as u64;
        for offset in 0..8.min(bytes.len()) {
            self.look_at_all(&bytes[offset..], seen);
        }
    }
}
