//! The control area of a control block.

use core::fmt;
use core::mem::offset_of;
use core::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::event::Event;
use super::intercepts::Intercepts;
use crate::exit_code::ExitCode;

/// What VMRUN is to do, and why #VMEXIT came (the manual, appendix B, table B-1). Addresses are
/// physical ones, in bytes.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ControlArea {
    /// 000h: what the guest does not do unseen.
    pub intercepts: Intercepts,
    reserved_018: [u8; 0x24],
    /// 03Ch: how many cycles apart two PAUSEs are still counted together (15.14.4).
    pub pause_filter_threshold: u16,
    /// 03Eh: after how many PAUSEs one is intercepted (15.14.4).
    pub pause_filter_count: u16,
    /// 040h: where the map of ports is; its low 12 bits are ignored (15.10.1).
    pub io_map: u64,
    /// 048h: where the map of MSRs is; its low 12 bits are ignored (15.11).
    pub msr_map: u64,
    /// 050h: what is added to the time-stamp counter in the guest (15.30.5).
    pub tsc_offset: u64,
    /// 058h: which guest's entries of the TLB are used; 0 is the host's (15.16).
    pub asid: u32,
    /// 05Ch: a [`TlbControl`], and above it bits for return-address predictors (15.16.1).
    pub tlb_control: u32,
    /// 060h: interrupts as the guest has them.
    pub virtual_interrupt: VirtualInterrupt,
    /// 068h: [`Self::INTERRUPT_SHADOW`] and [`Self::GUEST_INTERRUPT_MASK`] (15.21.5).
    pub interrupt_state: u64,
    /// 070h: why #VMEXIT came, as a raw number: see [`Self::exit`].
    pub exit_code: u64,
    /// 078h: depends on the exit; often an address of the guest.
    pub exit_info_1: u64,
    /// 080h: depends on the exit; often an address of the guest.
    pub exit_info_2: u64,
    /// 088h: what was being delivered when #VMEXIT came (15.7.2).
    pub exit_event: Event,
    /// 090h: [`Self::NESTED_PAGING`] and what encrypted guests have.
    pub nested_features: u64,
    /// 098h: where a guest of AVIC has its local APIC (15.29).
    pub avic_apic_bar: u64,
    /// 0A0h: the block through which an encrypted guest talks (15.35).
    pub ghcb: u64,
    /// 0A8h: what the guest finds on entry (15.20).
    pub event: Event,
    /// 0B0h: the root of the nested tables (15.25.3).
    pub nested_cr3: u64,
    /// 0B8h: [`Self::LBR`], [`Self::VIRTUAL_VMLOAD`] and others.
    pub virtual_features: u64,
    /// 0C0h: which fields are as they were at the last exit: a hint for caches (15.15).
    pub clean: u32,
    reserved_0c4: [u8; 4],
    /// 0C8h: where the guest goes on after the instruction that was intercepted (15.7.1).
    pub next_rip: u64,
    /// 0D0h: the bytes of that instruction (15.8.4).
    pub fetched: Fetched,
    /// 0E0h: the virtual APIC's page (15.29).
    pub avic_backing_page: u64,
    reserved_0e8: [u8; 8],
    /// 0F0h: AVIC's table by logical number (15.29).
    pub avic_logical_table: u64,
    /// 0F8h: AVIC's table by physical number, and how long it is (15.29).
    pub avic_physical_table: u64,
    reserved_100: [u8; 8],
    /// 108h: where an encrypted guest's state is saved (15.35).
    pub vmsa: u64,
    reserved_110: [u8; 0x2d0],
    /// 3E0h: for software; the CPU neither reads nor writes it.
    pub for_software: [u8; 0x20],
}

/// Asserts at compile time where fields are.
macro_rules! at {
    ($($offset:literal $field:ident)*) => {
        $(const _: () = assert!(offset_of!(ControlArea, $field) == $offset);)*
    };
}

at! {
    0x000 intercepts 0x03c pause_filter_threshold 0x03e pause_filter_count
    0x040 io_map 0x048 msr_map 0x050 tsc_offset 0x058 asid 0x05c tlb_control
    0x060 virtual_interrupt 0x068 interrupt_state
    0x070 exit_code 0x078 exit_info_1 0x080 exit_info_2 0x088 exit_event
    0x090 nested_features 0x098 avic_apic_bar 0x0a0 ghcb 0x0a8 event
    0x0b0 nested_cr3 0x0b8 virtual_features 0x0c0 clean 0x0c8 next_rip 0x0d0 fetched
    0x0e0 avic_backing_page 0x0f0 avic_logical_table 0x0f8 avic_physical_table
    0x108 vmsa 0x3e0 for_software
}
const _: () = assert!(size_of::<ControlArea>() == 0x400);

impl ControlArea {
    /// Bit of [`Self::interrupt_state`]: no interrupt is taken before the next instruction is done.
    pub const INTERRUPT_SHADOW: u64 = 1;
    /// Bit of [`Self::interrupt_state`]: an encrypted guest's interrupt flag. VMRUN ignores it.
    pub const GUEST_INTERRUPT_MASK: u64 = 1 << 1;
    /// Bit of [`Self::nested_features`]: addresses of the guest go through nested tables (15.25).
    pub const NESTED_PAGING: u64 = 1;
    /// Bit of [`Self::virtual_features`]: the guest has records of branches of its own (15.23).
    pub const LBR: u64 = 1;
    /// Bit of [`Self::virtual_features`]: VMLOAD and VMSAVE work on guest addresses (15.33.1).
    pub const VIRTUAL_VMLOAD: u64 = 1 << 1;

    /// What the manual keeps for later, or for encrypted guests alone, as ranges of bytes.
    pub const RESERVED: [Range<usize>; 5] = [
        offset_of!(Self, reserved_018)..offset_of!(Self, pause_filter_threshold),
        offset_of!(Self, reserved_0c4)..offset_of!(Self, next_rip),
        offset_of!(Self, reserved_0e8)..offset_of!(Self, avic_logical_table),
        offset_of!(Self, reserved_100)..offset_of!(Self, vmsa),
        offset_of!(Self, reserved_110)..offset_of!(Self, for_software),
    ];

    /// Why #VMEXIT came.
    pub const fn exit(&self) -> ExitCode {
        ExitCode::from_raw(self.exit_code)
    }

    /// Whether interrupts are held back until one more instruction is done.
    pub const fn is_in_interrupt_shadow(&self) -> bool {
        self.interrupt_state & Self::INTERRUPT_SHADOW != 0
    }

    /// Whether addresses of the guest go through nested tables.
    pub const fn has_nested_paging(&self) -> bool {
        self.nested_features & Self::NESTED_PAGING != 0
    }
}

impl fmt::Debug for ControlArea {
    /// Without what an exit says of the guest: that may be an address of it, or a value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlArea")
            .field("asid", &self.asid)
            .field("exit", &self.exit())
            .finish_non_exhaustive()
    }
}

/// The bytes of an instruction that the CPU fetched (the manual, 15.8.4).
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Fetched {
    count: u8,
    bytes: [u8; Self::MAX],
}

impl Fetched {
    /// How many bytes an instruction has at most.
    pub const MAX: usize = 15;

    /// These bytes; what is beyond [`Self::MAX`] is left out.
    pub fn new(instruction: &[u8]) -> Self {
        let mut fetched = Self { count: 0, bytes: [0; Self::MAX] };
        for (to, from) in fetched.bytes.iter_mut().zip(instruction) {
            *to = *from;
            fetched.count += 1;
        }
        fetched
    }

    /// The bytes; none if the CPU gave none. Only the low four bits of the count have a meaning.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.count & 0xf)]
    }
}

impl fmt::Debug for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fetched({} bytes)", self.bytes().len())
    }
}

/// What VMRUN does to the TLB before the guest runs (the manual, 15.16.1). All other values are
/// reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TlbControl {
    /// Nothing.
    Nothing = 0,
    /// Forgets everything, of the host and of all guests.
    FlushAll = 1,
    /// Forgets what is this guest's.
    FlushGuest = 3,
    /// Forgets what is this guest's and not global.
    FlushGuestNonGlobal = 7,
}

impl TlbControl {
    /// What the field says, if it says anything.
    pub const fn from_raw(field: u32) -> Option<Self> {
        match field {
            0 => Some(Self::Nothing),
            1 => Some(Self::FlushAll),
            3 => Some(Self::FlushGuest),
            7 => Some(Self::FlushGuestNonGlobal),
            _ => None,
        }
    }
}

/// Interrupts as the guest has them (the manual, 15.21): bits, by their masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct VirtualInterrupt(pub u64);

impl VirtualInterrupt {
    /// The guest's task priority (V_TPR); the upper half of it should be zero.
    pub const TPR: u64 = 0xff;
    /// An interrupt waits (V_IRQ).
    pub const IRQ: u64 = 1 << 8;
    /// The guest's own global interrupt flag (V_GIF; 15.33.2).
    pub const GIF: u64 = 1 << 9;
    /// How urgent what waits is (V_INTR_PRIO).
    pub const PRIORITY: u64 = 0xf << 16;
    /// What waits is taken whatever the task priority is (V_IGN_TPR).
    pub const IGNORE_TPR: u64 = 1 << 20;
    /// The guest's flag and task priority hold back its own interrupts alone (V_INTR_MASKING).
    pub const MASKING: u64 = 1 << 24;
    /// STGI and CLGI of the guest work on [`Self::GIF`].
    pub const GIF_ENABLE: u64 = 1 << 25;
    /// Non-maskable interrupts are virtual, too (15.21.10).
    pub const NMI_ENABLE: u64 = 1 << 26;
    /// AVIC in x2APIC mode (15.29).
    pub const X2AVIC_ENABLE: u64 = 1 << 30;
    /// AVIC (15.29).
    pub const AVIC_ENABLE: u64 = 1 << 31;
    /// Which interrupt waits (V_INTR_VECTOR).
    pub const VECTOR: u64 = 0xff << 32;

    /// Whether all bits of a mask are set.
    pub const fn has(self, mask: u64) -> bool {
        self.0 & mask == mask
    }

    /// With all bits of a mask set, or none of them.
    #[must_use = "the field itself is as it was"]
    pub const fn with(self, mask: u64, on: bool) -> Self {
        Self(if on { self.0 | mask } else { self.0 & !mask })
    }
}
