//! Which page owns which host frame: one word a frame, one table a host.
//!
//! A frame has at most one owner, and changes hands only in two steps: the management side offers
//! it to one page, the trusted side accepts it for that page (spec/invariants.md, I3 and I4).

use crate::addr::{Frame, Gfn, VmNumber};
use crate::sync::{AtomicU64, Ordering};

const ROLE_BITS: u32 = 2;
const VM_SHIFT: u32 = 8;
const GFN_SHIFT: u32 = 24;
const FREE: u64 = 0;
const OFFERED: u64 = 1;
const OWNED: u64 = 2;
const QUARANTINED: u64 = 3;

/// Storage for one host frame: 8 bytes, zero means free.
#[derive(Debug)]
pub struct Owner(AtomicU64);

impl Owner {
    /// A free frame.
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// A free frame.
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Makes the frame what [`word`](Self::word) found, as [`Slot::put_words`] does a row.
    ///
    /// [`Slot::put_words`]: crate::Slot::put_words
    pub fn put_word(&self, word: u64) {
        self.0.store(word, Ordering::Release);
    }

    /// The word, to be kept for [`put_word`](Self::put_word).
    pub fn word(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

impl Default for Owner {
    fn default() -> Self {
        Self::new()
    }
}

/// What a frame is to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nobody's; the host may do with it what it likes.
    Free,
    /// Offered to one page, not yet accepted for it.
    Offered(VmNumber, Gfn),
    /// Backs one page.
    Owned(VmNumber, Gfn),
    /// Backed a page that was poisoned; never given out again.
    Quarantined(VmNumber, Gfn),
}

/// A frame that is not what the caller took it for, or does not exist. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotYours(pub Frame);

/// The host-wide table of owners, in storage that the caller owns.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'s>(&'s [Owner]);

impl<'s> Frames<'s> {
    /// A table for frames `0..owners.len()`.
    pub const fn new(owners: &'s [Owner]) -> Self {
        Self(owners)
    }

    /// Who owns a frame; `None` if there is no such frame.
    pub fn owner(&self, frame: Frame) -> Option<Ownership> {
        let word = self.word(frame)?.load(Ordering::Acquire);
        let (_, vm, gfn) = unpack(word);
        Some(match word & 3 {
            FREE => Ownership::Free,
            OFFERED => Ownership::Offered(vm, gfn),
            OWNED => Ownership::Owned(vm, gfn),
            _ => Ownership::Quarantined(vm, gfn),
        })
    }

    /// Offers a free frame to one page. The management side's half of a donation.
    ///
    /// # Errors
    /// [`NotYours`] if the frame is not free.
    pub fn offer(&self, frame: Frame, vm: VmNumber, gfn: Gfn) -> Result<(), NotYours> {
        self.turn(frame, FREE, pack(OFFERED, vm, gfn))
    }

    /// Takes an offer back, as long as nobody accepted it.
    ///
    /// # Errors
    /// [`NotYours`] if there is no such offer.
    pub fn retract(&self, frame: Frame, vm: VmNumber, gfn: Gfn) -> Result<(), NotYours> {
        self.turn(frame, pack(OFFERED, vm, gfn), FREE)
    }

    pub(crate) fn accept(&self, frame: Frame, vm: VmNumber, gfn: Gfn) -> Result<(), NotYours> {
        self.turn(frame, pack(OFFERED, vm, gfn), pack(OWNED, vm, gfn))
    }

    /// Undoes an acceptance whose plan never took its first step.
    pub(crate) fn refuse(&self, frame: Frame, vm: VmNumber, gfn: Gfn) {
        let _ = self.turn(frame, pack(OWNED, vm, gfn), pack(OFFERED, vm, gfn));
    }

    pub(crate) fn release(&self, frame: Frame, vm: VmNumber, gfn: Gfn) {
        let _ = self.turn(frame, pack(OWNED, vm, gfn), FREE);
    }

    pub(crate) fn quarantine(&self, frame: Frame, vm: VmNumber, gfn: Gfn) {
        let _ = self.turn(frame, pack(OWNED, vm, gfn), pack(QUARANTINED, vm, gfn));
    }

    fn word(&self, frame: Frame) -> Option<&'s AtomicU64> {
        let index = usize::try_from(frame.number()).ok()?;
        self.0.get(index).map(|owner| &owner.0)
    }

    fn turn(&self, frame: Frame, from: u64, to: u64) -> Result<(), NotYours> {
        self.word(frame)
            .and_then(|word| {
                word.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).ok()
            })
            .map(|_| ())
            .ok_or(NotYours(frame))
    }
}

fn pack(role: u64, vm: VmNumber, gfn: Gfn) -> u64 {
    const { assert!(ROLE_BITS <= VM_SHIFT && VM_SHIFT + u16::BITS <= GFN_SHIFT) }
    role | (u64::from(vm.0) << VM_SHIFT) | (gfn.number() << GFN_SHIFT)
}

fn unpack(word: u64) -> (u64, VmNumber, Gfn) {
    let [role, low, high, ..] = word.to_le_bytes();
    (
        u64::from(role),
        VmNumber(u16::from_le_bytes([low, high])),
        Gfn::from_low_bits(word >> GFN_SHIFT),
    )
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_one_owner_and_changes_hands_in_two_steps() {
        let owners = [const { Owner::new() }; 2];
        let frames = Frames::new(&owners);
        let (vm, gfn, other) = (VmNumber(0xbeef), Gfn::MAX, Gfn::from_low_bits(3));
        let frame = Frame::from_low_bits(1);
        assert_eq!(frames.accept(frame, vm, gfn), Err(NotYours(frame)), "never offered");
        assert_eq!(frames.offer(frame, vm, gfn), Ok(()));
        assert_eq!(frames.offer(frame, vm, other), Err(NotYours(frame)), "offered already");
        assert_eq!(frames.accept(frame, vm, other), Err(NotYours(frame)), "offered elsewhere");
        assert_eq!(frames.accept(frame, vm, gfn), Ok(()));
        assert_eq!(frames.retract(frame, vm, gfn), Err(NotYours(frame)), "accepted");
        assert_eq!(frames.owner(frame), Some(Ownership::Owned(vm, gfn)));
        frames.quarantine(frame, vm, gfn);
        assert_eq!(frames.offer(frame, vm, gfn), Err(NotYours(frame)), "never again");
        assert_eq!(frames.owner(Frame::MAX), None);
    }
}
