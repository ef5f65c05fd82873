//! What the benches share: pages, what is done to them, how that is timed, and how it is told.

pub mod candidate;
mod facts;
pub mod lists;
pub mod measure;
mod naive;
mod ours;
#[cfg(feature = "peers")]
mod peers;
mod plot;
pub mod report;
pub mod timing;

use view_core::key::SivKey;
use view_core::suite::{PageId, Stream};
use view_core::{Epoch, Gfn, MaskId, Page, PageKind, Perm, Version};

pub use facts::facts;
pub use naive::Naive;
pub use ours::{limits, ours};
#[cfg(feature = "peers")]
pub use peers::{TWINS, peers};
pub use plot::plot;

/// A key like any other.
pub fn key() -> SivKey {
    SivKey::new(core::array::from_fn(|i| u8::try_from(i).unwrap_or(0).wrapping_mul(37)))
}

/// The id of the page with this number.
pub fn id(number: u64) -> PageId {
    PageId {
        gfn: Gfn::new(number).unwrap_or(Gfn::MAX),
        version: Version::new(1).unwrap_or(Version::MAX),
        epoch: Epoch(7),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream: Stream::Image,
        excluded: false,
    }
}

/// Pages that are all different.
pub fn pages(count: usize) -> Vec<Page> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let page = |_| {
        let mut page = Page::zeroed();
        for word in page.bytes_mut().as_chunks_mut::<8>().0 {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            *word = (state ^ (state >> 33)).to_le_bytes();
        }
        page
    };
    (0..count).map(page).collect()
}
