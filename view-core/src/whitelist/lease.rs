//! The bounded side list of a VM: how long each open page stays open.
//!
//! The core has no clock. A deadline is in ticks of the trusted side, which asks
//! [`Leases::due`] when it likes and closes what is due.

use crate::addr::Gfn;
use crate::sync::{AtomicU64, Ordering};

const FREE: u64 = 0;
const USED: u64 = 1 << 63;
const NEVER: u64 = u64::MAX;
const FIRST_UNMAP: u64 = u64::MAX - 1;

/// How long a page stays open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expiry {
    /// Until the owner closes it.
    Never,
    /// Until the management side first drops its mapping.
    FirstUnmap,
    /// Until the trusted side's tick reaches this number.
    At(u64),
}

/// Storage for one open page's deadline: 16 bytes, zero means unused.
#[derive(Debug)]
pub struct Lease {
    page: AtomicU64,
    expiry: AtomicU64,
}

impl Lease {
    /// An unused entry.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { page: AtomicU64::new(FREE), expiry: AtomicU64::new(0) }
    }

    /// An unused entry.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self { page: AtomicU64::new(FREE), expiry: AtomicU64::new(0) }
    }

    /// Makes the entry what [`words`](Self::words) found, as [`Slot::put_words`] does a row.
    ///
    /// [`Slot::put_words`]: crate::Slot::put_words
    pub fn put_words(&self, [page, expiry]: [u64; 2]) {
        self.page.store(page, Ordering::Release);
        self.expiry.store(expiry, Ordering::Release);
    }

    /// Both words, to be kept for [`put_words`](Self::put_words).
    pub fn words(&self) -> [u64; 2] {
        [self.page.load(Ordering::Acquire), self.expiry.load(Ordering::Relaxed)]
    }
}

impl Default for Lease {
    fn default() -> Self {
        Self::new()
    }
}

/// Where in the list a page's deadline is: at most 255 pages are open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LeaseIndex(u8);

impl LeaseIndex {
    pub(crate) const NONE_CODE: u8 = u8::MAX;

    pub(crate) const fn code(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        if code == Self::NONE_CODE { None } else { Some(Self(code)) }
    }
}

/// The list, in storage that the caller owns. Entries past the 255th are never used.
#[derive(Clone, Copy, Debug)]
pub struct Leases<'s>(&'s [Lease]);

impl<'s> Leases<'s> {
    /// A list over this storage.
    pub const fn new(entries: &'s [Lease]) -> Self {
        Self(entries)
    }

    /// The open pages whose deadline is `now` or earlier.
    pub fn due(&self, now: u64) -> impl Iterator<Item = Gfn> + 's {
        self.0.iter().filter_map(move |lease| {
            let page = lease.page.load(Ordering::Acquire);
            let expiry = lease.expiry.load(Ordering::Relaxed);
            (page & USED != 0 && expiry < FIRST_UNMAP && expiry <= now)
                .then(|| Gfn::from_low_bits(page))
        })
    }

    /// Takes an entry for a page; `None` if all are taken.
    pub(crate) fn reserve(&self, gfn: Gfn, expiry: Expiry) -> Option<LeaseIndex> {
        let ticks = match expiry {
            Expiry::Never => NEVER,
            Expiry::FirstUnmap => FIRST_UNMAP,
            Expiry::At(tick) => tick.min(FIRST_UNMAP.wrapping_sub(1)),
        };
        (0..LeaseIndex::NONE_CODE).zip(self.0).find_map(|(index, lease)| {
            // Taken without the used bit first: nobody finds it before its deadline is written.
            lease
                .page
                .compare_exchange(
                    FREE,
                    gfn.number() | 1 << 62,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                )
                .ok()?;
            lease.expiry.store(ticks, Ordering::Relaxed);
            lease.page.store(gfn.number() | USED, Ordering::Release);
            Some(LeaseIndex(index))
        })
    }

    pub(crate) fn expiry(&self, index: LeaseIndex) -> Option<Expiry> {
        let lease = self.0.get(usize::from(index.0))?;
        Some(match lease.expiry.load(Ordering::Relaxed) {
            NEVER => Expiry::Never,
            FIRST_UNMAP => Expiry::FirstUnmap,
            tick => Expiry::At(tick),
        })
    }

    pub(crate) fn free(&self, index: LeaseIndex) {
        if let Some(lease) = self.0.get(usize::from(index.0)) {
            lease.page.store(FREE, Ordering::Release);
        }
    }
}
