//! Keys, from the root down to one per use. They do not print, compare or linger.
//!
//! Every step is the counter-mode KDF of SP 800-108r1, section 4.1, with AES-256-CMAC. Keys,
//! salts and randomness come from the caller; nothing here has a clock or dice.

use core::fmt;

use aes::Aes256Enc;
use cipher::array::Array;
use cipher::{BlockCipherEncrypt, KeyInit};
use cmac::{Cmac, Mac};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::addr::{Epoch, VmId};
use crate::suite::{Stream, SuiteId};

/// A key of another length than 32 bytes was offered; carries the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength(pub usize);

impl fmt::Display for WrongLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a root key has 32 bytes, not {}", self.0)
    }
}

impl core::error::Error for WrongLength {}

/// What makes an epoch's keys new even where its number was used before: 16 fresh random bytes
/// from the caller for every restore, rollback, fork, clone and import. Not a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(pub [u8; 16]);

/// The name of a stream in the derivation of its key: two streams never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamId(pub [u8; 16]);

impl Stream {
    /// The stream's name in the derivation of its key: ASCII, padded with zeroes.
    pub const fn id(self) -> StreamId {
        match self {
            Self::View => StreamId(*b"view\0\0\0\0\0\0\0\0\0\0\0\0"),
            Self::Resident => StreamId(*b"resident\0\0\0\0\0\0\0\0"),
            Self::Image => StreamId(*b"image\0\0\0\0\0\0\0\0\0\0\0"),
        }
    }
}

/// A key that is used up by what it is given to: it is not copied.
macro_rules! key_once {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; $bytes]);

        impl $name {
            /// The key with these bytes, derived or unwrapped elsewhere. The argument is a copy:
            /// the caller wipes its own.
            pub const fn new(bytes: [u8; $bytes]) -> Self {
                Self(bytes)
            }

            /// The secret bytes, on purpose: to key a cipher or to wrap the key for a peer.
            pub const fn expose(&self) -> &[u8; $bytes] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident, $bytes:literal) => {
        key_once!($(#[$doc])* #[derive(Clone)] $name, $bytes);
    };
}

key!(
    /// The owner's key, from which all of an owner's VMs have theirs.
    ///
    /// ```compile_fail,E0369
    /// let (a, b) = (view_core::key::RootKey::new([1; 32]), view_core::key::RootKey::new([1; 32]));
    /// let _ = a == b; // keys do not compare: compare commitments
    /// ```
    RootKey, 32
);
key!(
    /// One VM's key, for its whole life.
    VmKey, 32
);
key!(
    /// The key of one incarnation of a VM: everything that is sealed in it hangs from here.
    EpochKey, 32
);
key!(
    /// What a page suite takes: the first half authenticates, the second encrypts.
    SivKey, 64
);
key_once!(
    /// The key of [`Aes256Gcm`](crate::suite::aes_256_gcm::Aes256Gcm).
    ///
    /// ```compile_fail,E0277
    /// fn copied<T: Clone>() {}
    /// copied::<view_core::key::GcmKey>(); // two sequences would seal under one key
    /// ```
    GcmKey, 32
);
key_once!(
    /// The key of [`Aegis128X4`](crate::suite::aegis_128x4::Aegis128X4).
    ///
    /// ```compile_fail,E0277
    /// fn copied<T: Clone>() {}
    /// copied::<view_core::key::AegisKey>(); // as above
    /// ```
    AegisKey, 16
);
key!(
    /// The CMAC key of manifests, which list the pages of an image and their tags.
    ManifestKey, 32
);
key!(
    /// The key of [`Siv512`](crate::suite::siv::Siv512) for headers, vCPU and device state.
    StateKey, 64
);

impl TryFrom<&[u8]> for RootKey {
    type Error = WrongLength;

    fn try_from(bytes: &[u8]) -> Result<Self, WrongLength> {
        bytes.try_into().map(Self).map_err(|_| WrongLength(bytes.len()))
    }
}

impl RootKey {
    /// The key of the VM with this name.
    pub fn vm(&self, vm: &VmId) -> VmKey {
        let mut key = VmKey([0; 32]);
        derive(&self.0, b"hv-page/vm/1", &[&vm.0], [0, 0, 1, 0], &mut key.0);
        key
    }
}

impl VmKey {
    /// The key of one incarnation of the VM, under one suite.
    pub fn epoch(&self, epoch: Epoch, salt: &Salt, suite: SuiteId) -> EpochKey {
        let mut key = EpochKey([0; 32]);
        let context: [&[u8]; 3] = [&epoch.0.to_be_bytes(), &salt.0, &[suite.0]];
        derive(&self.0, b"hv-page/epoch/1", &context, [0, 0, 1, 0], &mut key.0);
        key
    }
}

/// The two blocks that a commitment encrypts. Our own choice: neither is the zero block, which
/// makes the subkeys of CMAC, and neither begins a message of the KDF, which starts with a label
/// ("hv-page/") or with a counter (three zero bytes).
const COMMITMENT_BLOCKS: [[u8; 16]; 2] = [*b"pageveil commit0", *b"pageveil commit1"];

impl EpochKey {
    /// The key under which the pages of one stream are sealed.
    pub fn siv(&self, stream: StreamId) -> SivKey {
        let mut key = SivKey([0; 64]);
        derive(&self.0, b"hv-page/siv/1", &[&stream.0], [0, 0, 2, 0], &mut key.0);
        key
    }

    /// The key under which suite 4 seals the pages of one stream. To derive it twice and seal with
    /// both is to repeat versions.
    pub fn gcm(&self, stream: StreamId) -> GcmKey {
        let mut key = GcmKey([0; 32]);
        derive(&self.0, b"hv-page/gcm/1", &[&stream.0], [0, 0, 1, 0], &mut key.0);
        key
    }

    /// The key under which suite 5 seals the pages of one stream. To derive it twice and seal with
    /// both is to repeat versions.
    pub fn aegis(&self, stream: StreamId) -> AegisKey {
        let mut key = AegisKey([0; 16]);
        derive(&self.0, b"hv-page/aegis/1", &[&stream.0], [0, 0, 0, 128], &mut key.0);
        key
    }

    /// The key that authenticates manifests.
    pub fn manifest(&self) -> ManifestKey {
        let mut key = ManifestKey([0; 32]);
        derive(&self.0, b"hv-page/manifest/1", &[], [0, 0, 1, 0], &mut key.0);
        key
    }

    /// The key that seals headers, vCPU and device state.
    pub fn state(&self) -> StateKey {
        let mut key = StateKey([0; 64]);
        derive(&self.0, b"hv-page/state/1", &[], [0, 0, 2, 0], &mut key.0);
        key
    }

    /// 32 public bytes that fit this key and no other that anyone can find (about 2^128 work in
    /// the ideal-cipher model): AES-256 of two fixed blocks.
    ///
    /// SIV alone does not commit to its key; a stream carries this in front, and it is checked
    /// first. Our own design, not a standard.
    pub fn commitment(&self) -> [u8; 32] {
        let aes = Aes256Enc::new((&self.0).into());
        let blocks = COMMITMENT_BLOCKS.map(|block| {
            let mut block = Array(block);
            aes.encrypt_block(&mut block);
            block.0
        });
        zerocopy::transmute!(blocks)
    }

    /// Whether the commitment is this key's, in time that does not depend on how wrong it is.
    pub fn commitment_matches(&self, commitment: &[u8; 32]) -> bool {
        self.commitment().ct_eq(commitment).into()
    }
}

/// The counter-mode KDF of SP 800-108r1, section 4.1, with AES-256-CMAC and K(0), the section's
/// own remedy for key control when the PRF is CMAC:
///
/// ```text
/// K(0) = CMAC(key, label || 00 || context || bits)
/// K(i) = CMAC(key, i || label || 00 || context || bits || K(0))    i = 1, 2, ..
/// ```
///
/// `i` and `bits` are 32 bits, big-endian; `bits` is the length of `out`.
fn derive(key: &[u8; 32], label: &[u8], context: &[&[u8]], bits: [u8; 4], out: &mut [u8]) {
    let prf = |counter: &[u8], last: &[u8]| {
        let mut mac = Cmac::<Aes256Enc>::new(key.into());
        mac.update(counter);
        mac.update(label);
        mac.update(&[0]);
        for piece in context {
            mac.update(piece);
        }
        mac.update(&bits);
        mac.update(last);
        Zeroizing::new(mac.finalize().into_bytes().0)
    };
    let k0 = prf(&[], &[]);
    for (counter, block) in (1..=4_u32).zip(out.chunks_exact_mut(16)) {
        block.copy_from_slice(&*prf(&counter.to_be_bytes(), &*k0));
    }
}

/// How many pages a key has sealed. Counted by who holds the key, before the pages are sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wear(u64);

/// What a key's wear asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Carry on.
    Fresh,
    /// Begin a new epoch soon.
    Rekey,
}

/// The key may not seal that many pages more. Nothing was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent;

impl Wear {
    /// From here on a new epoch is due: 2^44 blocks, a forger's chance about 2^-40.
    pub const REKEY: u64 = 1 << 36;
    /// No page is sealed past this: the 2^48 blocks of SP 800-38B, appendix B.
    pub const STOP: u64 = 1 << 40;

    /// Of a new key.
    pub const NONE: Self = Self(0);

    /// How many pages it has sealed.
    pub const fn pages(self) -> u64 {
        self.0
    }

    /// Counts `pages` more.
    ///
    /// # Errors
    /// [`Spent`] if that would go past [`Self::STOP`].
    pub const fn add(self, pages: u64) -> Result<(Self, Advice), Spent> {
        match self.0.checked_add(pages) {
            Some(sum) if sum < Self::REKEY => Ok((Self(sum), Advice::Fresh)),
            Some(sum) if sum <= Self::STOP => Ok((Self(sum), Advice::Rekey)),
            Some(_) | None => Err(Spent),
        }
    }
}
