//! Which of a guest's acts end in an exit.

use core::fmt;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Six words of bits (the manual, appendix B, 000h to 017h).
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Intercepts([u32; Self::WORDS]);

/// Declares [`Intercept`] with what converts it from and to its number.
macro_rules! intercepts {
    (
        families { $($family:ident $first:literal $last:literal $family_doc:literal)* }
        single { $($name:ident $code:literal $doc:literal)* }
    ) => {
        /// One bit of [`Intercepts`]. The number of the bit is the code of the exit that it makes
        /// (compare appendices B and C of the manual).
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Intercept {
            $(#[doc = $family_doc] $family(u8),)*
            $(#[doc = $doc] $name,)*
        }

        impl Intercept {
            /// The intercept with this number, if there is one.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($first..=$last => Some(Self::$family(number - $first)),)*
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// The bit's number. A register or vector that is not there counts as the last one.
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$family(which) if which < $last - $first => $first + which,)*
                    $(Self::$family(_) => $last,)*
                    $(Self::$name => $code,)*
                }
            }
        }
    };
}

intercepts! {
    families {
        CrRead 0x00 0x0f "A read of this control register."
        CrWrite 0x10 0x1f "A write of this control register."
        DrRead 0x20 0x2f "A read of this debug register."
        DrWrite 0x30 0x3f "A write of this debug register."
        Exception 0x40 0x5f "The exception with this vector."
        CrWriteTrap 0x90 0x9f "After a write of this control register; for encrypted guests."
    }
    single {
        Intr 0x60 "A physical interrupt."
        Nmi 0x61 "A physical NMI."
        Smi 0x62 "A physical SMI."
        Init 0x63 "A physical INIT."
        Vintr 0x64 "A virtual interrupt is about to be taken."
        Cr0SelectiveWrite 0x65 "A write of CR0 that changes other bits than TS and MP."
        IdtrRead 0x66 "SIDT."
        GdtrRead 0x67 "SGDT."
        LdtrRead 0x68 "SLDT."
        TrRead 0x69 "STR."
        IdtrWrite 0x6a "LIDT."
        GdtrWrite 0x6b "LGDT."
        LdtrWrite 0x6c "LLDT."
        TrWrite 0x6d "LTR."
        Rdtsc 0x6e "RDTSC."
        Rdpmc 0x6f "RDPMC."
        Pushf 0x70 "PUSHF."
        Popf 0x71 "POPF."
        Cpuid 0x72 "CPUID."
        Rsm 0x73 "RSM."
        Iret 0x74 "IRET."
        SoftwareInterrupt 0x75 "INT with a vector."
        Invd 0x76 "INVD."
        Pause 0x77 "PAUSE, after as many as the filter lets through."
        Hlt 0x78 "HLT."
        Invlpg 0x79 "INVLPG."
        Invlpga 0x7a "INVLPGA."
        Io 0x7b "Ports that the map of ports names."
        Msr 0x7c "MSRs that the map of MSRs names."
        TaskSwitch 0x7d "A switch of tasks."
        FerrFreeze 0x7e "The CPU freezes for an old kind of floating-point error."
        Shutdown 0x7f "A triple fault."
        Vmrun 0x80 "VMRUN; no guest runs without this one."
        Vmmcall 0x81 "VMMCALL."
        Vmload 0x82 "VMLOAD."
        Vmsave 0x83 "VMSAVE."
        Stgi 0x84 "STGI."
        Clgi 0x85 "CLGI."
        Skinit 0x86 "SKINIT."
        Rdtscp 0x87 "RDTSCP."
        Icebp 0x88 "INT1."
        Wbinvd 0x89 "WBINVD and WBNOINVD."
        Monitor 0x8a "MONITOR and MONITORX."
        Mwait 0x8b "MWAIT and MWAITX."
        MwaitArmed 0x8c "The same, if the monitor of addresses is armed."
        Xsetbv 0x8d "XSETBV."
        Rdpru 0x8e "RDPRU."
        EferWriteTrap 0x8f "After a write of EFER; for encrypted guests."
        Invlpgb 0xa0 "INVLPGB."
        InvlpgbIllegal 0xa1 "INVLPGB with operands that are not allowed."
        Invpcid 0xa2 "INVPCID."
        Mcommit 0xa3 "MCOMMIT."
        Tlbsync 0xa4 "TLBSYNC."
        BusLock 0xa5 "Locks of the bus, after as many as the threshold lets through."
        IdleHlt 0xa6 "HLT, if no virtual interrupt waits."
    }
}

impl Intercepts {
    const WORDS: usize = 6;
    const WORD_BITS: usize = u32::BITS as usize;

    /// Nothing is intercepted.
    pub const NONE: Self = Self([0; Self::WORDS]);

    /// These.
    pub fn of(which: &[Intercept]) -> Self {
        which.iter().fold(Self::NONE, |set, &intercept| set.with(intercept))
    }

    /// Whether this one is among them.
    pub const fn has(&self, intercept: Intercept) -> bool {
        let number = intercept.number() as usize;
        self.0[number / Self::WORD_BITS] & 1 << (number % Self::WORD_BITS) != 0
    }

    /// With this one more.
    #[must_use = "the field itself is as it was"]
    pub const fn with(mut self, intercept: Intercept) -> Self {
        let number = intercept.number() as usize;
        self.0[number / Self::WORD_BITS] |= 1 << (number % Self::WORD_BITS);
        self
    }

    /// Without this one.
    #[must_use = "the field itself is as it was"]
    pub const fn without(mut self, intercept: Intercept) -> Self {
        let number = intercept.number() as usize;
        self.0[number / Self::WORD_BITS] &= !(1 << (number % Self::WORD_BITS));
        self
    }

    /// What is in either.
    #[must_use = "the field itself is as it was"]
    pub fn or(mut self, other: Self) -> Self {
        for (word, more) in self.0.iter_mut().zip(other.0) {
            *word |= more;
        }
        self
    }

    /// The number of the first bit that is set and has no name.
    pub fn first_unnamed(&self) -> Option<u8> {
        let is_set = |number: u8| {
            let number = usize::from(number);
            self.0[number / Self::WORD_BITS] & 1 << (number % Self::WORD_BITS) != 0
        };
        let bits = Self::WORDS * Self::WORD_BITS;
        let mut numbers = (0..bits).map(|number| number as u8);
        numbers.find(|&number| is_set(number) && Intercept::from_number(number).is_none())
    }
}

impl fmt::Debug for Intercepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Intercepts({:08x?})", self.0)
    }
}
