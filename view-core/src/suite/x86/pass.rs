//! Lists of pages that a kernel reads once, whichever way it goes: sealing and opening differ in
//! which of the two pages is the sealed one, and in little else.

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
