//! AES-256-GCM of SP 800-38D for bytes of any length: the portable path of the page suite, and what
//! the public vectors run through.
//!
//! It is made of the `aes` and `ghash` crates. It knows no page, no suite and no key hierarchy, and
//! not which nonces were used before: pages are sealed by [`Aes256Gcm`](super::aes_256_gcm), which
//! takes ids that are used once.

use core::fmt;

use aes::Aes256Enc;
use cipher::array::Array;
use cipher::consts::U16;
use cipher::typenum::Unsigned;
use cipher::{
    BlockCipherEncBackend, BlockCipherEncClosure, BlockCipherEncrypt, BlockSizeUser, KeyInit,
    ParBlocks,
};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, optimization_barrier};

use super::Tag;
use super::siv::NotGenuine;

/// Bytes of a text, at most (SP 800-38D, section 5.2.1.1).
pub const TEXT_MAX: u64 = (1 << 36) - 32;

/// The text is longer than [`TEXT_MAX`]. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the text has more than {TEXT_MAX} bytes, which GCM cannot count")
    }
}

impl core::error::Error for TooLong {}

/// What makes a text's key stream its own: 96 bits that no other text under the key has.
pub type Nonce = [u8; 12];

/// AES-256-GCM with its key.
pub struct Gcm256 {
    aes: Aes256Enc,
    hash: GHash,
}

impl Gcm256 {
    /// GCM with this AES key.
    pub fn new(key: &[u8; 32]) -> Self {
        let aes = Aes256Enc::new(key.into());
        let mut subkey = Array([0; 16]);
        aes.encrypt_block(&mut subkey);
        let hash = GHash::new(&subkey);
        subkey.zeroize();
        Self { aes, hash }
    }

    /// Encrypts `buf` in place and returns the tag that opens it again with the same nonce and
    /// `ad` (SP 800-38D, section 7.1).
    ///
    /// Two texts under one nonce give away the sum of the texts and, for all others under the key,
    /// what it takes to forge them: the caller sees to it that there are never two.
    ///
    /// # Errors
    /// [`TooLong`], before anything is changed.
    pub fn seal(&self, nonce: &Nonce, ad: &[u8], buf: &mut [u8]) -> Result<Tag, TooLong> {
        check(buf)?;
        self.ctr(nonce, buf);
        Ok(self.tag(nonce, ad, buf))
    }

    /// Decrypts `buf` in place (SP 800-38D, section 7.2).
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
        if check(buf).is_ok() && self.tag(nonce, ad, buf).ct_eq(tag).into() {
            self.ctr(nonce, buf);
            Ok(())
        } else {
            buf.zeroize();
            Err(NotGenuine)
        }
    }

    /// GCTR over the text, from the second counter on; its own inverse.
    pub(super) fn ctr(&self, nonce: &Nonce, buf: &mut [u8]) {
        self.aes.encrypt_with_backend(Ctr { nonce, buf });
    }

    /// GHASH of the associated data and the sealed text, masked with the first counter's block.
    pub(super) fn tag(&self, nonce: &Nonce, ad: &[u8], sealed: &[u8]) -> Tag {
        let mut hash = self.hash.clone();
        for string in [ad, sealed] {
            let (blocks, rest) = string.as_chunks::<16>();
            hash.update(Array::cast_slice_from_core(blocks));
            if !rest.is_empty() {
                hash.update(&[Array(padded(rest))]);
            }
        }
        hash.update(&[Array(zerocopy::transmute!([bits(ad), bits(sealed)]))]);
        let mut mask = Array(counter(nonce, 1));
        self.aes.encrypt_block(&mut mask);
        let tag = u128::from_ne_bytes(hash.finalize().0) ^ u128::from_ne_bytes(mask.0);
        mask.zeroize();
        tag.to_ne_bytes()
    }
}

impl fmt::Debug for Gcm256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gcm256(..)")
    }
}

impl ZeroizeOnDrop for Gcm256 {} // both parts wipe themselves; GHash lacks only the marker

fn check(text: &[u8]) -> Result<(), TooLong> {
    match u64::try_from(text.len()) {
        Ok(0..=TEXT_MAX) => Ok(()),
        _ => Err(TooLong),
    }
}

/// The block that a nonce of 96 bits counts up from (SP 800-38D, section 7.1): the first masks the
/// tag, the second is the text's.
pub(super) fn counter(nonce: &Nonce, number: u32) -> [u8; 16] {
    let [a, b, c]: [[u8; 4]; 3] = zerocopy::transmute!(*nonce);
    zerocopy::transmute!([a, b, c, number.to_be_bytes()])
}

/// How many bits a string has, as the last block of GHASH has it.
fn bits(string: &[u8]) -> [u8; 8] {
    u64::try_from(string.len()).unwrap_or(u64::MAX).wrapping_mul(8).to_be_bytes()
}

/// A string shorter than a block, then zeroes.
pub(super) fn padded<const N: usize>(string: &[u8]) -> [u8; N] {
    let mut block = [0; N];
    for (to, from) in block.iter_mut().zip(string) {
        *to = *from;
    }
    block
}

/// GCTR over a text (SP 800-38D, section 6.5), as many blocks at once as the backend has room for.
struct Ctr<'a> {
    nonce: &'a Nonce,
    buf: &'a mut [u8],
}

impl BlockSizeUser for Ctr<'_> {
    type BlockSize = U16;
}

impl BlockCipherEncClosure for Ctr<'_> {
    #[inline(always)]
    fn call<B: BlockCipherEncBackend<BlockSize = U16>>(self, backend: &B) {
        let mut number = 2_u32;
        let mut stream = ParBlocks::<B>::default();
        let (blocks, rest) = self.buf.as_chunks_mut::<16>();
        let after = u32::try_from(blocks.len()).unwrap_or(0).wrapping_add(number);
        for blocks in blocks.chunks_mut(B::ParBlocksSize::USIZE) {
            for block in &mut stream {
                block.0 = counter(self.nonce, number);
                number = number.wrapping_add(1);
            }
            backend.encrypt_par_blocks_inplace(&mut stream);
            for (block, key) in blocks.iter_mut().zip(&stream) {
                *block = (u128::from_ne_bytes(*block) ^ u128::from_ne_bytes(key.0)).to_ne_bytes();
            }
        }
        if !rest.is_empty() {
            let mut key = Array(counter(self.nonce, after));
            backend.encrypt_block_inplace(&mut key);
            for (byte, key) in rest.iter_mut().zip(&key) {
                *byte ^= key;
            }
            key.zeroize();
        }
        // At full width: byte by byte it would cost more than a block.
        stream = ParBlocks::<B>::default();
        optimization_barrier(&stream);
    }
}
