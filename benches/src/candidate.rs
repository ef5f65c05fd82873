//! What is measured: anything that is given pages and writes other pages.
//!
//! A candidate knows nothing of clocks, caches and rounds. It answers for its own result: whoever
//! measures asks it, before the clock starts and after each turn, whether a page came out right.

use view_core::Page;
use view_core::suite::{Landing, Tag};

/// The longest list that a candidate is given in one call.
pub const LIST_MAX: usize = 512;

/// What a candidate reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Plain pages. It seals or copies them, and tells their tags if it has any.
    Plain,
    /// Pages that the default suite sealed, and their tags. It opens them.
    Sealed,
}

/// One call: at most [`LIST_MAX`] pages that follow each other.
#[derive(Debug)]
pub struct Work<'a> {
    /// The number of the first page, which is its gfn.
    pub first: u64,
    /// What is read.
    pub from: &'a [Page],
    /// What is written.
    pub to: &'a mut [Page],
    /// Where the tags go, or where they are when pages are opened.
    pub tags: &'a mut [Tag],
    /// Whether anyone reads the written bytes soon.
    pub landing: Landing,
}

/// One page of the last call, with what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// Its number.
    pub number: u64,
    /// What was read.
    pub from: &'a Page,
    /// What was written.
    pub to: &'a Page,
    /// The tag of the sealed one of the two.
    pub tag: &'a Tag,
}

/// A way to turn pages into other pages.
pub trait Candidate: Send {
    /// What reports call it.
    fn name(&self) -> &'static str;

    /// What it reads.
    fn takes(&self) -> Takes;

    /// Does the work of one call. This is what is timed.
    fn run(&mut self, work: Work<'_>);

    /// Whether the page came out right, by the way back: what was sealed opens to what it was,
    /// what was opened seals to what it was, a copy is equal. Never timed.
    fn right(&mut self, page: Outcome<'_>) -> bool;
}

/// A cipher that takes one page at a time.
pub(crate) trait PageByPage: Send {
    /// Seals a page and returns its tag; zeroes if it has none.
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag;

    /// Opens a page; whether it was genuine, or always `true` without a tag.
    fn open(&mut self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool;
}

/// A [`PageByPage`] under a name, one call of it a page.
pub(crate) struct Each<P>(pub(crate) &'static str, pub(crate) P);

impl<P: PageByPage> Candidate for Each<P> {
    fn name(&self) -> &'static str {
        self.0
    }

    fn takes(&self) -> Takes {
        Takes::Plain
    }

    fn run(&mut self, work: Work<'_>) {
        let Work { first, from, to, tags, landing: _ } = work;
        for (((number, from), to), tag) in (first..).zip(from).zip(to).zip(tags) {
            *tag = self.1.seal(number, from, to);
        }
    }

    fn right(&mut self, page: Outcome<'_>) -> bool {
        let mut plain = Page::zeroed();
        self.1.open(page.number, page.to, page.tag, &mut plain) && same(&plain, page.from)
    }
}

/// Whether two pages have the same bytes.
pub fn same(a: &Page, b: &Page) -> bool {
    a.bytes() == b.bytes()
}
