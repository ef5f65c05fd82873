//! The virtual machine control block: what VMRUN reads, and what #VMEXIT writes, as typed bytes.
//!
//! The layout is that of the AMD64 Architecture Programmer's Manual, volume 2 ("the manual" in this
//! crate), appendix B: a control area, and after it the state of the guest. Every field can be read
//! and written here, also those that no guest gets: what a hypervisor may ask for is decided in
//! [`entry_check`](crate::entry_check). Nothing prints a guest's registers.

use core::fmt;
use core::mem::offset_of;

use view_core::{PAGE_SIZE, Page};
use zerocopy::{
    FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, transmute_mut, transmute_ref,
};
use zeroize::Zeroize;

mod control;
mod event;
mod intercepts;
mod save;

pub use control::{ControlArea, Fetched, TlbControl, VirtualInterrupt};
pub use event::{Event, EventKind};
pub use intercepts::{Intercept, Intercepts};
pub use save::{Segment, StateSaveArea, cr0, cr4, efer};

/// One control block, of a page's size and alignment (the manual, appendix B).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Vmcb {
    /// What VMRUN is to do, and why #VMEXIT came: 000h to 3FFh.
    pub control: ControlArea,
    /// The guest's registers, but for those that software switches: from 400h on.
    pub save: StateSaveArea,
}

const _: () = assert!(size_of::<Vmcb>() == PAGE_SIZE);
const _: () = assert!(align_of::<Vmcb>() == PAGE_SIZE);
const _: () = assert!(offset_of!(Vmcb, save) == 0x400);

impl Vmcb {
    /// A block of zeroes, which VMRUN refuses.
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }

    /// A page as a control block.
    pub const fn of_page(page: &Page) -> &Self {
        transmute_ref!(page)
    }

    /// A page as a control block, to write.
    pub fn of_page_mut(page: &mut Page) -> &mut Self {
        transmute_mut!(page)
    }

    /// The control block as a page.
    pub const fn as_page(&self) -> &Page {
        transmute_ref!(self)
    }
}

impl Zeroize for Vmcb {
    fn zeroize(&mut self) {
        let page: &mut Page = transmute_mut!(self);
        page.zeroize();
    }
}

impl fmt::Debug for Vmcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vmcb").field("control", &self.control).finish_non_exhaustive()
    }
}
