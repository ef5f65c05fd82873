//! The registers of a virtual CPU that stopped: what of them shows at each exit, and what whoever
//! emulates the exit may change.
//!
//! The trusted side keeps the whole context of an exit, gives [`show`]'s to the management side,
//! takes one back, and enters the guest with what [`accept`] makes of the two (spec/invariants.md,
//! C9 and I8; the table is spec/register-masks.md).
//!
//! ```
//! use view_core::registers::{Exit, Registers, accept, show};
//! let mut kept = Registers::ZERO;
//! (kept.rax, kept.rcx, kept.r15, kept.rip) = (0x0bad_0000_0000_0001, 2, 0x5ec2e7, 0x1000);
//! let mut shown = show(Exit::Cpuid, &kept);
//! assert_eq!((shown.rax, shown.rcx, shown.r15), (1, 2, 0));
//! (shown.rax, shown.rip) = (0x16, 0x1002); // emulated: one leaf, and on to the next instruction
//! let entered = accept(Exit::Cpuid, 0x1002, &kept, &shown).expect("nothing else was changed");
//! assert_eq!((entered.rax, entered.rcx, entered.r15), (0x16, 2, 0x5ec2e7));
//! shown.r15 = 1;
//! assert_eq!(accept(Exit::Cpuid, 0x1002, &kept, &shown).expect_err("changed").0, "r15");
//! ```
#![expect(missing_debug_implementations, reason = "of types that a derive makes and hides")]

mod exit;

pub use exit::{Changed, Exit, Gprs, Masks, Operand, Part, PortSize, accept, masks, show};

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes};
use zeroize::{Zeroize, ZeroizeOnDrop};

macro_rules! registers {
    ($($doc:literal: $($name:ident)*;)*) => {
        /// A word for each register of an x86-64 CPU: a context, or a mask of bits in one.
        ///
        /// They are a guest's secrets: they neither print nor compare, and are wiped when dropped.
        #[derive(Clone, FromBytes, IntoBytes, Immutable, Zeroize, ZeroizeOnDrop)]
        #[repr(C)]
        pub struct Registers {
            $($(#[doc = $doc] pub $name: u64,)*)*
        }

        impl Registers {
            /// The names of the registers, in the order of [`words`](Self::words).
            pub const NAMES: [&'static str; size_of::<Self>() / 8] = [$($(stringify!($name)),*),*];
            /// Nothing but zeroes.
            pub const ZERO: Self = Self { $($($name: 0),*),* };
        }
    };
}

registers! {
    "A general register, in the order in which instructions number them.":
        rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15;
    "The instruction that stopped, or the next one if none did.": rip;
    "Flags.": rflags;
    "A control register.": cr0 cr2 cr3 cr4 xcr0 efer;
    "The privilege level, 0 to 3.": cpl;
    "A debug register.": dr0 dr1 dr2 dr3 dr6 dr7;
    "A segment's selector (bits 0 to 15), attributes (16 to 31) and limit (32 to 63), as in a VMCB \
     (AMD APM volume 2, appendix B).": es cs ss ds fs gs ldtr tr gdtr idtr;
    "Where a segment or a table of descriptors begins.":
        es_base cs_base ss_base ds_base fs_base gs_base ldtr_base tr_base gdtr_base idtr_base;
    "Where a system call goes, and with what.":
        star lstar cstar sfmask kernel_gs_base sysenter_cs sysenter_esp sysenter_eip;
    "How kinds of memory are cached.": pat;
    "What stands for x87, XMM, YMM and all else that XSAVE saves: a word of the platform's, which \
     keeps them. No exit shows it or lets it be changed.": extended;
}

impl Registers {
    /// The words, in the order of [`NAMES`](Self::NAMES).
    pub fn words(&self) -> &[u64; Self::NAMES.len()] {
        zerocopy::transmute_ref!(self)
    }

    /// The words, to write.
    pub fn words_mut(&mut self) -> &mut [u64; Self::NAMES.len()] {
        zerocopy::transmute_mut!(self)
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registers(..)")
    }
}
