//! SIV of RFC 5297 for bytes of any length: what seals headers, vCPU and device state.
//!
//! It is made of the `cmac` and `ctr` crates and is not in a hurry; the page kernels equal it bit
//! for bit. It knows no page, no suite and no key hierarchy.

use core::fmt;

use aes::{Aes128Enc, Aes256Enc};
use cipher::array::Array;
use cipher::consts::U16;
use cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipherCore};
use cmac::block_api::CmacCipher;
use cmac::{Cmac, Mac};
use ctr::CtrCore;
use ctr::flavors::Ctr128BE;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Tag;

/// How many strings of associated data one call may take: the 128 minus 2 of RFC 5297, section 7.
pub const STRINGS_MAX: usize = 126;

/// The bytes are not those that were sealed under this key with this associated data.
///
/// The buffer holds zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotGenuine;

impl fmt::Display for NotGenuine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not genuine: nothing was opened, and the buffer was wiped")
    }
}

impl core::error::Error for NotGenuine {}

/// SIV with its key: a block cipher for CTR and a CMAC for S2V.
///
/// There is no separate nonce: one that is wanted is the last string of associated data
/// (RFC 5297, section 3).
pub struct Siv<C, M> {
    mac: M,
    ctr: C,
    /// CMAC of the zero block, with which S2V begins.
    zero: u128,
}

/// SIV with AES-256, `AEAD_AES_SIV_CMAC_512` of RFC 5297, section 6.3. Ours.
pub type Siv512 = Siv<Aes256Enc, Cmac<Aes256Enc>>;

/// SIV with AES-128, `AEAD_AES_SIV_CMAC_256` of RFC 5297, section 6.1: for its vectors, and for
/// peers that need it.
pub type Siv256 = Siv<Aes128Enc, Cmac<Aes128Enc>>;

impl Siv512 {
    /// SIV with AES-256: the first 32 bytes are the key of S2V, the last that of CTR
    /// (RFC 5297, section 2.6).
    pub fn new(key: &[u8; 64]) -> Self {
        let [mac, ctr]: &[[u8; 32]; 2] = zerocopy::transmute_ref!(key);
        Self::of(Cmac::new(mac.into()), Aes256Enc::new(ctr.into()))
    }
}

impl Siv256 {
    /// SIV with AES-128: the first 16 bytes are the key of S2V, the last that of CTR.
    pub fn new(key: &[u8; 32]) -> Self {
        let [mac, ctr]: &[[u8; 16]; 2] = zerocopy::transmute_ref!(key);
        Self::of(Cmac::new(mac.into()), Aes128Enc::new(ctr.into()))
    }
}

impl<C, M> Siv<C, M>
where
    C: BlockCipherEncrypt<BlockSize = U16>,
    M: Mac<OutputSize = U16> + Clone,
{
    fn of(mac: M, ctr: C) -> Self {
        let mut siv = Self { mac, ctr, zero: 0 };
        siv.zero = siv.cmac(&[&[0; 16]]);
        siv
    }

    /// Encrypts `buf` in place and returns the tag that opens it again with the same `ad`
    /// (RFC 5297, section 2.6).
    pub fn seal<const N: usize>(&self, ad: &[&[u8]; N], buf: &mut [u8]) -> Tag {
        let tag = self.s2v(ad, buf);
        self.ctr(&tag, buf);
        tag
    }

    /// Decrypts `buf` in place (RFC 5297, section 2.7).
    ///
    /// # Errors
    /// [`NotGenuine`], after a comparison that takes as long for every wrong tag; `buf` is wiped.
    pub fn open<const N: usize>(
        &self,
        ad: &[&[u8]; N],
        buf: &mut [u8],
        tag: &Tag,
    ) -> Result<(), NotGenuine> {
        self.ctr(tag, buf);
        if bool::from(self.s2v(ad, buf).ct_eq(tag)) {
            Ok(())
        } else {
            buf.zeroize();
            Err(NotGenuine)
        }
    }

    /// S2V of RFC 5297, section 2.4, with the text as the last string.
    fn s2v<const N: usize>(&self, ad: &[&[u8]; N], text: &[u8]) -> Tag {
        const { assert!(N <= STRINGS_MAX) }
        let d = ad.iter().fold(self.zero, |d, string| dbl(d) ^ self.cmac(&[string]));
        let v = match text.split_last_chunk::<16>() {
            Some((head, last)) => {
                let end = u128::from_be_bytes(*last) ^ d;
                self.cmac(&[head, &end.to_be_bytes()])
            }
            None => self.cmac(&[&(padded(text) ^ dbl(d)).to_be_bytes()]),
        };
        v.to_be_bytes()
    }

    /// CMAC of SP 800-38B over the pieces as one string.
    fn cmac(&self, pieces: &[&[u8]]) -> u128 {
        let mut mac = self.mac.clone();
        for piece in pieces {
            mac.update(piece);
        }
        u128::from_be_bytes(mac.finalize().into_bytes().0)
    }

    /// CTR of RFC 5297, section 2.5; its own inverse.
    fn ctr(&self, tag: &Tag, buf: &mut [u8]) {
        let iv = Array(counter(tag).to_be_bytes());
        // A block at a time: the wrapper around this core cuts buffers by panicking operations.
        let mut stream = CtrCore::<_, Ctr128BE>::inner_iv_init(&self.ctr, &iv);
        let mut key = Array::default();
        for block in buf.chunks_mut(key.len()) {
            stream.write_keystream_block(&mut key);
            for (byte, key) in block.iter_mut().zip(&key) {
                *byte ^= key;
            }
        }
        key.zeroize();
    }
}

impl<C, M> fmt::Debug for Siv<C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Siv(..)")
    }
}

impl<C, M> Drop for Siv<C, M> {
    fn drop(&mut self) {
        self.zero.zeroize(); // the ciphers wipe themselves
    }
}

// The parts of a Cmac (cipher, state, buffer) wipe themselves; it lacks only the marker.
impl<C: ZeroizeOnDrop + CmacCipher> ZeroizeOnDrop for Siv<C, Cmac<C>> {}

/// The first counter block: the tag with bits 31 and 63 cleared, so that 32-bit and 64-bit
/// counters never carry out of their word (RFC 5297, section 2.5).
pub(super) fn counter(tag: &Tag) -> u128 {
    const CLEARED: u128 = (1 << 31) | (1 << 63);
    u128::from_be_bytes(*tag) & !CLEARED
}

/// Multiplication by x in GF(2^128), big-endian, in constant time (RFC 5297, section 2.3).
pub(super) const fn dbl(block: u128) -> u128 {
    (block << 1) ^ (0x87 & 0_u128.wrapping_sub(block >> 127))
}

/// A text shorter than a block, then a one bit, then zeroes (RFC 5297, section 2.1).
fn padded(text: &[u8]) -> u128 {
    let mut block = [0; 16];
    for (to, from) in block.iter_mut().zip(text.iter().chain(&[0x80])) {
        *to = *from;
    }
    u128::from_be_bytes(block)
}
