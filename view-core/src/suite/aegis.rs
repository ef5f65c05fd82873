//! AEGIS-128X4 of RFC 10032 for bytes of any length: the portable path of the page suite, and what
//! the public vectors run through.
//!
//! It is made of the AES round of the `aes` crate. It knows no page, no suite and no key hierarchy,
//! and not which nonces were used before: pages are sealed by
//! [`Aegis128X4`](super::aegis_128x4), which takes ids that are used once.

use core::fmt;

use aes::hazmat::{Block8, cipher_round_par};
use cipher::array::Array;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Tag;
use super::gcm::padded;
use super::siv::NotGenuine;

/// What makes a text's key stream its own: 128 bits that no other text under the key has.
pub type Nonce = [u8; 16];

/// Bytes that one step takes in: two blocks for each of the four lanes.
const RATE: usize = 128;

/// What a step takes in or gives out: a block for each of the four lanes, twice. Blocks are numbers
/// in the machine's own byte order: they are only ever added, and multiplied bit by bit.
type Step = [[u128; 4]; 2];

/// The two constants that every state starts with (RFC 10032, "AEGIS-128L").
pub(super) const CONSTANTS: [[u8; 16]; 2] = [
    0x0001_0102_0305_080d_1522_3759_90e9_7962_u128.to_be_bytes(),
    0xdb3d_1855_6dc2_2ff1_2011_3142_73b5_28dd_u128.to_be_bytes(),
];

/// What tells the lanes apart: each one's number, and the last one's.
pub(super) const CONTEXTS: [[u8; 16]; 4] = [
    0x0300_u128.to_le_bytes(),
    0x0301_u128.to_le_bytes(),
    0x0302_u128.to_le_bytes(),
    0x0303_u128.to_le_bytes(),
];

/// Steps without output: between the nonce and the text, and between the text and the tag.
pub(super) const STEPS_BEFORE: usize = 10;
/// As above.
pub(super) const STEPS_AFTER: usize = 7;

/// AEGIS-128X4 with its key, and tags of 128 bits.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AegisX4([u8; 16]);

impl AegisX4 {
    /// AEGIS with this key.
    pub const fn new(key: &[u8; 16]) -> Self {
        Self(*key)
    }

    /// Encrypts `buf` in place and returns the tag that opens it again with the same nonce and
    /// `ad` (RFC 10032, "Authenticated Encryption").
    ///
    /// Two texts under one nonce give away the sum of their beginnings, and may give away the
    /// state of the cipher: the caller sees to it that there are never two.
    pub fn seal(&self, nonce: &Nonce, ad: &[u8], buf: &mut [u8]) -> Tag {
        self.crypt::<true>(nonce, ad, buf)
    }

    /// Decrypts `buf` in place (RFC 10032, "Authenticated Decryption").
    ///
    /// # Errors
    /// [`NotGenuine`], after a comparison that takes as long for every wrong tag; `buf` is wiped.
    pub fn open(
        &self,
        nonce: &Nonce,
        ad: &[u8],
        buf: &mut [u8],
        tag: &Tag,
    ) -> Result<(), NotGenuine> {
        if self.crypt::<false>(nonce, ad, buf).ct_eq(tag).into() {
            Ok(())
        } else {
            buf.zeroize();
            Err(NotGenuine)
        }
    }

    /// Encrypts or decrypts `buf` in place; returns the tag that the text has.
    pub(super) fn crypt<const SEAL: bool>(&self, nonce: &Nonce, ad: &[u8], buf: &mut [u8]) -> Tag {
        let mut state = State::new(&self.0, nonce);
        state.absorb(ad);
        let (steps, rest) = buf.as_chunks_mut::<RATE>();
        for step in steps {
            state.text::<SEAL>(step);
        }
        if !rest.is_empty() {
            state.end::<SEAL>(rest);
        }
        state.tag(ad, buf)
    }
}

impl fmt::Debug for AegisX4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AegisX4(..)")
    }
}

/// Four lanes of eight blocks.
#[derive(Zeroize, ZeroizeOnDrop)]
struct State([[u128; 8]; 4]);

impl State {
    fn new(key: &[u8; 16], nonce: &Nonce) -> Self {
        let [c0, c1] = CONSTANTS.map(u128::from_ne_bytes);
        let (k, n) = (u128::from_ne_bytes(*key), u128::from_ne_bytes(*nonce));
        let mut state = Self([[k ^ n, c1, c0, c1, k ^ n, k ^ c0, k ^ c1, k ^ c0]; 4]);
        for _ in 0..STEPS_BEFORE {
            for ([_, _, _, d, _, _, _, h], name) in state.0.iter_mut().zip(CONTEXTS) {
                *d ^= u128::from_ne_bytes(name);
                *h ^= u128::from_ne_bytes(name);
            }
            state.update([[n; 4], [k; 4]]);
        }
        state
    }

    /// One round of AES for every block, keyed with the neighbour and with what is taken in.
    fn update(&mut self, [first, second]: Step) {
        for ((lane, first), second) in self.0.iter_mut().zip(first).zip(second) {
            let [a, b, c, d, e, f, g, h] = *lane;
            let mut blocks = lane_of([h, a, b, c, d, e, f, g]);
            let keys = lane_of([a ^ first, b, c, d, e ^ second, f, g, h]);
            cipher_round_par(&mut blocks, &keys);
            *lane = blocks.0.map(|block| u128::from_ne_bytes(block.0));
        }
    }

    fn absorb(&mut self, ad: &[u8]) {
        let (steps, rest) = ad.as_chunks::<RATE>();
        for step in steps {
            self.update(zerocopy::transmute!(*step));
        }
        if !rest.is_empty() {
            self.update(zerocopy::transmute!(padded::<RATE>(rest)));
        }
    }

    /// What the next bytes of a text are encrypted with.
    fn stream(&self) -> Step {
        let first = self.0.map(|[_, b, c, d, _, _, g, _]| g ^ b ^ (c & d));
        let second = self.0.map(|[_, _, c, _, _, f, g, h]| c ^ f ^ (g & h));
        [first, second]
    }

    /// Adds the stream to the next bytes of a text, and takes in the plain ones.
    fn text<const SEAL: bool>(&mut self, bytes: &mut [u8; RATE]) {
        let before: [u128; 8] = zerocopy::transmute!(*bytes);
        let mut after: [u128; 8] = zerocopy::transmute!(self.stream());
        for (after, before) in after.iter_mut().zip(before) {
            *after ^= before;
        }
        *bytes = zerocopy::transmute!(after);
        self.update(zerocopy::transmute!(if SEAL { before } else { after }));
    }

    /// As [`text`](Self::text) for the last bytes, fewer than a step has: zeroes are taken in
    /// after them.
    fn end<const SEAL: bool>(&mut self, rest: &mut [u8]) {
        let before = padded::<RATE>(rest);
        let stream: [u8; RATE] = zerocopy::transmute!(self.stream());
        for (byte, key) in rest.iter_mut().zip(stream) {
            *byte ^= key;
        }
        let plain = if SEAL { before } else { padded(rest) };
        self.update(zerocopy::transmute!(plain));
    }

    /// The tag of a text of this length with associated data of this length.
    fn tag(mut self, ad: &[u8], text: &[u8]) -> Tag {
        let lengths: u128 = zerocopy::transmute!([bits(ad), bits(text)]);
        let last = self.0.map(|[_, _, c, ..]| c ^ lengths);
        for _ in 0..STEPS_AFTER {
            self.update([last; 2]);
        }
        let blocks = self.0.iter().flat_map(|[counted @ .., _]| counted);
        blocks.fold(0, |tag, block| tag ^ block).to_ne_bytes()
    }
}

fn lane_of(blocks: [u128; 8]) -> Block8 {
    Array(blocks.map(|block| Array(block.to_ne_bytes())))
}

/// How many bits a string has.
fn bits(string: &[u8]) -> [u8; 8] {
    u64::try_from(string.len()).unwrap_or(u64::MAX).wrapping_mul(8).to_le_bytes()
}
