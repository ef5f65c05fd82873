//! The default page suite: SIV of RFC 5297 with AES-256 over whole pages, many at once.
//!
//! Bit for bit [`Siv512`](super::siv::Siv512) with one string of associated data, the page's own
//! 32 bytes, on every [`Backend`]. What a page becomes does not depend on its neighbours.

use core::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::backend::Backend;
use super::lanes::Portable;
use super::siv::dbl;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
use super::x86;
use super::{Landing, OpenJob, PageCipher, PageId, SealJob, SuiteId};
use crate::key::SivKey;

/// SIV-CMAC-512 with its key. Suite 1.
pub struct SivCmac512(Engine);

/// The key, expanded for one backend.
#[cfg_attr(
    all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)),
    expect(clippy::large_enum_variant, reason = "there is no heap, and a cipher is made once")
)]
enum Engine {
    Portable(Portable),
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    AesNi(x86::siv_aesni::Kernel),
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    Vaes256(x86::siv_vaes256::Kernel),
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    Vaes512(x86::siv_vaes512::Kernel),
}

impl SivCmac512 {
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
            Backend::AesNi => Engine::AesNi(x86::siv_aesni::Kernel::new(x86::AesNi::here()?, key)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Backend::Vaes256 => {
                Engine::Vaes256(x86::siv_vaes256::Kernel::new(x86::Vaes256::here()?, key))
            }
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Backend::Vaes512 => {
                Engine::Vaes512(x86::siv_vaes512::Kernel::new(x86::Vaes512::here()?, key))
            }
            #[cfg(not(all(
                target_arch = "x86_64",
                target_feature = "sse2",
                not(view_core_portable)
            )))]
            Backend::AesNi | Backend::Vaes256 | Backend::Vaes512 => return None,
        };
        Some(Self(engine))
    }

    /// On what the suite runs.
    pub const fn backend(&self) -> Backend {
        match self.0 {
            Engine::Portable(_) => Backend::Portable,
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Engine::AesNi(_) => Backend::AesNi,
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Engine::Vaes256(_) => Backend::Vaes256,
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Engine::Vaes512(_) => Backend::Vaes512,
        }
    }
}

impl PageCipher for SivCmac512 {
    const SUITE: SuiteId = SuiteId(1);
    const LANES: usize = 64;

    type Id = PageId;

    fn seal(&self, jobs: &mut [SealJob<'_>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(portable), _) => portable.seal(jobs),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::AesNi(kernel), landing) => kernel.seal(jobs, landing),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes256(kernel), landing) => kernel.seal(jobs, landing),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.seal(jobs, landing),
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(portable), _) => portable.open(jobs),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::AesNi(kernel), landing) => kernel.open(jobs, landing),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes256(kernel), landing) => kernel.open(jobs, landing),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.open(jobs, landing),
        }
    }
}

impl fmt::Debug for SivCmac512 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SivCmac512(..)")
    }
}

impl ZeroizeOnDrop for SivCmac512 {}

/// What CMAC and S2V derive from the key once: as secret as the key.
#[derive(Clone, Copy, Zeroize)]
pub(super) struct Subkeys {
    /// K1 of SP 800-38B, section 6.1: masks a last block that is whole. Every one of ours is.
    pub(super) k1: [u8; 16],
    /// What S2V adds to the CMAC of the one string: `dbl(CMAC(0))` (RFC 5297, section 2.4).
    pub(super) start: [u8; 16],
}

impl Subkeys {
    /// Derives them with AES under the key that authenticates.
    pub(super) fn new(encrypt: impl Fn([u8; 16]) -> [u8; 16]) -> Self {
        let double = |block| dbl(u128::from_be_bytes(block)).to_be_bytes();
        let k1 = double(encrypt([0; 16]));
        Self { k1, start: double(encrypt(k1)) }
    }
}
