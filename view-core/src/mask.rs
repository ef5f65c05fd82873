//! Field masks: which bytes of an open page show. The rest is zero.

use crate::page::Page;

/// A run of bytes inside a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Where it starts, in bytes from the start of the page.
    pub start: u16,
    /// How long it is, in bytes.
    pub len: u16,
}

/// The fields of a page that show, in any order; what lies outside the page is ignored.
#[derive(Clone, Copy, Debug)]
pub struct Mask<'s>(pub &'s [Field]);

impl Mask<'_> {
    /// Fills `shown` with the fields of `page`, and with zeroes between them.
    pub fn apply(&self, page: &Page, shown: &mut Page) {
        shown.bytes_mut().fill(0);
        for field in self.0 {
            let start = usize::from(field.start);
            let run = start..start.saturating_add(usize::from(field.len));
            if let (Some(to), Some(from)) =
                (shown.bytes_mut().get_mut(run.clone()), page.bytes().get(run))
            {
                to.copy_from_slice(from);
            }
        }
    }
}
