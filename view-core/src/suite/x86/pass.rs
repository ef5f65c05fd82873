//! Lists of pages that a kernel reads once, whichever way it goes: sealing and opening differ in
//! which of the two pages is the sealed one, and in little else.

use core::arch::x86_64::{__m512i, _MM_HINT_T0, _mm_prefetch};

use super::zmm::{Lines, lines};
use crate::page::Page;
use crate::suite::sequence::Once;
use crate::suite::{OpenJob, PageId, SealJob};

/// A page on its way through a kernel.
pub(super) trait Pass<'a> {
    /// Whether the sealed bytes are those that are written, or those that are read.
    const SEALS: bool;
    /// What is authenticated beside the bytes.
    fn id(&self) -> &PageId;
    /// What is read.
    fn source(&self) -> &'a Page;
    /// What is read, and what is written.
    fn pages(&mut self) -> (&'a Page, &mut Page);
}

impl<'a> Pass<'a> for SealJob<'a, Once> {
    const SEALS: bool = true;

    fn id(&self) -> &PageId {
        self.id()
    }

    fn source(&self) -> &'a Page {
        self.plain()
    }

    fn pages(&mut self) -> (&'a Page, &mut Page) {
        self.pages()
    }
}

impl<'a> Pass<'a> for OpenJob<'a> {
    const SEALS: bool = false;

    fn id(&self) -> &PageId {
        self.id()
    }

    fn source(&self) -> &'a Page {
        self.sealed()
    }

    fn pages(&mut self) -> (&'a Page, &mut Page) {
        self.pages()
    }
}

/// The lines of `N` pages of the list from a place on, to look ahead to; `None` past its end.
pub(super) fn ahead<'a, J: Pass<'a>, const N: usize>(
    jobs: &[J],
    from: usize,
) -> [Option<&'a Lines>; N] {
    core::array::from_fn(|lane| jobs.get(from.wrapping_add(lane)).map(|job| lines(job.source())))
}

/// Asks for a line that is read soon and once, into the first-level cache. Measured: a tenth faster
/// from memory than to have it wait in the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes,vpclmulqdq")]
pub(super) fn want(line: &__m512i) {
    _mm_prefetch::<_MM_HINT_T0>(core::ptr::from_ref(line).cast());
}
