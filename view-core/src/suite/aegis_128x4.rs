//! A bulk suite: AEGIS-128X4 of RFC 10032 over whole pages, for those who can keep each version
//! for one page.
//!
//! Bit for bit [`AegisX4`] with the page's own 32 bytes of associated data, on every [`Backend`].
//! A repeated version gives away the sum of two pages and perhaps more, so pages are sealed by
//! [`Once`] alone (spec/suites.md, "Suite 5").

use core::fmt;

use zeroize::ZeroizeOnDrop;

use super::aegis::{AegisX4, Nonce};
use super::backend::Backend;
use super::sequence::{Once, Sequence};
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
use super::x86;
use super::{Landing, OpenJob, PageCipher, PageId, SealJob, SuiteId};
use crate::key::AegisKey;

/// AEGIS-128X4 with its key. Suite 5.
pub struct Aegis128X4(Engine);

/// The key, for one backend.
enum Engine {
    Portable(AegisX4),
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    Vaes512(x86::aegis_vaes512::Kernel),
}

impl Aegis128X4 {
    /// The suite under this key, on the fastest backend of this machine, and the versions that the
    /// key may seal. There is one such sequence a key, so the key is used up.
    pub fn new(key: AegisKey) -> (Self, Sequence) {
        (Self::opener(&key), Sequence::new())
    }

    /// The suite on one backend, if that runs on this machine and has a path for this suite.
    pub fn with_backend(key: AegisKey, backend: Backend) -> Option<(Self, Sequence)> {
        Some((Self::on(&key, backend)?, Sequence::new()))
    }

    /// The suite for who only opens what somebody else sealed: no versions come with it.
    pub fn opener(key: &AegisKey) -> Self {
        let mut backends = Backend::ALL.into_iter().rev();
        let found = backends.find_map(|backend| Self::on(key, backend));
        found.unwrap_or_else(|| Self(Engine::Portable(AegisX4::new(key.expose()))))
    }

    fn on(key: &AegisKey, backend: Backend) -> Option<Self> {
        let engine = match backend {
            Backend::Portable => Engine::Portable(AegisX4::new(key.expose())),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Backend::Vaes512 => {
                Engine::Vaes512(x86::aegis_vaes512::Kernel::new(x86::Vaes512::here()?, key))
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

impl PageCipher for Aegis128X4 {
    const SUITE: SuiteId = SuiteId(5);
    const LANES: usize = 2;

    type Id = Once;

    fn seal(&self, jobs: &mut [SealJob<'_, Once>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(aegis), _) => jobs.iter_mut().for_each(|job| seal(aegis, job)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.seal(jobs, landing),
        }
    }

    fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing) {
        match (&self.0, landing) {
            (Engine::Portable(aegis), _) => jobs.iter_mut().for_each(|job| open(aegis, job)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            (Engine::Vaes512(kernel), landing) => kernel.open(jobs, landing),
        }
    }
}

fn seal(aegis: &AegisX4, job: &mut SealJob<'_, Once>) {
    let (nonce, data) = (nonce(job.id()), job.id().associated_data(Aegis128X4::SUITE));
    let (plain, sealed) = job.pages();
    sealed.clone_from(plain);
    let tag = aegis.crypt::<true>(&nonce, &data, sealed.bytes_mut());
    job.settle(tag);
}

fn open(aegis: &AegisX4, job: &mut OpenJob<'_>) {
    let (nonce, data) = (nonce(job.id()), job.id().associated_data(Aegis128X4::SUITE));
    let (sealed, plain) = job.pages();
    plain.clone_from(sealed);
    let tag = aegis.crypt::<false>(&nonce, &data, plain.bytes_mut());
    job.settle(&tag);
}

/// The number of the page and the version, 64 bits each, big-endian.
pub(super) fn nonce(id: &PageId) -> Nonce {
    let number = (u128::from(id.gfn.number()) << 64) | u128::from(id.version.number());
    number.to_be_bytes()
}

impl fmt::Debug for Aegis128X4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aegis128X4(..)")
    }
}

impl ZeroizeOnDrop for Aegis128X4 {} // each engine wipes itself
