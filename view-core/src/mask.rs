//! Field masks: which bytes of an open page show. The rest is zero.

use crate::page::{PAGE_SIZE, Page};
use crate::perm::MaskId;

/// A run of bytes inside a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    start: u16,
    len: u16,
}

/// A field that would end past its page; carries where, in bytes from the start of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PastPage(pub u32);

impl Field {
    /// The `len` bytes from byte `start` of a page.
    ///
    /// ```
    /// use view_core::{Field, PastPage};
    /// assert!(Field::new(4088, 8).is_ok());
    /// assert_eq!(Field::new(4088, 9), Err(PastPage(4097)));
    /// ```
    ///
    /// # Errors
    /// [`PastPage`] if the page ends before the field does.
    pub fn new(start: u16, len: u16) -> Result<Self, PastPage> {
        let end = u32::from(start).saturating_add(u32::from(len));
        let inside = usize::try_from(end).is_ok_and(|end| end <= PAGE_SIZE);
        if inside { Ok(Self { start, len }) } else { Err(PastPage(end)) }
    }

    /// The same for numbers that the compiler knows, and checks.
    ///
    /// ```compile_fail,E0080
    /// let _ = view_core::Field::fixed::<4088, 9>();
    /// ```
    pub const fn fixed<const START: u16, const LEN: u16>() -> Self {
        const { assert!(START <= 4096 && LEN <= 4096 - START, "the field ends past its page") }
        Self { start: START, len: LEN }
    }
}

/// The fields of a page that show, in any order.
///
/// ```
/// use view_core::{Field, Mask, Page};
/// let (mut page, mut shown) = (Page::zeroed(), Page::zeroed());
/// page.bytes_mut().fill(7);
/// Mask(&[Field::fixed::<8, 2>()]).apply(&page, &mut shown);
/// assert_eq!(shown.bytes()[..12], [0, 0, 0, 0, 0, 0, 0, 0, 7, 7, 0, 0]);
/// ```
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

/// There is no mask with this number: [`MaskId::ALL`] hides nothing and so is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoSuchMask(pub MaskId);

/// The fields of a mask, out of those that a VM was given; [`MaskId`] 1 is the first.
pub(crate) fn find<'m, 's>(masks: &'m [Mask<'s>], mask: MaskId) -> Option<&'m Mask<'s>> {
    masks.get(usize::from(mask.number().checked_sub(1)?))
}

/// What the management side is given of an open page, where the core says
/// [`What::Masked`](crate::What::Masked): `shown` has the mask's fields of `page`, and zeroes
/// between them. Nothing that `shown` held before is left in it.
///
/// ```
/// use view_core::{Field, Mask, MaskId, NoSuchMask, Page, show_fields};
/// let masks = [Mask(&[Field::fixed::<0, 4>()])];
/// let (mut page, mut shown) = (Page::zeroed(), Page::zeroed());
/// page.bytes_mut().fill(7);
/// let first = MaskId::new(1).expect("below 64");
/// show_fields(&masks, first, &page, &mut shown).expect("it has one mask");
/// assert_eq!(shown.bytes()[..6], [7, 7, 7, 7, 0, 0]);
/// let second = MaskId::new(2).expect("below 64");
/// assert_eq!(show_fields(&masks, second, &page, &mut shown), Err(NoSuchMask(second)));
/// assert_eq!(shown.bytes(), Page::zeroed().bytes());
/// ```
///
/// # Errors
/// [`NoSuchMask`]; then nothing shows, and `shown` is all zeroes.
pub fn show_fields(
    masks: &[Mask<'_>],
    mask: MaskId,
    page: &Page,
    shown: &mut Page,
) -> Result<(), NoSuchMask> {
    let found = find(masks, mask);
    found.unwrap_or(&Mask(&[])).apply(page, shown);
    found.map(|_| ()).ok_or(NoSuchMask(mask))
}

/// What a toolstack reads of a Xen PV guest's `start_info`, and what it sets there itself.
///
/// `nr_pages`, `shared_info`, `flags`, then frame and event channel of the store's ring, then of
/// the console's. The command line, which may hold secrets, addresses of tables and of the initial
/// ramdisk do not show. Offsets are those of `struct start_info` for 64-bit guests in Xen's
/// public/xen.h; which fields are needed was read in its xg_sr_restore_x86_pv.c.
pub const XEN_START_INFO: Mask<'static> =
    Mask(&[Field::fixed::<32, 20>(), Field::fixed::<56, 12>(), Field::fixed::<72, 12>()]);

/// What a toolstack reads of a Xen PV guest's `shared_info`: where the table of its frames is.
///
/// `max_pfn` and `pfn_to_mfn_frame_list_list`, then `p2m_cr3`, `p2m_vaddr` and `p2m_generation`,
/// as in `struct arch_shared_info` of Xen's public/arch-x86/xen.h. Pending events and each CPU's
/// `cr2` do not show.
pub const XEN_SHARED_INFO: Mask<'static> =
    Mask(&[Field::fixed::<3088, 16>(), Field::fixed::<3112, 24>()]);
