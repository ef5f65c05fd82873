//! On what a suite runs: one of our kernels for this machine, or the portable path.

/// A way to seal pages. All of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// No line that depends on the machine. What every kernel is held against.
    Portable,
    /// x86-64 with AES-NI: one AES block an instruction.
    AesNi,
    /// x86-64 with VAES and AVX2: two AES blocks an instruction.
    Vaes256,
    /// x86-64 with VAES, VPCLMULQDQ and AVX-512 (F, BW, VL): four AES blocks an instruction.
    Vaes512,
}

impl Backend {
    /// All of them, from the slowest.
    pub const ALL: [Self; 4] = [Self::Portable, Self::AesNi, Self::Vaes256, Self::Vaes512];

    /// Whether this machine has the instructions, and its operating system keeps the registers.
    pub fn runs_here(self) -> bool {
        #[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
        {
            super::x86::runs_here(self)
        }
        #[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable))))]
        {
            self == Self::Portable
        }
    }

    /// The fastest that runs here.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|backend| backend.runs_here()).unwrap_or(Self::Portable)
    }
}
