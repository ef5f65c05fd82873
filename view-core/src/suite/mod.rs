//! Page sealing: what is authenticated with a page, and the trait that every suite implements.
//!
//! A suite seals lists of pages, because several pages in flight are what makes two passes of AES
//! cost little more than a copy. It never sees bytes that a CPU can still change: the platform
//! copies once into staging pages of its own (spec/invariants.md, I6).

pub mod aegis;
pub mod aegis_128x4;
pub mod aes_256_gcm;
mod backend;
pub mod ctr_cmac;
pub mod gcm;
mod job;
mod lanes;
pub mod measure;
mod pmac;
pub mod pmac_siv_512;
pub mod sequence;
pub mod siv;
pub mod siv_cmac_512;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(view_core_portable)))]
#[expect(unsafe_code, reason = "see the head of the module")]
mod x86;

use core::borrow::Borrow;

pub use backend::Backend;
pub use job::{Landing, OpenJob, SealJob};

use crate::addr::{Epoch, Gfn, Version};
use crate::perm::{MaskId, PageKind, Perm};

/// Which suite sealed a page. Authenticated with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuiteId(pub u8);

/// What proves that a sealed page is the one that was meant: the synthetic IV of SIV.
pub type Tag = [u8; 16];

/// Where sealed bytes are headed. Authenticated, so that no stream's page is accepted in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Stream {
    /// A sealed replica that the management side maps or is sent.
    View = 1,
    /// Sealed in place or paged out; comes back to the same VM in the same epoch.
    Resident = 2,
    /// A sealed image (snapshot, checkpoint).
    Image = 3,
}

/// Everything that is authenticated with a page beside its bytes.
///
/// The verifier fills it in from its own table, never from the record that came with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageId {
    /// Which page.
    pub gfn: Gfn,
    /// Which sealing of it.
    pub version: Version,
    /// Which incarnation of the VM.
    pub epoch: Epoch,
    /// What the page is for.
    pub kind: PageKind,
    /// What the management side may do with it while it is open.
    pub perm: Perm,
    /// Which fields show while it is open.
    pub mask: MaskId,
    /// Where the sealed bytes are headed.
    pub stream: Stream,
    /// Whether the page is excluded from checkpoints.
    pub excluded: bool,
}

impl PageId {
    /// The 32 bytes of associated data, two AES blocks, all numbers little-endian
    /// (layout: spec/sealed-image.md, "Associated data").
    pub fn associated_data(&self, suite: SuiteId) -> [u8; 32] {
        const DOMAIN_PAGE: u8 = 0x50;
        const LOG2_PAGE_SIZE: u8 = 12;
        let flags = u8::from(self.excluded) << 2;
        let stream = match self.stream {
            Stream::View => 1,
            Stream::Resident => 2,
            Stream::Image => 3,
        };
        let head = [
            DOMAIN_PAGE,
            suite.0,
            LOG2_PAGE_SIZE,
            flags,
            stream,
            self.kind.0,
            self.perm.code(),
            self.mask.number(),
        ];
        let mut data = [0; 32];
        let words = [
            head,
            self.gfn.number().to_le_bytes(),
            self.version.number().to_le_bytes(),
            self.epoch.0.to_le_bytes(),
        ];
        for (to, word) in data.chunks_exact_mut(8).zip(words) {
            to.copy_from_slice(&word);
        }
        data
    }
}

/// A suite with its key: seals and opens lists of pages, several in flight at once.
///
/// Both take `&self`, so that one cipher serves any number of threads. Who has CPUs to spare cuts a
/// list and lends the cipher out; what comes out is the same:
///
/// ```
/// # use view_core::suite::siv_cmac_512::SivCmac512;
/// use view_core::suite::{Landing, PageCipher, PageId, SealJob};
///
/// fn seal(cipher: &SivCmac512, jobs: &mut [SealJob<'_, PageId>], threads: usize) {
///     let share = jobs.len().div_ceil(threads).max(1);
///     std::thread::scope(|scope| {
///         for jobs in jobs.chunks_mut(share) {
///             scope.spawn(move || cipher.seal(jobs, Landing::Cold));
///         }
///     });
/// }
/// # use view_core::{Epoch, Gfn, MaskId, Page, PageKind, Perm, Version};
/// # use view_core::{key::SivKey, suite::Stream};
/// # let id = PageId {
/// #     gfn: Gfn::MAX,
/// #     version: Version::ZERO,
/// #     epoch: Epoch(1),
/// #     kind: PageKind::MEMORY,
/// #     perm: Perm::Read,
/// #     mask: MaskId::ALL,
/// #     stream: Stream::Image,
/// #     excluded: false,
/// # };
/// # let cipher = SivCmac512::new(&SivKey::new([7; 64]));
/// # let plain = vec![Page::zeroed(); 131];
/// # let by = |threads| {
/// #     let mut sealed = vec![Page::zeroed(); 131];
/// #     let mut jobs: Vec<_> = plain
/// #         .iter()
/// #         .zip(&mut sealed)
/// #         .zip(0..)
/// #         .map(|((plain, sealed), n)| {
/// #             SealJob::new(PageId { gfn: Gfn::new(n).unwrap(), ..id }, plain, sealed)
/// #         })
/// #         .collect();
/// #     seal(&cipher, &mut jobs, threads);
/// #     jobs.iter().map(SealJob::tag).collect::<Vec<_>>()
/// # };
/// # assert!((2..=5).all(|threads| by(threads) == by(1)));
/// ```
pub trait PageCipher {
    /// The suite's name in records and associated data.
    const SUITE: SuiteId;
    /// How many pages the suite likes to have in flight; shorter lists work and cost more a page.
    const LANES: usize;

    /// By what pages are sealed: [`PageId`] if a repeated version does no harm beyond telling that
    /// the same page had the same bytes, [`Once`](sequence::Once) if it would give bytes away.
    type Id: Borrow<PageId>;

    /// Seals every job: on return its sealed page and its tag are those of its id and plain page.
    fn seal(&self, jobs: &mut [SealJob<'_, Self::Id>], landing: Landing);

    /// Opens every job: on return it says whether it is genuine, found in time that does not
    /// depend on how wrong it was, and its plain page holds the bytes or zeroes.
    fn open(&self, jobs: &mut [OpenJob<'_>], landing: Landing);
}
