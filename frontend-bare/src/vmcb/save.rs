//! The state save area of a control block.

use core::fmt;
use core::mem::offset_of;
use core::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_mut};

/// A segment register with what is hidden behind it (the manual, appendix B, table B-2).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Bits 40 to 47 and 52 to 55 of the descriptor, as twelve bits (15.5.1).
    pub attributes: u16,
    /// The last byte's offset.
    pub limit: u32,
    /// Where it begins.
    pub base: u64,
}

impl Segment {
    /// Attribute of a code segment: 64-bit mode.
    pub const LONG: u16 = 1 << 9;
    /// Attribute of a code segment: operands of 32 bits unless said otherwise.
    pub const DEFAULT_32: u16 = 1 << 10;
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Segment(..)")
    }
}

/// The guest's registers, but for those that software switches (the manual, appendix B, table B-2;
/// offsets are those of the whole block).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
#[expect(missing_docs, reason = "registers, by their names in the manual")]
pub struct StateSaveArea {
    pub es: Segment,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub fs: Segment,
    pub gs: Segment,
    /// Limit and base alone.
    pub gdtr: Segment,
    pub ldtr: Segment,
    /// Limit and base alone.
    pub idtr: Segment,
    pub tr: Segment,
    reserved_4a0: [u8; 0x2b],
    /// Privilege level.
    pub cpl: u8,
    reserved_4cc: [u8; 4],
    pub efer: u64,
    reserved_4d8: [u8; 0x70],
    pub cr4: u64,
    /// An address of the guest's, not of the host's.
    pub cr3: u64,
    pub cr0: u64,
    pub dr7: u64,
    pub dr6: u64,
    pub rflags: u64,
    pub rip: u64,
    reserved_580: [u8; 0x58],
    pub rsp: u64,
    pub s_cet: u64,
    pub ssp: u64,
    pub isst_addr: u64,
    pub rax: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub cr2: u64,
    reserved_648: [u8; 0x20],
    /// The guest's PAT, where nested paging is on (15.25.4).
    pub g_pat: u64,
    /// This and the four after it count where records of branches are virtual (15.23).
    pub dbgctl: u64,
    pub br_from: u64,
    pub br_to: u64,
    pub last_exception_from: u64,
    pub last_exception_to: u64,
    reserved_698: [u8; 0x48],
    pub spec_ctrl: u64,
    reserved_6e8: [u8; 0x918],
}

/// Asserts at compile time where fields are, by their offsets in the whole block.
macro_rules! at {
    ($($offset:literal $field:ident)*) => {
        $(const _: () = assert!(0x400 + offset_of!(StateSaveArea, $field) == $offset);)*
    };
}

at! {
    0x400 es 0x410 cs 0x420 ss 0x430 ds 0x440 fs 0x450 gs 0x460 gdtr 0x470 ldtr 0x480 idtr 0x490 tr
    0x4cb cpl 0x4d0 efer 0x548 cr4 0x550 cr3 0x558 cr0 0x560 dr7 0x568 dr6 0x570 rflags 0x578 rip
    0x5d8 rsp 0x5e0 s_cet 0x5e8 ssp 0x5f0 isst_addr 0x5f8 rax
    0x600 star 0x608 lstar 0x610 cstar 0x618 sfmask 0x620 kernel_gs_base
    0x628 sysenter_cs 0x630 sysenter_esp 0x638 sysenter_eip 0x640 cr2
    0x668 g_pat 0x670 dbgctl 0x678 br_from 0x680 br_to
    0x688 last_exception_from 0x690 last_exception_to 0x6e0 spec_ctrl
}
const _: () = assert!(size_of::<StateSaveArea>() == 0xc00);

impl StateSaveArea {
    /// Visits what VMLOAD and VMSAVE move: each word with its index in a control block's page.
    pub fn visit_vmload_words(&mut self, mut visit: impl FnMut(usize, &mut u64)) {
        // FS and GS, LDTR, TR, STAR to SYSENTER_EIP.
        const MOVED: [Range<usize>; 4] = [0x88..0x8c, 0x8e..0x90, 0x92..0x94, 0xc0..0xc8];
        const FIRST: usize = 0x80;
        let words: &mut [u64; size_of::<Self>() / 8] = transmute_mut!(self);
        for range in MOVED {
            let moved = words.get_mut(range.start - FIRST..range.end - FIRST);
            for (index, word) in range.zip(moved.unwrap_or_default()) {
                visit(index, word);
            }
        }
    }

    /// Takes over what VMLOAD and VMSAVE move, and VMRUN does not (the manual, volume 3, VMLOAD).
    pub const fn take_vmload_state(&mut self, from: &Self) {
        (self.fs, self.gs, self.ldtr, self.tr) = (from.fs, from.gs, from.ldtr, from.tr);
        (self.star, self.lstar, self.cstar) = (from.star, from.lstar, from.cstar);
        (self.sfmask, self.kernel_gs_base) = (from.sfmask, from.kernel_gs_base);
        (self.sysenter_cs, self.sysenter_esp) = (from.sysenter_cs, from.sysenter_esp);
        self.sysenter_eip = from.sysenter_eip;
    }
}

impl fmt::Debug for StateSaveArea {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateSaveArea(..)")
    }
}

/// Bits of CR0 (the manual, 3.1.1).
pub mod cr0 {
    /// Protection.
    pub const PE: u64 = 1;
    /// Always one.
    pub const ET: u64 = 1 << 4;
    /// Also the kernel respects what is read-only.
    pub const WP: u64 = 1 << 16;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Caches are off.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4 (the manual, 3.1.3).
pub mod cr4 {
    /// Entries of page tables have 64 bits.
    pub const PAE: u64 = 1 << 5;
    /// Page tables of five levels.
    pub const LA57: u64 = 1 << 12;
    /// The operating system manages what XSAVE saves.
    pub const OSXSAVE: u64 = 1 << 18;
    /// Keys of pages.
    pub const PKE: u64 = 1 << 22;
    /// Shadow stacks.
    pub const CET: u64 = 1 << 23;
}

/// Bits of EFER (the manual, 3.1.7).
pub mod efer {
    /// SYSCALL and SYSRET.
    pub const SCE: u64 = 1;
    /// Long mode, once paging is on.
    pub const LME: u64 = 1 << 8;
    /// Long mode is on.
    pub const LMA: u64 = 1 << 10;
    /// Pages may forbid execution.
    pub const NXE: u64 = 1 << 11;
    /// SVM.
    pub const SVME: u64 = 1 << 12;
}
