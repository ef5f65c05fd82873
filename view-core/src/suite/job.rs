//! What a suite is handed: one page to seal or to open, and how the bytes will be used.

use core::borrow::Borrow;
use core::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::{PageId, Tag};
use crate::page::Page;

/// Whether anyone reads the written bytes soon. The caller knows; a suite cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Soon, and on this CPU: they are left in its cache.
    Hot,
    /// Not soon: they go past the cache, which a machine that can do so does nearly twice as fast,
    /// and what the cache holds stays there.
    Cold,
}

/// One page to seal: plain bytes in, sealed bytes and tag out.
///
/// `Id` is [`PageId`] for suites that forgive a repeated version, and
/// [`Once`](super::sequence::Once) for those that do not.
pub struct SealJob<'a, Id = PageId> {
    id: Id,
    plain: &'a Page,
    sealed: &'a mut Page,
    tag: Tag,
}

impl<'a, Id: Borrow<PageId>> SealJob<'a, Id> {
    /// Seals `plain` as `id` into `sealed`, once a suite is given the job. Nobody else can change
    /// the plain bytes meanwhile.
    pub const fn new(id: Id, plain: &'a Page, sealed: &'a mut Page) -> Self {
        Self { id, plain, sealed, tag: [0; 16] }
    }

    /// What is authenticated beside the bytes.
    pub fn id(&self) -> &PageId {
        self.id.borrow()
    }

    /// The tag that a suite has computed; zeroes until then.
    pub const fn tag(&self) -> Tag {
        self.tag
    }

    /// For suites: what to read.
    pub const fn plain(&self) -> &'a Page {
        self.plain
    }

    /// For suites: the sealed bytes so far.
    pub const fn sealed(&self) -> &Page {
        self.sealed
    }

    /// For suites: what to read and where to write.
    pub const fn pages(&mut self) -> (&'a Page, &mut Page) {
        (self.plain, self.sealed)
    }

    /// For suites: the page is sealed, and this is its tag.
    pub const fn settle(&mut self, tag: Tag) {
        self.tag = tag;
    }
}

impl<Id> fmt::Debug for SealJob<'_, Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealJob(..)")
    }
}

/// One page to open: sealed bytes and tag in, plain bytes and a verdict out.
pub struct OpenJob<'a> {
    id: PageId,
    sealed: &'a Page,
    tag: Tag,
    plain: &'a mut Page,
    genuine: bool,
}

impl<'a> OpenJob<'a> {
    /// Opens `sealed` into `plain`, once a suite is given the job, if the tag is that of these
    /// bytes and of what the verifier's own table says about the page. Nobody else can change the
    /// sealed bytes meanwhile.
    pub const fn new(id: PageId, sealed: &'a Page, tag: Tag, plain: &'a mut Page) -> Self {
        Self { id, sealed, tag, plain, genuine: false }
    }

    /// What is authenticated beside the bytes.
    pub const fn id(&self) -> &PageId {
        &self.id
    }

    /// The tag that the verifier expects.
    pub const fn tag(&self) -> &Tag {
        &self.tag
    }

    /// Whether a suite found the page genuine; `false` until then.
    pub const fn genuine(&self) -> bool {
        self.genuine
    }

    /// The plain bytes of a page that is [genuine](Self::genuine), else zeroes. What was there
    /// before if no suite had the job yet.
    pub const fn plain(&self) -> &Page {
        self.plain
    }

    /// For suites: what to read.
    pub const fn sealed(&self) -> &'a Page {
        self.sealed
    }

    /// For suites: what to read and where to write.
    pub const fn pages(&mut self) -> (&'a Page, &mut Page) {
        (self.sealed, self.plain)
    }

    /// For suites: this is the tag of what was found. The page is genuine if it is the expected
    /// one, compared in time that does not depend on how wrong it is; else its bytes are wiped.
    pub fn settle(&mut self, found: &Tag) {
        // As one word: a comparison that hides each byte's result takes longer than a line of AES.
        let difference = u128::from_ne_bytes(*found) ^ u128::from_ne_bytes(self.tag);
        let [low, high]: [u64; 2] = zerocopy::transmute!(difference);
        self.genuine = (low | high).ct_eq(&0).into();
        if !self.genuine {
            self.plain.zeroize();
        }
    }
}

impl Zeroize for OpenJob<'_> {
    /// Wipes the plain bytes.
    fn zeroize(&mut self) {
        self.plain.zeroize();
    }
}

impl fmt::Debug for OpenJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenJob(..)")
    }
}
