//! One page's row in the table: 32 bytes of atomics that the caller owns.
//!
//! The control word holds all that an onlooker may ask for (state, permissions, mask, kind, flags,
//! frame) and the busy bit. Who sets the busy bit by compare-and-swap owns the other three words
//! until it clears it; acquire and release on the control word order them.
//!
//! ```text
//! word 0   0..4 state   4 busy   5 excluded   6 writable   7 owes a replica   8..14 mask
//!          14..22 kind   24..64 frame
//! word 1   0..56 version   56..64 lease (0xff: none)
//! word 2,3 tag
//! ```

use crate::addr::{Frame, Version};
use crate::perm::{MaskId, PageKind, Perm};
use crate::state::PageState;
use crate::suite::Tag;
use crate::sync::{AtomicU64, Ordering};
use crate::whitelist::LeaseIndex;

const BUSY: u64 = 1 << 4;
const EXCLUDED: u64 = 1 << 5;
const WRITABLE: u64 = 1 << 6;
const OWES_REPLICA: u64 = 1 << 7;
const MASK_SHIFT: u32 = 8;
const KIND_SHIFT: u32 = 14;
const FRAME_SHIFT: u32 = 24;
const LEASE_SHIFT: u32 = 56;

/// Storage for one page: 32 bytes, zero means [`PageState::Free`].
#[derive(Debug)]
pub struct Slot([AtomicU64; 4]);

#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot>() == 32);

impl Slot {
    /// A free page.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; 4])
    }

    /// A free page.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Makes the row what [`words`](Self::words) found, for a table that moves to a new monitor or
    /// place, or goes back. Nobody may use it meanwhile, and only
    /// [`Vm::resume`](crate::Vm::resume) takes rows that are in use.
    pub fn put_words(&self, words: [u64; 4]) {
        for (to, word) in self.0.iter().zip(words) {
            to.store(word, Ordering::Release);
        }
    }

    /// The four words, for an onlooker that digests or prints the table. Not a consistent view
    /// while somebody holds the page.
    pub fn words(&self) -> [u64; 4] {
        let [control, version, low, high] = &self.0;
        [control, version, low, high].map(|word| word.load(Ordering::Acquire))
    }

    /// The page's state, for onlookers.
    pub(crate) fn glance(&self) -> PageState {
        let [control, ..] = &self.0;
        state_of(control.load(Ordering::Acquire))
    }

    /// The frame that backs the page, or the last one that did.
    pub(crate) fn last_frame(&self) -> Frame {
        let [control, ..] = &self.0;
        Frame::from_low_bits(control.load(Ordering::Acquire) >> FRAME_SHIFT)
    }

    /// Takes the page, if nobody holds it.
    pub(crate) fn take(&self) -> Option<Entry> {
        let [control, version, low, high] = &self.0;
        let word = control.load(Ordering::Relaxed);
        if word & BUSY != 0 {
            return None;
        }
        control.compare_exchange(word, word | BUSY, Ordering::Acquire, Ordering::Relaxed).ok().map(
            |word| {
                let rest = [version, low, high].map(|word| word.load(Ordering::Relaxed));
                Entry::unpack(word, rest)
            },
        )
    }

    /// Shows a state to onlookers while the page stays held.
    pub(crate) fn show(&self, entry: &Entry) {
        let [control, ..] = &self.0;
        control.store(entry.control() | BUSY, Ordering::Release);
    }

    /// Notes a version that is used up, whatever becomes of the plan. The page stays held.
    pub(crate) fn burn(&self, entry: &Entry) {
        let [_, version, ..] = &self.0;
        version.store(entry.version_word(), Ordering::Relaxed);
    }

    /// Writes the row and lets go of it.
    pub(crate) fn release(&self, entry: &Entry) {
        let [control, version, low, high] = &self.0;
        let (tag_low, tag_high) = entry.tag_words();
        version.store(entry.version_word(), Ordering::Relaxed);
        low.store(tag_low, Ordering::Relaxed);
        high.store(tag_high, Ordering::Relaxed);
        control.store(entry.control(), Ordering::Release);
    }
}

impl Default for Slot {
    fn default() -> Self {
        Self::new()
    }
}

/// A row, unpacked. Only who holds the page has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What the page is now.
    pub state: PageState,
    /// Whether checkpoints leave the page out.
    pub excluded: bool,
    /// The frame that backs the page; meaningless while it is free or paged out.
    pub frame: Frame,
    /// The version of its latest seal.
    pub version: Version,
    /// The tag of the latest seal that has to come back.
    pub tag: Tag,
    pub(crate) lease: Option<LeaseIndex>,
    /// A poisoned page may still have a place in the pool of replicas, until it is wiped.
    pub(crate) owes_replica: bool,
}

impl Entry {
    fn control(&self) -> u64 {
        let (code, perm, mask, kind) = match self.state {
            PageState::Free => (0, None, None, None),
            PageState::Building => (1, None, None, None),
            PageState::Private => (2, None, None, None),
            PageState::Replica => (3, None, None, None),
            PageState::Sealed => (4, None, None, None),
            PageState::PagedOut => (5, None, None, None),
            PageState::Open { kind, perm, mask } => (6, Some(perm), Some(mask), Some(kind)),
            PageState::Scrubbing => (7, None, None, None),
            PageState::Poisoned => (15, None, None, None),
        };
        let writable = if perm == Some(Perm::ReadWrite) { WRITABLE } else { 0 };
        let excluded = if self.excluded { EXCLUDED } else { 0 };
        let owes = if self.owes_replica { OWES_REPLICA } else { 0 };
        code | excluded
            | writable
            | owes
            | (u64::from(mask.unwrap_or(MaskId::ALL).number()) << MASK_SHIFT)
            | (u64::from(kind.unwrap_or(PageKind::MEMORY).0) << KIND_SHIFT)
            | (self.frame.number() << FRAME_SHIFT)
    }

    fn version_word(&self) -> u64 {
        let lease = self.lease.map_or(LeaseIndex::NONE_CODE, LeaseIndex::code);
        self.version.number() | (u64::from(lease) << LEASE_SHIFT)
    }

    fn tag_words(&self) -> (u64, u64) {
        let tag = u128::from_le_bytes(self.tag);
        let [low, high] = [tag, tag >> 64].map(low_half);
        (low, high)
    }

    fn unpack(control: u64, [version, low, high]: [u64; 3]) -> Self {
        let tag = u128::from(low) | (u128::from(high) << 64);
        Self {
            state: state_of(control),
            excluded: control & EXCLUDED != 0,
            owes_replica: control & OWES_REPLICA != 0,
            frame: Frame::from_low_bits(control >> FRAME_SHIFT),
            version: Version::from_low_bits(version),
            tag: tag.to_le_bytes(),
            // A zeroed slot is free, and a free page has no lease, whatever the byte says.
            lease: state_of(control)
                .terms()
                .and_then(|_| LeaseIndex::from_code(low_byte(version >> LEASE_SHIFT))),
        }
    }
}

fn state_of(control: u64) -> PageState {
    match control & 0xf {
        0 => PageState::Free,
        1 => PageState::Building,
        2 => PageState::Private,
        3 => PageState::Replica,
        4 => PageState::Sealed,
        5 => PageState::PagedOut,
        6 => PageState::Open {
            kind: PageKind(low_byte(control >> KIND_SHIFT)),
            perm: if control & WRITABLE != 0 { Perm::ReadWrite } else { Perm::Read },
            mask: MaskId::from_low_bits(low_byte(control >> MASK_SHIFT)),
        },
        7 => PageState::Scrubbing,
        _ => PageState::Poisoned,
    }
}

const fn low_byte(word: u64) -> u8 {
    let [byte, ..] = word.to_le_bytes();
    byte
}

fn low_half(word: u128) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = word.to_le_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_row_survives_packing() {
        let slot = Slot::new();
        let entry = Entry {
            state: PageState::Open {
                kind: PageKind(0xa5),
                perm: Perm::ReadWrite,
                mask: MaskId::from_low_bits(63),
            },
            excluded: true,
            owes_replica: true,
            frame: Frame::MAX,
            version: Version::MAX,
            tag: core::array::from_fn(|index| u8::try_from(index).unwrap_or_default() | 0x80),
            lease: LeaseIndex::from_code(17),
        };
        assert!(slot.take().is_some());
        slot.release(&entry);
        assert_eq!(slot.take(), Some(entry));
        assert_eq!(slot.take(), None, "a held page is not given twice");
    }

    #[test]
    fn zeroed_storage_is_a_free_page() {
        let entry = Slot::new().take().map(|entry| (entry.state, entry.version, entry.lease));
        assert_eq!(entry, Some((PageState::Free, Version::ZERO, None)));
    }
}
