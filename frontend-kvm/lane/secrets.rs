//! The secrets of the lane's guests, and what each of them does with them: known to the guest, to
//! the scanner that looks for them, and to the test that knows the right answer.
//!
//! All three compile this file, beside the VMM's `abi`, so it knows none of them.

use crate::abi::{DEVICE, port};

/// The guests that run at once: what they are called, and what their secrets are made from.
pub(crate) const GUESTS: [(&str, u64); 2] = [("a", 0x0a11_5eed), ("b", 0x0b22_5eed)];

/// What the words of the boot page are, that the lane gives its guests.
pub(crate) mod order {
    /// The word that all secrets are made from.
    pub(crate) const SEED: usize = 0;
    /// One of [`super::mode`].
    pub(crate) const MODE: usize = 1;
}

/// What a guest does.
pub(crate) mod mode {
    /// Everything: rounds of probes, and the mailbox.
    pub(crate) const ALL: u64 = 0;
    /// Shows its pages to an attacker at doorbells, and looks at them afterwards.
    pub(crate) const PAGES: u64 = 1;
    /// Rings a doorbell with secrets in registers, and looks at them afterwards.
    pub(crate) const REGISTERS: u64 = 2;
    /// Says what it costs to stop, and to touch pages.
    pub(crate) const COSTS: u64 = 3;
}

/// Where a guest keeps its secrets: behind all images, so that the first touch is its own.
pub(crate) const SECRET_GFN: u64 = 0x80;
/// How many pages of them.
pub(crate) const SECRET_PAGES: u64 = 4;
/// The page that is shared, and then holds the secrets of one page more.
pub(crate) const MAILBOX_GFN: u64 = 0xc0;
/// The first of the pages that are touched to see what that costs.
pub(crate) const COST_GFN: u64 = 0xd0;
/// The page that the record of the launch goes to.
pub(crate) const RECORD_GFN: u64 = 0xc8;
/// Words in a page.
pub(crate) const PAGE_WORDS: u64 = 512;
/// How often each probe is made.
pub(crate) const ROUNDS: u64 = 2;
/// General registers, as instructions number them.
pub(crate) const GENERAL: usize = 16;
/// Words of vector registers: sixteen of 32 bytes.
pub(crate) const VECTORS: usize = 64;

/// Every word is what it is made of, times this. Whoever looks for secrets multiplies what it finds
/// by the inverse, so that it never holds a secret itself.
pub(crate) const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// Its inverse modulo 2^64.
pub(crate) const INVERSE: u64 = 0xf1de_83e1_9937_733d;
const _: () = assert!(FACTOR.wrapping_mul(INVERSE) == 1);

/// Which secret is meant: numbers that do not overlap.
pub(crate) mod number {
    use super::{GENERAL, PAGE_WORDS, VECTORS};

    /// Word `word` of secret page `page`.
    pub(crate) const fn memory(page: u64, word: u64) -> u64 {
        page * PAGE_WORDS + word
    }

    /// Register word `word` of probe `probe` in round `round`: first general registers, then the
    /// vector registers by four words each.
    pub(crate) const fn register(round: u64, probe: u64, word: u64) -> u64 {
        (1 << 20) + (round * 64 + probe) * (GENERAL + VECTORS) as u64 + word
    }

    /// The control register CR2, and the bases of FS and GS.
    pub(crate) const CONTROL: [u64; 3] = [1 << 30, (1 << 30) + 1, (1 << 30) + 2];
}

/// What secret number `number` is made of.
pub(crate) const fn root(seed: u64, number: u64) -> u64 {
    siphash(seed, !seed.rotate_left(32), number)
}

/// Secret number `number`.
pub(crate) const fn word(seed: u64, number: u64) -> u64 {
    root(seed, number).wrapping_mul(FACTOR)
}

/// The same as an address: bases of segments must be canonical.
pub(crate) const fn base(seed: u64, number: u64) -> u64 {
    word(seed, number) >> 17
}

/// An instruction that makes a guest stop, and what it takes and leaves of its registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// What it is called.
    pub(crate) name: &'static str,
    /// The registers that it names, which bits of them, and what those hold. All others hold
    /// secrets.
    pub(crate) names: &'static [(usize, u64, u64)],
    /// The bits of registers that it changes.
    pub(crate) changes: &'static [(usize, u64)],
}

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSI: usize = 6;
const R9: usize = 9;
const R10: usize = 10;
const ALL: u64 = u64::MAX;
const LOW: u64 = 0xffff_ffff;

/// What goes out of the guest, by width in bytes.
pub(crate) mod sent {
    /// One byte.
    pub(crate) const BYTE: u64 = 0x5a;
    /// Two.
    pub(crate) const WORD: u64 = 0xa51c;
    /// Four.
    pub(crate) const DOUBLE: u64 = 0x0bad_cafe;
    /// Eight.
    pub(crate) const QUAD: u64 = 0x1122_3344_5566_7788;
}

/// A range of memory types, which KVM keeps for a guest and does not use.
const MSR: u64 = 0x200;
/// What is in it.
pub(crate) const MSR_VALUE: u64 = 0x1234_5006;

const AT_DOORBELL: (usize, u64, u64) = (RDX, 0xffff, port::DOORBELL as u64);
const AT_DEVICE: (usize, u64, u64) = (RBX, ALL, DEVICE);
/// All of rcx, although the instructions name its lower half: QEMU 7.2 takes the upper one for part
/// of the register's number when it looks whether to stop the guest.
const WHOLE_MSR: (usize, u64, u64) = (RCX, ALL, MSR);

const fn probe(
    name: &'static str,
    names: &'static [(usize, u64, u64)],
    changes: &'static [(usize, u64)],
) -> Probe {
    Probe { name, names, changes }
}

/// The probes, in the order in which they are made in a round. The last one is a call that nobody
/// serves.
pub(crate) const PROBES: [Probe; 16] = [
    probe("halt", &[], &[]),
    probe("out 1", &[(RAX, 0xff, sent::BYTE), AT_DOORBELL], &[]),
    probe("in 1", &[AT_DOORBELL], &[(RAX, 0xff)]),
    probe("out 2", &[(RAX, 0xffff, sent::WORD), AT_DOORBELL], &[]),
    probe("in 2", &[AT_DOORBELL], &[(RAX, 0xffff)]),
    probe("out 4", &[(RAX, LOW, sent::DOUBLE), AT_DOORBELL], &[]),
    probe("in 4", &[AT_DOORBELL], &[(RAX, ALL)]),
    probe("store 8", &[AT_DEVICE, (R9, ALL, sent::QUAD)], &[]),
    probe("load 8", &[AT_DEVICE], &[(R10, ALL)]),
    probe("store 4", &[AT_DEVICE, (R9, LOW, sent::DOUBLE)], &[]),
    probe("load 4", &[AT_DEVICE], &[(R10, ALL)]),
    probe(
        "cpuid",
        &[(RAX, LOW, 0), (RCX, LOW, 0)],
        &[(RAX, ALL), (RBX, ALL), (RCX, ALL), (RDX, ALL)],
    ),
    probe("wrmsr", &[(RAX, LOW, MSR_VALUE), WHOLE_MSR, (RDX, LOW, 0)], &[]),
    probe("rdmsr", &[WHOLE_MSR], &[(RAX, ALL), (RDX, ALL)]),
    probe("timer", &[], &[]),
    probe(
        "vmmcall",
        &[(RAX, ALL, 0x1234), (RBX, ALL, 1), (RCX, ALL, 2), (RDX, ALL, 3), (RSI, ALL, 4)],
        &[(RAX, ALL)],
    ),
];

impl Probe {
    /// What a general register holds before the instruction, if `secret` is what it keeps.
    pub(crate) fn filled(&self, register: usize, secret: u64) -> u64 {
        let named = self.names.iter().filter(|(number, ..)| *number == register);
        named.fold(secret, |word, (_, bits, value)| word & !bits | value)
    }

    /// The bits of a general register that hold a secret before the instruction.
    pub(crate) fn holds(&self, register: usize) -> u64 {
        let named = self.names.iter().filter(|(number, ..)| *number == register);
        !named.fold(0, |all, (_, bits, _)| all | bits)
    }

    /// Those of them that hold it afterwards, too.
    pub(crate) fn keeps(&self, register: usize) -> u64 {
        let changed = self.changes.iter().filter(|(number, _)| *number == register);
        self.holds(register) & !changed.fold(0, |all, (_, bits)| all | bits)
    }
}

/// A digest of words, one by one: 64 bits of thousands of words, so that none of them shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) u64);

impl Digest {
    /// Of no words.
    pub(crate) const EMPTY: Self = Self(u64::from_le_bytes(*b"pageveil"));

    /// Takes in one more.
    #[must_use]
    pub(crate) const fn with(self, word: u64) -> Self {
        Self(siphash(self.0, FACTOR, word))
    }
}

/// The proof that a guest with this seed computed with all its secrets, as it prints it: what is in
/// its pages and what each probe left in its registers. `wide`: the upper halves of its vector
/// registers are in it.
pub(crate) fn proof(seed: u64, wide: bool) -> u64 {
    let mut digest = Digest::EMPTY;
    for round in 0..ROUNDS {
        for (probe, number) in PROBES.iter().zip(0..) {
            for register in 0..GENERAL {
                let word = word(seed, number::register(round, number, register as u64));
                digest = digest.with(word & probe.keeps(register));
            }
            for at in (0..VECTORS).filter(|at| wide || at % 4 < 2) {
                let place = number::register(round, number, (GENERAL + at) as u64);
                digest = digest.with(word(seed, place));
            }
        }
    }
    for page in 0..SECRET_PAGES {
        for at in 0..PAGE_WORDS {
            digest = digest.with(word(seed, number::memory(page, at)));
        }
    }
    digest.0
}

/// SipHash-2-4 of one word.
const fn siphash(key0: u64, key1: u64, word: u64) -> u64 {
    let mut v = [
        key0 ^ 0x736f_6d65_7073_6575,
        key1 ^ 0x646f_7261_6e64_6f6d,
        key0 ^ 0x6c79_6765_6e65_7261,
        key1 ^ 0x7465_6462_7974_6573,
    ];
    let words = [word, 8 << 56];
    let mut at = 0;
    while at < words.len() {
        v[3] ^= words[at];
        v = sip_round(sip_round(v));
        v[0] ^= words[at];
        at += 1;
    }
    v[2] ^= 0xff;
    v = sip_round(sip_round(sip_round(sip_round(v))));
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

const fn sip_round(v: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = v;
    a = a.wrapping_add(b);
    b = b.rotate_left(13) ^ a;
    a = a.rotate_left(32);
    c = c.wrapping_add(d);
    d = d.rotate_left(16) ^ c;
    a = a.wrapping_add(d);
    d = d.rotate_left(21) ^ a;
    c = c.wrapping_add(b);
    b = b.rotate_left(17) ^ c;
    c = c.rotate_left(32);
    [a, b, c, d]
}
