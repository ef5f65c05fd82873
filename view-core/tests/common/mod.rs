//! What tests of sealing draw from: ids of any page, and pages of noise.

use proptest::prelude::*;
use view_core::suite::{PageId, Stream};
use view_core::{Epoch, Gfn, MaskId, Page, PageKind, Perm, Version};

prop_compose! {
    /// Any id there is.
    pub(crate) fn any_id()(
        gfn in 0..=Gfn::MAX.number(),
        version in 0..=Version::MAX.number(),
        epoch: u64,
        kind: u8,
        perm in prop_oneof![Just(Perm::Read), Just(Perm::ReadWrite)],
        mask in 0..MaskId::COUNT,
        stream in prop_oneof![Just(Stream::View), Just(Stream::Resident), Just(Stream::Image)],
        excluded: bool,
    ) -> PageId {
        PageId {
            gfn: Gfn::new(gfn).expect("in range"),
            version: Version::new(version).expect("in range"),
            epoch: Epoch(epoch),
            kind: PageKind(kind),
            perm,
            mask: MaskId::new(mask).expect("in range"),
            stream,
            excluded,
        }
    }
}

/// A page of noise: proptest draws the seed, because drawing every byte would take all day.
pub(crate) fn noise(seed: u64) -> Page {
    let mut page = Page::zeroed();
    let mut state = seed | 1;
    for word in page.bytes_mut().as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    page
}
