//! What is asked of a hypervisor's control block before any of it is used.
//!
//! The block is the monitor's own copy: the hypervisor's may change while it is looked at. What the
//! CPU would refuse is refused here (the manual, 15.5.1), for the monitor's VMRUN must not fail for
//! what its hypervisor wrote; beyond that, each feature is refused that is not offered, and each
//! address that the hypervisor could not have read itself. Beside each check stands whose it is. To
//! the hypervisor all refusals are one, [`ExitCode::Invalid`](crate::exit_code::ExitCode::Invalid).
//!
//! Not checked are registers that the CPU takes as they are or corrects itself (bases of segments,
//! RFLAGS, RIP), what it only writes, hints (the clean bits, which the monitor does not pass on),
//! and reserved bytes among the registers, which it does not pass on either.

use core::fmt;
use core::ops::RangeInclusive;

use view_core::Frame;
use zerocopy::IntoBytes;

use crate::permission_map::{IoMap, MsrMap};
use crate::vmcb::{
    ControlArea, Event, EventKind, Intercept, Segment, StateSaveArea, TlbControl, VirtualInterrupt,
    Vmcb, cr0, cr4, efer,
};

/// What the monitor offers to the hypervisor.
pub struct Offer<F> {
    /// The first number that no frame of the host has.
    pub frames_end: u64,
    /// How many bits a physical address has (CPUID function 8000_0008h).
    pub address_bits: u32,
    /// Which bits of CR4 guests may set; shadow stacks ([`cr4::CET`]) they may not in any case.
    pub cr4: u64,
    /// Which bits of EFER guests may set, beside SVME.
    pub efer: u64,
    /// Which ASIDs the hypervisor was told that there are. The monitor's own are others.
    pub asids: RangeInclusive<u32>,
    /// Whether the hypervisor may itself read a frame: it is not the monitor's, nor of a page that
    /// a guest has for itself.
    pub readable: F,
}

/// What a control block asks for, checked. Only [`Offer::check`] makes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The first frame of the hypervisor's map of ports.
    pub io_map: Frame,
    /// The first frame of its map of MSRs.
    pub msr_map: Frame,
    /// The root of its nested tables.
    pub nested_root: Frame,
    /// The ASID that it gave the guest.
    pub asid: u32,
    /// What it wants forgotten, of what it may think that the TLB has.
    pub tlb_control: TlbControl,
    /// What the guest is to find on entry, if anything.
    pub event: Option<Event>,
}

/// Why a control block is refused. Nothing of it was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryError {
    /// Where.
    pub field: Field,
    /// What is wrong with it.
    pub why: Why,
}

/// A field of a control block, or an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "fields of the control block, by their names there")]
pub enum Field {
    /// An operand of VMRUN, VMLOAD or VMSAVE, or what was written to VM_HSAVE_PA.
    Operand,
    Intercepts,
    IoMap,
    MsrMap,
    Asid,
    TlbControl,
    VirtualInterrupt,
    InterruptState,
    NestedFeatures,
    AvicApicBar,
    Ghcb,
    Event,
    NestedCr3,
    VirtualFeatures,
    AvicBackingPage,
    AvicLogicalTable,
    AvicPhysicalTable,
    Vmsa,
    /// A byte without a name, at this offset.
    Reserved(u16),
    Efer,
    Cr0,
    Cr3,
    Cr4,
    Dr6,
    Dr7,
    Cs,
    Cpl,
    GPat,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Something is not set that has to be.
    Missing,
    /// Bits are set that have to be zero.
    Reserved,
    /// A value that stands for nothing.
    Undefined,
    /// It contradicts another field, or itself.
    Contradiction,
    /// A feature that exists but is not offered.
    NotOffered,
    /// An address in the middle of a page.
    Unaligned,
    /// An address at or past the end of the host's memory.
    BeyondHost,
    /// An address of what the hypervisor may not read.
    NotReadable,
}

/// One check: an error about a field unless something holds.
const fn ensure(holds: bool, field: Field, why: Why) -> Result<(), EntryError> {
    if holds { Ok(()) } else { Err(EntryError { field, why }) }
}

impl<F: Fn(Frame) -> bool> Offer<F> {
    /// Checks a control block that the hypervisor gave to VMRUN; a copy, which it cannot change.
    ///
    /// # Errors
    /// [`EntryError`], for the first thing found.
    pub fn check(&self, vmcb: &Vmcb) -> Result<Entry, EntryError> {
        let control = &vmcb.control;
        intercepts(control)?;
        features(control)?;
        interrupts(control)?;
        reserved(vmcb)?;
        self.registers(&vmcb.save)?;
        let entry = Entry {
            // The CPU ignores the low bits of both (the manual, 15.10.1 and 15.11).
            io_map: self.frames(Field::IoMap, control.io_map, IoMap::PAGES)?,
            msr_map: self.frames(Field::MsrMap, control.msr_map, MsrMap::PAGES)?,
            nested_root: self.nested_root(control.nested_cr3)?,
            asid: self.asid(control.asid)?,
            tlb_control: tlb_control(control.tlb_control)?,
            event: event(control.event, is_in_64_bit_mode(&vmcb.save))?,
        };
        Ok(entry)
    }

    /// Checks an address that the hypervisor gave to VMRUN, VMLOAD or VMSAVE, or wrote to
    /// VM_HSAVE_PA: of a page that it may read.
    ///
    /// # Errors
    /// [`EntryError`] about [`Field::Operand`]. The CPU has #GP for the first two reasons.
    pub fn operand(&self, address: u64) -> Result<Frame, EntryError> {
        // The manual, volume 3, VMRUN, and volume 2, 15.30.4.
        ensure(address.is_multiple_of(PAGE), Field::Operand, Why::Unaligned)?;
        self.frames(Field::Operand, address, 1)
    }

    /// The first of some frames from an address on, of which the hypervisor may read all.
    fn frames(&self, field: Field, address: u64, count: usize) -> Result<Frame, EntryError> {
        let first = address / PAGE;
        // The manual, 15.5.1, has this for the width of addresses; ours is the end of memory.
        ensure(first + (count as u64) <= self.frames_end, field, Why::BeyondHost)?;
        for number in first..first + count as u64 {
            let beyond = EntryError { field, why: Why::BeyondHost };
            let frame = Frame::new(number).map_err(|_| beyond)?;
            // Ours: else the monitor would read for the hypervisor what it may not read itself.
            ensure((self.readable)(frame), field, Why::NotReadable)?;
        }
        Frame::new(first).map_err(|_| EntryError { field, why: Why::BeyondHost })
    }

    fn nested_root(&self, address: u64) -> Result<Frame, EntryError> {
        // The manual refuses bits that must be zero (15.25.4); that these must be is ours: beside
        // the address there is how tables are cached, and nothing else (5.3.2).
        let ignored = 1 << 3 | 1 << 4;
        ensure((address % PAGE) & !ignored == 0, Field::NestedCr3, Why::Reserved)?;
        self.frames(Field::NestedCr3, address, 1)
    }

    fn asid(&self, asid: u32) -> Result<u32, EntryError> {
        // The manual, 15.5.1: zero is the host's.
        ensure(asid != 0, Field::Asid, Why::Undefined)?;
        // Ours: the hypervisor was told how many there are.
        ensure(self.asids.contains(&asid), Field::Asid, Why::NotOffered)?;
        Ok(asid)
    }

    /// The manual's list in 15.5.1, as far as it is about registers, and a few checks of ours.
    /// What it says of CPUs without long mode and of shadow stacks cannot be: neither is offered.
    fn registers(&self, save: &StateSaveArea) -> Result<(), EntryError> {
        ensure(save.efer & efer::SVME != 0, Field::Efer, Why::Missing)?;
        ensure(save.efer & !(self.efer | efer::SVME) == 0, Field::Efer, Why::Reserved)?;
        ensure(save.cr0 >> 32 == 0, Field::Cr0, Why::Reserved)?;
        let caches = save.cr0 & (cr0::CD | cr0::NW);
        ensure(caches != cr0::NW, Field::Cr0, Why::Contradiction)?;
        let cr3_reserved = u64::MAX.checked_shl(self.address_bits).unwrap_or(0);
        ensure(save.cr3 & cr3_reserved == 0, Field::Cr3, Why::Reserved)?;
        ensure(save.cr4 & !(self.cr4 & !cr4::CET) == 0, Field::Cr4, Why::Reserved)?;
        ensure(save.dr6 >> 32 == 0, Field::Dr6, Why::Reserved)?;
        ensure(save.dr7 >> 32 == 0, Field::Dr7, Why::Reserved)?;
        let pat_is_defined = save.g_pat.to_le_bytes().iter().all(|kind| PAT_KINDS.contains(kind));
        // The manual, 15.25.4, where nested paging is on.
        ensure(pat_is_defined, Field::GPat, Why::Undefined)?;
        // Ours: the manual says nothing of more than two bits.
        ensure(save.cpl <= 3, Field::Cpl, Why::Reserved)?;
        long_mode(save)
    }
}

fn is_in_64_bit_mode(save: &StateSaveArea) -> bool {
    save.efer & efer::LMA != 0 && save.cs.attributes & Segment::LONG != 0
}

/// What paging and long mode take (the manual, 15.5.1, but for what is ours).
fn long_mode(save: &StateSaveArea) -> Result<(), EntryError> {
    let paging = save.cr0 & cr0::PG != 0;
    let long = save.efer & efer::LME != 0 && paging;
    let is_32 = save.cs.attributes & Segment::DEFAULT_32 != 0;
    // The manual's in long mode, ours in real mode: that is for who has no nested paging (15.19).
    ensure(!paging || save.cr0 & cr0::PE != 0, Field::Cr0, Why::Contradiction)?;
    ensure(!long || save.cr4 & cr4::PAE != 0, Field::Cr4, Why::Contradiction)?;
    // Ours: nobody says which tables the CPU walks otherwise, and the monitor walks them, too.
    ensure((save.efer & efer::LMA != 0) == long, Field::Efer, Why::Contradiction)?;
    ensure(!(is_in_64_bit_mode(save) && is_32), Field::Cs, Why::Contradiction)
}

fn intercepts(control: &ControlArea) -> Result<(), EntryError> {
    let wanted = &control.intercepts;
    // The manual, 15.5.1.
    ensure(wanted.has(Intercept::Vmrun), Field::Intercepts, Why::Missing)?;
    // Ours: the manual says that the effect of these two is undefined (15.12.3 and 15.12.10).
    let undefined = [2, 9].map(Intercept::Exception).iter().any(|&one| wanted.has(one));
    ensure(!undefined, Field::Intercepts, Why::Undefined)?;
    // Ours: what has no name may mean anything on a CPU to come.
    ensure(wanted.first_unnamed().is_none(), Field::Intercepts, Why::Reserved)?;
    // Ours: exits after the fact are for encrypted guests; the others come with fields that are
    // reserved here.
    let traps = (0..16).map(Intercept::CrWriteTrap);
    let others = [Intercept::EferWriteTrap, Intercept::BusLock, Intercept::IdleHlt];
    let offered = !traps.chain(others).any(|intercept| wanted.has(intercept));
    ensure(offered, Field::Intercepts, Why::NotOffered)
}

/// Ours: nested paging there must be, and no feature beside it; nor pointers that belong to one.
fn features(control: &ControlArea) -> Result<(), EntryError> {
    ensure(control.has_nested_paging(), Field::NestedFeatures, Why::Missing)?;
    // SEV, SEV-ES, GMET, shadow stacks of supervisors, VTE, read-only tables, INVLPGB.
    let named = 0xfe;
    let others = control.nested_features & !ControlArea::NESTED_PAGING;
    ensure(others & !named == 0, Field::NestedFeatures, Why::Reserved)?;
    ensure(others & named == 0, Field::NestedFeatures, Why::NotOffered)?;
    // Records of branches, VMLOAD, samples, counters.
    let named = 0xf;
    ensure(control.virtual_features & !named == 0, Field::VirtualFeatures, Why::Reserved)?;
    ensure(control.virtual_features & named == 0, Field::VirtualFeatures, Why::NotOffered)?;
    for (field, pointer) in [
        (Field::AvicApicBar, control.avic_apic_bar),
        (Field::AvicBackingPage, control.avic_backing_page),
        (Field::AvicLogicalTable, control.avic_logical_table),
        (Field::AvicPhysicalTable, control.avic_physical_table),
        (Field::Ghcb, control.ghcb),
        (Field::Vmsa, control.vmsa),
    ] {
        ensure(pointer == 0, field, Why::NotOffered)?;
    }
    Ok(())
}

/// Ours: neither a flag of the guest's own (vGIF), nor virtual NMIs, nor AVIC.
fn interrupts(control: &ControlArea) -> Result<(), EntryError> {
    const NMI: u64 = 1 << 11;
    const NMI_MASK: u64 = 1 << 12;
    const EXTENDED: u64 = VirtualInterrupt::GIF
        | VirtualInterrupt::GIF_ENABLE
        | NMI
        | NMI_MASK
        | VirtualInterrupt::NMI_ENABLE
        | VirtualInterrupt::X2AVIC_ENABLE
        | VirtualInterrupt::AVIC_ENABLE;
    // The upper half of the priority should be zero.
    const PLAIN: u64 = VirtualInterrupt::TPR & 0xf
        | VirtualInterrupt::IRQ
        | VirtualInterrupt::PRIORITY
        | VirtualInterrupt::IGNORE_TPR
        | VirtualInterrupt::MASKING
        | VirtualInterrupt::VECTOR;
    let wanted = control.virtual_interrupt.0;
    ensure(wanted & EXTENDED == 0, Field::VirtualInterrupt, Why::NotOffered)?;
    ensure(wanted & !PLAIN == 0, Field::VirtualInterrupt, Why::Reserved)?;
    let known = ControlArea::INTERRUPT_SHADOW | ControlArea::GUEST_INTERRUPT_MASK;
    ensure(control.interrupt_state & !known == 0, Field::InterruptState, Why::Reserved)
}

/// Ours: the manual says that these bytes are reserved, not what happens if they are not zero.
fn reserved(vmcb: &Vmcb) -> Result<(), EntryError> {
    for range in ControlArea::RESERVED {
        let bytes = vmcb.as_bytes().get(range.clone()).unwrap_or_default();
        // All at once first: this is on the way of each entry.
        if bytes.iter().fold(0, |all, byte| all | byte) != 0 {
            let at = bytes.iter().position(|byte| *byte != 0).unwrap_or_default();
            let field = Field::Reserved((range.start + at) as u16);
            return Err(EntryError { field, why: Why::Reserved });
        }
    }
    Ok(())
}

fn tlb_control(field: u32) -> Result<TlbControl, EntryError> {
    // Ours: bits for return-address predictors, and reserved ones above them.
    ensure(field >> 8 == 0, Field::TlbControl, Why::Reserved)?;
    // The manual, 15.16.1, reserves all other values.
    let undefined = EntryError { field: Field::TlbControl, why: Why::Undefined };
    TlbControl::from_raw(field).ok_or(undefined)
}

/// The manual, 15.20, but for the reserved bits, which are ours.
fn event(event: Event, is_in_64_bit_mode: bool) -> Result<Option<Event>, EntryError> {
    if !event.is_valid() {
        return Ok(None);
    }
    ensure(event.kind().is_some(), Field::Event, Why::Undefined)?;
    let is_exception = event.kind() == Some(EventKind::Exception);
    let defined = EXCEPTIONS.contains(&event.vector());
    ensure(!is_exception || defined, Field::Event, Why::Undefined)?;
    let impossible = is_in_64_bit_mode && NOT_IN_64_BIT_MODE.contains(&event.vector());
    ensure(!(is_exception && impossible), Field::Event, Why::Contradiction)?;
    ensure(event.raw() & Event::RESERVED == 0, Field::Event, Why::Reserved)?;
    Ok(Some(event))
}

/// Bytes in a page.
const PAGE: u64 = view_core::PAGE_SIZE as u64;

/// Kinds of memory that a byte of the PAT may name (the manual, 7.8.1).
pub(crate) const PAT_KINDS: [u8; 6] = [0, 1, 4, 5, 6, 7];

/// Exceptions by their vectors (the manual, 8.2), without those of shadow stacks and of encrypted
/// guests. 2 is the NMI, which is not one.
const EXCEPTIONS: [u8; 18] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 30];

/// Exceptions of instructions that 64-bit mode has not: INTO and BOUND.
const NOT_IN_64_BIT_MODE: [u8; 2] = [4, 5];

impl<F> fmt::Debug for Offer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("frames_end", &self.frames_end)
            .field("asids", &self.asids)
            .finish_non_exhaustive()
    }
}
