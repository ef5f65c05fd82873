//! CTR and CMAC: the plainest suite, sealed in one pass by ids that are used once.
//!
//! Encrypt, then authenticate: AES-256 in CTR, then CMAC of the associated data and of the sealed
//! bytes as one string (SP 800-38A and 800-38B; spec/suites.md, suite 2). A repeated version would
//! give two pages away, so its ids are [`Once`], and it does not fit where ids repeat:
//!
//! ```compile_fail,E0271
//! # use view_core::suite::{PageCipher, PageId, ctr_cmac::CtrCmac};
//! /// Seals pages as a table of versions says.
//! struct Replicas<C: PageCipher<Id = PageId>>(C);
//! fn start(cipher: CtrCmac) -> Replicas<CtrCmac> { Replicas(cipher) }
//! ```

use core::fmt;

use zeroize::ZeroizeOnDrop;

use super::backend::Backend;
use super::lanes::{Mode, Portable};
use super::sequence::{Once, Sequence};
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
use super::x86;
use super::{Landing, OpenJob, PageCipher, PageId, SealJob, SuiteId, Tag};
use crate::key::SivKey;

/// CTR and CMAC with AES-256 and a key of their own each. Suite 2.
pub struct CtrCmac(Engine);

/// The key, expanded for one backend.
#[cfg_attr(
    all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)),
    expect(clippy::large_enum_variant, reason = "there is no heap, and a cipher is made once")
)]
enum Engine {
    Portable(Portable<CtrCmac>),
    #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
    Vaes512(x86::ctr_cmac_vaes512::Kernel),
}

impl CtrCmac {
    /// The suite under this key, on the fastest backend of this machine, and the versions that it
    /// may seal by. The key's first 32 bytes authenticate, its last encrypt. It is used up: a
    /// second sequence of the same key would repeat the first one's versions.
    #[expect(clippy::needless_pass_by_value, reason = "whoever has sealed with a key, had it")]
    pub fn new(key: SivKey) -> (Self, Sequence) {
        (Self::opener(&key), Sequence::new())
    }

    /// The same on one backend, if that runs on this machine.
    #[expect(clippy::needless_pass_by_value, reason = "as above")]
    pub fn with_backend(key: SivKey, backend: Backend) -> Option<(Self, Sequence)> {
        Self::on(&key, backend).map(|suite| (suite, Sequence::new()))
    }

    /// The suite for who opens what others sealed: without a sequence it cannot seal.
    pub fn opener(key: &SivKey) -> Self {
        let mut backends = Backend::ALL.into_iter().rev();
        let found = backends.find_map(|backend| Self::on(key, backend));
        found.unwrap_or_else(|| Self(Engine::Portable(Portable::new(key))))
    }

    fn on(key: &SivKey, backend: Backend) -> Option<Self> {
        let engine = match backend {
            Backend::Portable => Engine::Portable(Portable::new(key)),
            #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
            Backend::Vaes512 => {
                Engine::Vaes512(x86::ctr_cmac_vaes512::Kernel::new(x86::Vaes512::here()?, key))
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

impl PageCipher for CtrCmac {
    const SUITE: SuiteId = SuiteId(2);
    const LANES: usize = 64;

    type Id = Once;

    fn seal(&self, jobs: &mut [SealJob<'_, Once>], landing: Landing) {
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

impl Mode for CtrCmac {
    const SYNTHETIC: bool = false;

    fn counter(id: &PageId, _: &Tag) -> [u8; 16] {
        counter(id)
    }
}

impl fmt::Debug for CtrCmac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CtrCmac(..)")
    }
}

impl ZeroizeOnDrop for CtrCmac {}

/// The first counter block of a page: the suite (8 bits), the gfn (48), the version (64) and the
/// number of the block (8), big-endian. A page has 256 blocks, so the last byte never carries.
pub(super) fn counter(id: &PageId) -> [u8; 16] {
    let [_, _, gfn @ ..] = id.gfn.number().to_be_bytes();
    let SuiteId(suite) = CtrCmac::SUITE;
    let mut block = [0; 16];
    let fields = [&[suite][..], &gfn, &id.version.number().to_be_bytes()];
    for (to, from) in block.iter_mut().zip(fields.into_iter().flatten()) {
        *to = *from;
    }
    block
}
