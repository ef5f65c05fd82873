//! The page suite for one page at a time: SIV as in RFC 5297, with PMAC where that has CMAC.
//!
//! PMAC adds a different offset to each block, enciphers, and sums up, so the blocks of one page
//! keep a machine busy that would otherwise need many pages. That is what a fault wants that waits
//! for this page and no other. Bit for bit the AES-PMAC-SIV of the Miscreant project with one
//! string of associated data, the page's own 32 bytes, on every [`Backend`] (spec/suites.md,
//! suite 3).

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::backend::Backend;
use super::lanes::Mode;
use super::pmac::Portable;
use super::siv::{counter, dbl};
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
use super::x86;
use super::{Landing, OpenJob, PageCipher, PageId, SealJob, SuiteId, Tag};
use crate::key::SivKey;

/// PMAC-SIV with AES-256 and its key. Suite 3.
pub struct PmacSiv512(Engine);

/// The key, expanded for one backend.
#[cfg_attr(
    all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)),
    expect(clippy::large_enum_variant, reason = "there is no heap, and a cipher is made once")
)]
enum Engine {
    Portable(Portable),
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    Vaes512(x86::pmac_vaes512::Kernel),
}

impl PmacSiv512 {
    /// The suite under this key, on the fastest backend of this machine. The key's first 32 bytes
    /// authenticate, its last encrypt.
    pub fn new(key: &SivKey) -> Self {
        let mut backends = Backend::ALL.into_iter().rev();
        let found = backends.find_map(|backend| Self::with_backend(key, backend));
        found.unwrap_or_else(|| Self(Engine::Portable(Portable::new(key))))
    }

    /// The suite on one backend, if that runs on this machine.
    pub fn with_backend(key: &SivKey, backend: Backend) -> Option<Self> {
        let engine = match backend {
            Backend::Portable => Engine::Portable(Portable::new(key)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Backend::Vaes512 => {
                Engine::Vaes512(x86::pmac_vaes512::Kernel::new(x86::Vaes512::here()?, key))
            }
            _ => return None,
        };
        Some(Self(engine))
    }

    /// On what the suite runs.
    pub const fn backend(&self) -> Backend {
        match self.0 {
            Engine::Portable(_) => Backend::Portable,
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Engine::Vaes512(_) => Backend::Vaes512,
        }
    }
}

impl PageCipher for PmacSiv512 {
    const SUITE: SuiteId = SuiteId(3);
    const LANES: usize = 4;

    type Id = PageId;

    fn seal(&self, jobs: &mut [SealJob<'_>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(portable), _) => portable.seal(jobs),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.seal(jobs, landing),
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(portable), _) => portable.open(jobs),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.open(jobs, landing),
        }
    }
}

impl Mode for PmacSiv512 {
    const SYNTHETIC: bool = true;

    fn counter(_: &PageId, tag: &Tag) -> [u8; 16] {
        counter(tag).to_be_bytes()
    }
}

impl fmt::Debug for PmacSiv512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PmacSiv512(..)")
    }
}

impl ZeroizeOnDrop for PmacSiv512 {}

/// What PMAC and S2V derive from the key once: as secret as the key. `L` is the zero block,
/// enciphered, and a power of x is one in GF(2^128) (Rogaway, 2004, figure 4).
#[derive(Clone, Copy, Zeroize)]
pub(super) struct Subkeys {
    /// `L` times the powers of x from 0 to 7: all that the offsets of a page are made of.
    pub(super) powers: [[u8; 16]; 8],
    /// `L` divided by x: added to a last block that is whole. Every one of ours is.
    pub(super) inverse: [u8; 16],
    /// What S2V adds to the PMAC of the one string: `dbl(PMAC(0))` (RFC 5297, section 2.4).
    pub(super) start: [u8; 16],
}

impl Subkeys {
    /// Derives them with AES under the key that authenticates.
    pub(super) fn new(encrypt: impl Fn([u8; 16]) -> [u8; 16]) -> Self {
        let first = u128::from_be_bytes(encrypt([0; 16]));
        let inverse = half(first).to_be_bytes();
        let mut power = first;
        let powers = core::array::from_fn(|_| {
            let this = power;
            power = dbl(power);
            this.to_be_bytes()
        });
        let start = dbl(u128::from_be_bytes(encrypt(inverse))).to_be_bytes();
        Self { powers, inverse, start }
    }

    /// What PMAC adds to a block of a page before it is enciphered, by the number of the block from
    /// 1: `L` times the polynomial whose coefficients are the bits of the number's Gray code.
    pub(super) fn offset(&self, block: u8) -> [u8; 16] {
        let gray = block ^ (block >> 1);
        let taken = (0..8).zip(&self.powers).filter(|(bit, _)| gray >> bit & 1 == 1);
        taken.fold(0, |sum, (_, power)| sum ^ u128::from_ne_bytes(*power)).to_ne_bytes()
    }
}

/// Division by x in GF(2^128), big-endian, in constant time: the inverse of [`dbl`].
const fn half(block: u128) -> u128 {
    const INVERSE: u128 = (1 << 127) | 0x43;
    (block >> 1) ^ (INVERSE & 0_u128.wrapping_sub(block & 1))
}
