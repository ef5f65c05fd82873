//! Page tables of Xen PV guests: with frames in them on a host, with guest frame numbers outside.
//!
//! Such a guest writes the host's own frames into its page tables. On another host, or in other
//! frames of this one, they mean nothing; so whoever saves or moves a page table makes its
//! *canonical* form, and turns that back where the guest goes on. Entries that are not present are
//! the guest's own notes, such as where it swapped a page to, and stay bit for bit
//! (spec/invariants.md, I10). The rules are those of `normalise_pagetable` and
//! `x86_pv_localise_page` in Xen's xg_sr_save_x86_pv.c and xg_sr_restore_x86_pv.c, which run
//! outside Xen; here the trusted side applies them, and seals what comes out.

use crate::addr::{Frame, Gfn};
use crate::owner::Ownership;
use crate::page::Page;
use crate::vm::Vm;

/// Which frame backs which page of one VM. Each is asked about what the other answers.
pub trait PageNumbers {
    /// The page of the VM that this frame backs; `None` if it backs none.
    fn gfn(&self, frame: Frame) -> Option<Gfn>;

    /// The frame that backs this page of the VM; `None` if none does.
    fn frame(&self, gfn: Gfn) -> Option<Frame>;
}

/// As the core's own tables say. Pages that come and go meanwhile may be found or not.
impl PageNumbers for Vm<'_> {
    fn gfn(&self, frame: Frame) -> Option<Gfn> {
        match self.frames().owner(frame)? {
            Ownership::Owned(vm, gfn) => (vm == self.number()).then_some(gfn),
            Ownership::Free | Ownership::Offered(..) | Ownership::Quarantined(..) => None,
        }
    }

    fn frame(&self, gfn: Gfn) -> Option<Frame> {
        let frame = self.last_frame(gfn)?;
        // A page that has none any more still names its last one.
        (self.gfn(frame) == Some(gfn)).then_some(frame)
    }
}

/// How far a page table is from the pages that it maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Its entries are pages.
    One,
    /// Its entries are tables of level 1.
    Two,
    /// Its entries are tables of level 2.
    Three,
    /// A root. Xen has 16 entries in it for itself (`ROOT_PAGETABLE_FIRST_XEN_SLOT`).
    Four,
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It maps more than a page at once, which Xen lets no PV guest do.
    Superpage,
    /// It names this frame or page, which is not one of the VM's.
    NotTheVms(u64),
    /// It stands where Xen has its own, and canonical forms have nothing.
    Reserved,
}

/// An entry that is in no form. Nothing of the table was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadEntry {
    /// Which one, 0 to 511.
    pub index: usize,
    /// What is wrong with it.
    pub flaw: Flaw,
}

/// AMD APM volume 2, 5.3.3: present, and larger than a page.
const PRESENT: u64 = 1;
const PAGE_SIZE_BIT: u64 = 1 << 7;
/// Bits 12 to 51 say which frame.
const NUMBER_SHIFT: u32 = 12;
const NUMBER: u64 = Frame::MAX.number() << NUMBER_SHIFT;
const _: () = assert!(Frame::BITS == Gfn::BITS);

/// Fills `canonical` with the canonical form of a page table that a guest runs on.
///
/// ```
/// use view_core::page_table::{Level, PageNumbers, canonicalise, decanonicalise};
/// use view_core::{Frame, Gfn, Page};
/// /// Page 1 is in frame 0x77; there is no other.
/// struct OnePage;
/// impl PageNumbers for OnePage {
///     fn gfn(&self, frame: Frame) -> Option<Gfn> {
///         Gfn::new(1).ok().filter(|_| frame.number() == 0x77)
///     }
///     fn frame(&self, gfn: Gfn) -> Option<Frame> {
///         Frame::new(0x77).ok().filter(|_| gfn.number() == 1)
///     }
/// }
/// let [mut table, mut canonical, mut again] = [const { Page::zeroed() }; 3];
/// table.bytes_mut()[..8].copy_from_slice(&0x7_7067_u64.to_le_bytes());
/// canonicalise(&OnePage, Level::One, &table, &mut canonical).expect("its own frame");
/// assert_eq!(canonical.bytes()[..8], 0x1067_u64.to_le_bytes());
/// decanonicalise(&OnePage, Level::One, &canonical, &mut again).expect("its own page");
/// assert_eq!(again.bytes(), table.bytes());
/// ```
///
/// # Errors
/// [`BadEntry`]; then `canonical` is all zeroes.
pub fn canonicalise(
    numbers: &impl PageNumbers,
    level: Level,
    table: &Page,
    canonical: &mut Page,
) -> Result<(), BadEntry> {
    let gfn = |number| {
        let frame = Frame::from_low_bits(number);
        let gfn = numbers.gfn(frame)?;
        (numbers.frame(gfn)? == frame).then_some(gfn.number())
    };
    rewrite(table, canonical, |index, entry| {
        if is_xens(level, index) { Ok(0) } else { renumber(level, entry, gfn) }
    })
}

/// Fills `table` with what a guest runs on here, whose canonical form is `canonical`.
///
/// # Errors
/// [`BadEntry`]; then `table` is all zeroes.
pub fn decanonicalise(
    numbers: &impl PageNumbers,
    level: Level,
    canonical: &Page,
    table: &mut Page,
) -> Result<(), BadEntry> {
    let frame = |number| {
        let gfn = Gfn::from_low_bits(number);
        let frame = numbers.frame(gfn)?;
        (numbers.gfn(frame)? == gfn).then_some(frame.number())
    };
    rewrite(canonical, table, |index, entry| match is_xens(level, index) {
        true if entry != 0 => Err(Flaw::Reserved),
        true => Ok(0),
        false => renumber(level, entry, frame),
    })
}

/// Whether Xen has this entry for itself.
fn is_xens(level: Level, index: usize) -> bool {
    level == Level::Four && (256..=271).contains(&index)
}

fn rewrite(
    from: &Page,
    to: &mut Page,
    one: impl Fn(usize, u64) -> Result<u64, Flaw>,
) -> Result<(), BadEntry> {
    let entries = from.bytes().as_chunks().0.iter().zip(to.bytes_mut().as_chunks_mut().0);
    let done = entries.enumerate().try_for_each(|(index, (from, to))| {
        let entry = one(index, u64::from_le_bytes(*from));
        *to = entry.map_err(|flaw| BadEntry { index, flaw })?.to_le_bytes();
        Ok(())
    });
    // A form is whole, or it is none.
    if done.is_err() {
        to.bytes_mut().fill(0);
    }
    done
}

/// Another number in a present entry, with every other bit as it was.
fn renumber(level: Level, entry: u64, other: impl Fn(u64) -> Option<u64>) -> Result<u64, Flaw> {
    if entry & PRESENT == 0 {
        return Ok(entry);
    }
    if entry & PAGE_SIZE_BIT != 0 && level != Level::One {
        return Err(Flaw::Superpage);
    }
    let number = (entry & NUMBER) >> NUMBER_SHIFT;
    let other = other(number).ok_or(Flaw::NotTheVms(number))?;
    Ok(entry & !NUMBER | other << NUMBER_SHIFT)
}
