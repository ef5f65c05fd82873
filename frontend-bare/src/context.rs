//! A guest's whole context in the core's words, and what a control block holds where nothing shows.

use view_core::registers::{Exit, Registers, masks, show};

use crate::general::General;
use crate::vmcb::{Segment, StateSaveArea, cr0, cr4, efer};

/// Calls a macro with the registers that have the same name on both sides.
macro_rules! same_names {
    ($move:ident) => {
        $move! {
            save: rax rsp rip rflags cr0 cr2 cr3 cr4 efer dr6 dr7 star lstar cstar sfmask
                kernel_gs_base sysenter_cs sysenter_esp sysenter_eip;
            general: rbx rcx rdx rsi rdi rbp r8 r9 r10 r11 r12 r13 r14 r15;
            segments: es es_base cs cs_base ss ss_base ds ds_base fs fs_base gs gs_base
                ldtr ldtr_base tr tr_base gdtr gdtr_base idtr idtr_base;
        }
    };
}

/// What a control block and `general` have of a context. XCR0, DR0 to DR3 and what stands for XMM
/// and its like are in neither: they stay zero.
pub fn gather(save: &StateSaveArea, general: &General) -> Registers {
    let mut words = Registers::ZERO;
    macro_rules! read {
        (save: $($of_save:ident)*; general: $($of_general:ident)*;
         segments: $($segment:ident $base:ident)*;) => {
            $(words.$of_save = save.$of_save;)*
            $(words.$of_general = general.$of_general;)*
            $((words.$segment, words.$base) = (packed(save.$segment), save.$segment.base);)*
        };
    }
    same_names!(read);
    (words.cpl, words.pat) = (u64::from(save.cpl), save.g_pat);
    words
}

/// Writes back what [`gather`] reads, and nothing else.
pub fn scatter(words: &Registers, save: &mut StateSaveArea, general: &mut General) {
    macro_rules! write {
        (save: $($of_save:ident)*; general: $($of_general:ident)*;
         segments: $($segment:ident $base:ident)*;) => {
            $(save.$of_save = words.$of_save;)*
            $(general.$of_general = words.$of_general;)*
            $(save.$segment = unpacked(words.$segment, words.$base);)*
        };
    }
    same_names!(write);
    (save.cpl, save.g_pat) = (words.cpl as u8, words.pat);
}

/// Selector, attributes and limit in the order in which a control block has them.
fn packed(segment: Segment) -> u64 {
    let Segment { selector, attributes, limit, base: _ } = segment;
    u64::from(selector) | u64::from(attributes) << 16 | u64::from(limit) << 32
}

const fn unpacked(word: u64, base: u64) -> Segment {
    let (selector, attributes) = (word as u16, (word >> 16) as u16);
    Segment { selector, attributes, limit: (word >> 32) as u32, base }
}

/// What a hypervisor finds in place of a context: what shows at this exit, laid over values that
/// say nothing. Where the CPU stopped, it finds `rip`.
pub fn masked(exit: Exit, kept: &Registers, rip: u64) -> Registers {
    let (mask, neutral, mut shown) = (masks(exit).shown, neutral(), show(exit, kept));
    let words = shown.words_mut().iter_mut().zip(mask.words()).zip(neutral.words());
    for ((word, mask), neutral) in words {
        *word |= neutral & !mask;
    }
    if mask.efer & !kept.efer & efer::LMA != 0 {
        // Not in long mode, and that shows: nothing may say otherwise, or VMRUN refuses the block.
        (shown.efer, shown.cr4) = (efer::SVME, 0);
        shown.cr0 &= !cr0::PG;
    }
    shown.rip = rip;
    shown
}

/// Values that say nothing and that hypervisors cope with, also when they hand them back to VMRUN:
/// a 64-bit kernel with flat segments, and reset values beside it.
fn neutral() -> Registers {
    // Attributes and limits, where `packed` has them.
    const CODE: u64 = 0xa9b << 16;
    const DATA: u64 = 0xc93 << 16;
    const TASK: u64 = 0x8b << 16;
    const FLAT: u64 = 0xffff_ffff << 32;
    let mut words = Registers::ZERO;
    (words.rflags, words.efer) = (RFLAGS_ONE, efer::SVME | efer::LME | efer::LMA);
    (words.cr0, words.cr4) = (cr0::PE | CR0_ET | cr0::PG, cr4::PAE);
    (words.dr6, words.dr7, words.pat) = (DR6_RESET, DR7_RESET, PAT_RESET);
    (words.cs, words.tr) = (CODE | FLAT, TASK);
    let data = DATA | FLAT;
    (words.ss, words.ds, words.es, words.fs, words.gs) = (data, data, data, data, data);
    words
}

/// Bit 1 of RFLAGS, which is always set (the manual, 3.1.6).
const RFLAGS_ONE: u64 = 1 << 1;
/// What is left of a coprocessor (the manual, 3.1.1).
const CR0_ET: u64 = 1 << 4;
/// What registers are after a reset (the manual, 14.1.3 and 7.8.2).
const DR6_RESET: u64 = 0xffff_0ff0;
const DR7_RESET: u64 = 0x400;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
