//! Sealing kernels for x86-64, a file a kernel. The only room of the core with unsafe code in it.
//!
//! Pages are lent as vectors, so loads and stores are those of the language. Three things are left
//! that are unsafe, each argued where it stands: a store that goes past the cache, an empty line of
//! assembly that holds vectors in their order, and entering a function that is compiled for more
//! than the machine may have. The last takes a proof that the machine was asked: [`Vaes512`],
//! [`Vaes256`] or [`AesNi`].

pub(super) mod aegis_vaes512;
mod behind;
mod chains;
pub(super) mod ctr_cmac_vaes512;
mod eight;
pub(super) mod gcm_vaes512;
mod ghash_vaes512;
pub(super) mod measure;
mod narrow;
mod pass;
pub(super) mod pmac_vaes512;
mod schedule;
pub(super) mod siv_aesni;
mod siv_narrow;
pub(super) mod siv_vaes256;
pub(super) mod siv_vaes512;
mod stream;
mod turned;
mod zmm;

use super::backend::Backend;

cpufeatures::new!(aes_ni, "aes", "sse4.1", "ssse3");
cpufeatures::new!(avx2, "aes", "avx2", "sse4.1", "ssse3");
cpufeatures::new!(
    vaes512,
    "aes",
    "avx2",
    "sse4.1",
    "ssse3",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "vaes",
    "vpclmulqdq"
);

/// Whether this machine has what the backend needs.
pub(super) fn runs_here(backend: Backend) -> bool {
    match backend {
        Backend::Portable => true,
        Backend::AesNi => AesNi::here().is_some(),
        Backend::Vaes256 => Vaes256::here().is_some(),
        Backend::Vaes512 => Vaes512::here().is_some(),
    }
}

/// Proof that the machine has AES-NI and SSE4.1.
#[derive(Clone, Copy)]
pub(super) struct AesNi(());

/// Proof that the machine has VAES and AVX2.
#[derive(Clone, Copy)]
pub(super) struct Vaes256(());

/// Proof that the machine has VAES, VPCLMULQDQ and AVX-512 (F, BW, VL).
#[derive(Clone, Copy)]
pub(super) struct Vaes512(());

impl From<Vaes512> for AesNi {
    fn from(Vaes512(()): Vaes512) -> Self {
        Self(()) // the question was asked with AES
    }
}

impl From<Vaes256> for AesNi {
    fn from(Vaes256(()): Vaes256) -> Self {
        Self(()) // as above
    }
}

impl AesNi {
    pub(super) fn here() -> Option<Self> {
        aes_ni::get().then_some(Self(()))
    }
}

impl Vaes256 {
    pub(super) fn here() -> Option<Self> {
        (avx2::get() && has_vaes()).then_some(Self(()))
    }
}

impl Vaes512 {
    pub(super) fn here() -> Option<Self> {
        vaes512::get().then_some(Self(()))
    }
}

/// The VAES bit alone: `cpufeatures` asks for the wide registers of AVX-512 with it, which VAES at
/// 256 bits does without (Intel SDM, volume 2, CPUID leaf 7, ECX bit 9).
fn has_vaes() -> bool {
    core::arch::x86_64::__cpuid(0).eax >= 7
        && core::arch::x86_64::__cpuid_count(7, 0).ecx & (1 << 9) != 0
}
