//! The bytes of one page. They neither print nor compare, so that no log shows a guest's secret.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
use zeroize::Zeroize;

/// Bytes in a page: the only size there is.
pub const PAGE_SIZE: usize = 4096;

/// One page of bytes, aligned as a page.
///
/// ```compile_fail,E0369
/// let (a, b) = (view_core::Page::zeroed(), view_core::Page::zeroed());
/// let _ = a == b; // contents may be secret: compare tags, or bytes() on purpose
/// ```
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Page([u8; PAGE_SIZE]);

const _: () = assert!(size_of::<Page>() == PAGE_SIZE);
const _: () = assert!(align_of::<Page>() == PAGE_SIZE);

impl Page {
    /// A page of zeroes.
    pub const fn zeroed() -> Self {
        Self([0; PAGE_SIZE])
    }

    /// The bytes, to read.
    pub const fn bytes(&self) -> &[u8; PAGE_SIZE] {
        &self.0
    }

    /// The bytes, to write.
    pub const fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        &mut self.0
    }
}

impl Zeroize for Page {
    /// Word by word: what is derived would go byte by byte, eight times as slow.
    fn zeroize(&mut self) {
        let words: &mut [u64; PAGE_SIZE / 8] = zerocopy::transmute_mut!(self);
        words.zeroize();
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Page(..)")
    }
}
