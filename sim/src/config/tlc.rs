//! The configurations that TLC explores too, from spec/tla: one VM, one CPU, one plan a batch.

use view_core::suite::Stream;

use super::{Config, MAP, MAP_WRITABLE, PAGE, SHARE, SHARE_WRITABLE};
use crate::event::Ask;

/// One page under two views.
pub(super) const VIEW: Config = Config {
    name: "tlc-view",
    purpose: "one page shown, closed, exported and ended, counted by TLC as well",
    cpus: 1,
    asks: &[
        MAP,
        MAP_WRITABLE,
        Ask::Unmap,
        Ask::Export(Stream::Image),
        Ask::Destroy,
        Ask::Accept(0),
        SHARE,
        SHARE_WRITABLE,
        Ask::Unshare,
    ],
    reaches: &[
        "the management side wrote to an open page",
        "the management side remembered a mapping that was withdrawn",
    ],
    ..PAGE
};

/// One page away from its host.
pub(super) const PAGE_OUT: Config = Config {
    name: "tlc-page-out",
    purpose: "one page sealed, paged out and handed over anew, counted by TLC as well",
    cpus: 1,
    stores: 2,
    asks: &[
        MAP,
        Ask::Unmap,
        Ask::Export(Stream::Image),
        Ask::Seal,
        Ask::PageOut,
        Ask::PageIn(0),
        Ask::Touch,
    ],
    reaches: &["an older page was handed over", "a batch was dropped half way"],
    ..PAGE
};

/// Two pages at once.
pub(super) const TWO_PAGES: Config = Config {
    name: "tlc-two-pages",
    purpose: "two pages in two batches that compete for one replica, counted by TLC as well",
    pages: &[2],
    frames: 2,
    cpus: 1,
    versions: 1,
    batches: 2,
    raw: false,
    asks: &[MAP, Ask::Unmap, Ask::Seal, Ask::Touch],
    reaches: &["two batches were in flight"],
    ..PAGE
};
