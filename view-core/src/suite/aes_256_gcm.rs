//! A bulk suite: AES-256-GCM of SP 800-38D over whole pages, for those who can keep each version
//! for one page.
//!
//! Bit for bit [`Gcm256`] with the page's own 32 bytes of associated data, on every [`Backend`].
//! A repeated version gives away the sum of two pages and the key of the tags, so pages are sealed
//! by [`Once`] alone (spec/suites.md, "Suite 4").

use core::fmt;

use zeroize::ZeroizeOnDrop;

use super::backend::Backend;
use super::gcm::{Gcm256, Nonce};
use super::sequence::{Once, Sequence};
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
use super::x86;
use super::{Landing, OpenJob, PageCipher, PageId, SealJob, SuiteId};
use crate::key::GcmKey;

/// AES-256-GCM with its key. Suite 4.
pub struct Aes256Gcm(Engine);

/// The key, expanded for one backend.
#[cfg_attr(
    all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)),
    expect(clippy::large_enum_variant, reason = "there is no heap, and a cipher is made once")
)]
enum Engine {
    Portable(Gcm256),
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    Vaes512(x86::gcm_vaes512::Kernel),
}

impl Aes256Gcm {
    /// The suite under this key, on the fastest backend of this machine, and the versions that the
    /// key may seal. There is one such sequence a key, so the key is used up.
    pub fn new(key: GcmKey) -> (Self, Sequence) {
        (Self::opener(&key), Sequence::new())
    }

    /// The suite on one backend, if that runs on this machine and has a path for this suite.
    pub fn with_backend(key: GcmKey, backend: Backend) -> Option<(Self, Sequence)> {
        Some((Self::on(&key, backend)?, Sequence::new()))
    }

    /// The suite for who only opens what somebody else sealed: no versions come with it.
    pub fn opener(key: &GcmKey) -> Self {
        let mut backends = Backend::ALL.into_iter().rev();
        let found = backends.find_map(|backend| Self::on(key, backend));
        found.unwrap_or_else(|| Self(Engine::Portable(Gcm256::new(key.expose()))))
    }

    fn on(key: &GcmKey, backend: Backend) -> Option<Self> {
        let engine = match backend {
            Backend::Portable => Engine::Portable(Gcm256::new(key.expose())),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Backend::Vaes512 => {
                Engine::Vaes512(x86::gcm_vaes512::Kernel::new(x86::Vaes512::here()?, key))
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

impl PageCipher for Aes256Gcm {
    const SUITE: SuiteId = SuiteId(4);
    const LANES: usize = 4;

    type Id = Once;

    fn seal(&self, jobs: &mut [SealJob<'_, Once>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(gcm), _) => jobs.iter_mut().for_each(|job| seal(gcm, job)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.seal(jobs, landing),
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(gcm), _) => jobs.iter_mut().for_each(|job| open(gcm, job)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.open(jobs, landing),
        }
    }
}

fn seal(gcm: &Gcm256, job: &mut SealJob<'_, Once>) {
    let (nonce, data) = (nonce(job.id()), job.id().associated_data(Aes256Gcm::SUITE));
    let (plain, sealed) = job.pages();
    sealed.clone_from(plain);
    gcm.ctr(&nonce, sealed.bytes_mut());
    let tag = gcm.tag(&nonce, &data, sealed.bytes());
    job.settle(tag);
}

fn open(gcm: &Gcm256, job: &mut OpenJob<'_>) {
    let (nonce, data) = (nonce(job.id()), job.id().associated_data(Aes256Gcm::SUITE));
    let (sealed, plain) = job.pages();
    let tag = gcm.tag(&nonce, &data, sealed.bytes());
    plain.clone_from(sealed);
    gcm.ctr(&nonce, plain.bytes_mut());
    job.settle(&tag);
}

/// The number of the page in 40 bits and the version in 56, big-endian: 96 bits in all, as long as
/// a nonce that GCM takes as it is.
pub(super) fn nonce(id: &PageId) -> Nonce {
    let number = (u128::from(id.gfn.number()) << 56) | u128::from(id.version.number());
    let [_, a, b, c]: [[u8; 4]; 4] = zerocopy::transmute!(number.to_be_bytes());
    zerocopy::transmute!([a, b, c])
}

impl fmt::Debug for Aes256Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aes256Gcm(..)")
    }
}

impl ZeroizeOnDrop for Aes256Gcm {} // each engine wipes itself
