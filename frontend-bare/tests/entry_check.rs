//! The check of a hypervisor's control block: each of its parts refuses what it is there for, and
//! what passes it has what it promises.

use frontend_bare::entry_check::{EntryError, Field, Offer, Why};
use frontend_bare::vmcb::{
    Event, EventKind, Intercept, Intercepts, Segment, TlbControl, VirtualInterrupt, Vmcb, cr0, cr4,
    efer,
};
use proptest::prelude::*;
use view_core::{Frame, Page};
use zerocopy::IntoBytes;

/// The host's frames.
const FRAMES: u64 = 0x4_0000;

/// Those of them that the monitor has.
const MONITORS: std::ops::Range<u64> = 0x200..0x300;

/// The bits of CR4 that a CPU may have, but for shadow stacks.
const CR4: u64 = 0x7_1fff | 1 << 20 | 1 << 21;

fn readable(frame: Frame) -> bool {
    !MONITORS.contains(&frame.number())
}

fn offer() -> Offer<fn(Frame) -> bool> {
    Offer {
        frames_end: FRAMES,
        address_bits: 40,
        // Also if somebody offers them, there are no shadow stacks.
        cr4: CR4 | cr4::CET,
        efer: efer::SCE | efer::LME | efer::LMA | efer::NXE,
        asids: 1..=14,
        readable,
    }
}

/// A block as KVM writes it for a guest in 64-bit mode.
fn valid() -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let control = &mut vmcb.control;
    control.intercepts = Intercepts::of(&[
        Intercept::CrWrite(0),
        Intercept::Exception(17),
        Intercept::Intr,
        Intercept::Cpuid,
        Intercept::Hlt,
        Intercept::Io,
        Intercept::Msr,
        Intercept::Shutdown,
        Intercept::Vmrun,
        Intercept::Vmmcall,
        Intercept::Xsetbv,
        Intercept::Rdpru,
    ]);
    (control.pause_filter_count, control.pause_filter_threshold) = (3000, 128);
    (control.io_map, control.msr_map, control.nested_cr3) = (0x10_0000, 0x10_3000, 0x10_5000);
    (control.asid, control.tlb_control) = (1, 1);
    control.virtual_interrupt = VirtualInterrupt(VirtualInterrupt::MASKING);
    (control.nested_features, control.clean) = (1, 0x8000_0fff);
    // What the last exit left behind is not looked at.
    (control.exit_code, control.exit_info_1, control.exit_info_2) = (0x78, 5, u64::MAX);
    (control.exit_event, control.next_rip) = (Event::from_raw(u64::MAX), u64::MAX);
    control.for_software = [0xa5; 32];
    let save = &mut vmcb.save;
    save.efer = efer::SCE | efer::LME | efer::LMA | efer::NXE | efer::SVME;
    (save.cr0, save.cr3, save.cr4) = (0x8005_0033, 0x1000, 0x6f0);
    (save.dr6, save.dr7, save.rflags, save.rip) = (0xffff_0ff0, 0x400, 2, 0xffff_ffff_8100_0000);
    save.g_pat = 0x0007_0406_0007_0406;
    save.cs = Segment { selector: 0x10, attributes: 0xa9b, limit: u32::MAX, base: 0 };
    vmcb
}

fn refused(vmcb: &Vmcb) -> Option<(Field, Why)> {
    offer().check(vmcb).err().map(|EntryError { field, why }| (field, why))
}

/// How to break one thing, and what is said of it.
type Break = (fn(&mut Vmcb), Field, Why);

fn all_are_refused(breaks: &[Break]) {
    for (at, (spoil, field, why)) in breaks.iter().enumerate() {
        let mut vmcb = valid();
        spoil(&mut vmcb);
        assert_eq!(refused(&vmcb), Some((*field, *why)), "number {at}");
    }
}

fn set(vmcb: &mut Vmcb, intercept: Intercept) {
    vmcb.control.intercepts = vmcb.control.intercepts.with(intercept);
}

#[test]
fn what_a_hypervisor_writes_is_accepted() {
    let entry = offer().check(&valid()).unwrap();
    let frames = [entry.io_map, entry.msr_map, entry.nested_root].map(Frame::number);
    assert_eq!(frames, [0x100, 0x103, 0x105]);
    assert_eq!((entry.asid, entry.tlb_control), (1, TlbControl::FlushAll));
    assert_eq!(entry.event, None);
}

#[test]
fn so_is_a_guest_that_just_started() {
    let mut vmcb = valid();
    (vmcb.save.efer, vmcb.save.cr0, vmcb.save.cr3, vmcb.save.cr4) = (efer::SVME, 0x10, 0, 0);
    vmcb.save.cs = Segment { selector: 0xf000, attributes: 0x9b, limit: 0xffff, base: 0xffff_0000 };
    assert_eq!(refused(&vmcb), None);
    // Caches off, as after a reset; and 32-bit code with and without paging.
    vmcb.save.cr0 = cr0::CD | cr0::NW;
    assert_eq!(refused(&vmcb), None);
    vmcb.save.cr0 = cr0::PE;
    vmcb.save.cs.attributes = 0xc9b;
    assert_eq!(refused(&vmcb), None);
    vmcb.save.cr0 = cr0::PE | cr0::PG;
    assert_eq!(refused(&vmcb), None);
    // Outside long mode one of these bits says nothing.
    vmcb.save.cs.attributes |= Segment::LONG;
    vmcb.control.event = Event::new(EventKind::Exception, 5, None);
    assert_eq!(refused(&vmcb), None);
}

#[test]
fn what_the_manual_says_of_registers() {
    all_are_refused(&[
        (|vmcb| vmcb.save.efer &= !efer::SVME, Field::Efer, Why::Missing),
        (|vmcb| vmcb.save.efer |= 1 << 1, Field::Efer, Why::Reserved),
        (|vmcb| vmcb.save.efer |= 1 << 63, Field::Efer, Why::Reserved),
        (|vmcb| vmcb.save.efer |= 1 << 14, Field::Efer, Why::Reserved),
        (|vmcb| vmcb.save.cr0 |= 1 << 32, Field::Cr0, Why::Reserved),
        (|vmcb| vmcb.save.cr0 |= cr0::NW, Field::Cr0, Why::Contradiction),
        (|vmcb| vmcb.save.cr3 |= 1 << 40, Field::Cr3, Why::Reserved),
        (|vmcb| vmcb.save.cr3 |= 1 << 63, Field::Cr3, Why::Reserved),
        (|vmcb| vmcb.save.cr4 |= 1 << 13, Field::Cr4, Why::Reserved),
        (|vmcb| vmcb.save.cr4 |= 1 << 32, Field::Cr4, Why::Reserved),
        (|vmcb| vmcb.save.cr4 |= cr4::CET, Field::Cr4, Why::Reserved),
        (|vmcb| vmcb.save.dr6 |= 1 << 32, Field::Dr6, Why::Reserved),
        (|vmcb| vmcb.save.dr7 |= 1 << 32, Field::Dr7, Why::Reserved),
        (|vmcb| vmcb.save.g_pat = 2, Field::GPat, Why::Undefined),
        (|vmcb| vmcb.save.g_pat = 3 << 56, Field::GPat, Why::Undefined),
        (|vmcb| vmcb.save.g_pat = 8 << 24, Field::GPat, Why::Undefined),
        (|vmcb| vmcb.save.cr4 &= !cr4::PAE, Field::Cr4, Why::Contradiction),
        (|vmcb| vmcb.save.cr0 &= !cr0::PE, Field::Cr0, Why::Contradiction),
        (|vmcb| vmcb.save.cs.attributes |= 1 << 10, Field::Cs, Why::Contradiction),
    ]);
}

#[test]
fn what_we_say_of_registers() {
    all_are_refused(&[
        (|vmcb| vmcb.save.cpl = 4, Field::Cpl, Why::Reserved),
        (|vmcb| vmcb.save.efer &= !efer::LMA, Field::Efer, Why::Contradiction),
        (|vmcb| vmcb.save.efer &= !efer::LME, Field::Efer, Why::Contradiction),
        (|vmcb| vmcb.save.cr0 &= !cr0::PG, Field::Efer, Why::Contradiction),
        (paged_real_mode, Field::Cr0, Why::Contradiction),
    ]);
}

fn paged_real_mode(vmcb: &mut Vmcb) {
    (vmcb.save.efer, vmcb.save.cr0) = (efer::SVME, cr0::PG);
}

#[test]
fn what_may_be_intercepted() {
    all_are_refused(&[
        (
            |vmcb| {
                let all = vmcb.control.intercepts;
                vmcb.control.intercepts = all.without(Intercept::Vmrun);
            },
            Field::Intercepts,
            Why::Missing,
        ),
        (|vmcb| set(vmcb, Intercept::Exception(2)), Field::Intercepts, Why::Undefined),
        (|vmcb| set(vmcb, Intercept::Exception(9)), Field::Intercepts, Why::Undefined),
        (|vmcb| byte(vmcb, 0x014, 0x80), Field::Intercepts, Why::Reserved),
        (|vmcb| byte(vmcb, 0x017, 0x80), Field::Intercepts, Why::Reserved),
        (|vmcb| set(vmcb, Intercept::EferWriteTrap), Field::Intercepts, Why::NotOffered),
        (|vmcb| set(vmcb, Intercept::CrWriteTrap(0)), Field::Intercepts, Why::NotOffered),
        (|vmcb| set(vmcb, Intercept::CrWriteTrap(15)), Field::Intercepts, Why::NotOffered),
        (|vmcb| set(vmcb, Intercept::BusLock), Field::Intercepts, Why::NotOffered),
        (|vmcb| set(vmcb, Intercept::IdleHlt), Field::Intercepts, Why::NotOffered),
    ]);
}

/// Sets bits of a byte of the block.
fn byte(vmcb: &mut Vmcb, offset: usize, bits: u8) {
    vmcb.as_mut_bytes()[offset] |= bits;
}

#[test]
fn what_is_not_offered() {
    use VirtualInterrupt as Bits;
    fn interrupt(vmcb: &mut Vmcb, bits: u64) {
        vmcb.control.virtual_interrupt = vmcb.control.virtual_interrupt.with(bits, true);
    }
    all_are_refused(&[
        (|vmcb| vmcb.control.nested_features = 0, Field::NestedFeatures, Why::Missing),
        (|vmcb| vmcb.control.nested_features |= 2, Field::NestedFeatures, Why::NotOffered),
        (|vmcb| vmcb.control.nested_features |= 0x80, Field::NestedFeatures, Why::NotOffered),
        (|vmcb| vmcb.control.nested_features |= 0x100, Field::NestedFeatures, Why::Reserved),
        (|vmcb| vmcb.control.virtual_features = 1, Field::VirtualFeatures, Why::NotOffered),
        (|vmcb| vmcb.control.virtual_features = 2, Field::VirtualFeatures, Why::NotOffered),
        (|vmcb| vmcb.control.virtual_features = 8, Field::VirtualFeatures, Why::NotOffered),
        (|vmcb| vmcb.control.virtual_features = 16, Field::VirtualFeatures, Why::Reserved),
        (|vmcb| vmcb.control.avic_apic_bar = 1 << 12, Field::AvicApicBar, Why::NotOffered),
        (|vmcb| vmcb.control.avic_backing_page = 1, Field::AvicBackingPage, Why::NotOffered),
        (|vmcb| vmcb.control.avic_logical_table = 1, Field::AvicLogicalTable, Why::NotOffered),
        (|vmcb| vmcb.control.avic_physical_table = 1, Field::AvicPhysicalTable, Why::NotOffered),
        (|vmcb| vmcb.control.ghcb = 1, Field::Ghcb, Why::NotOffered),
        (|vmcb| vmcb.control.vmsa = 1, Field::Vmsa, Why::NotOffered),
        (|vmcb| interrupt(vmcb, Bits::GIF), Field::VirtualInterrupt, Why::NotOffered),
        (|vmcb| interrupt(vmcb, Bits::GIF_ENABLE), Field::VirtualInterrupt, Why::NotOffered),
        (|vmcb| interrupt(vmcb, 1 << 11), Field::VirtualInterrupt, Why::NotOffered),
        (|vmcb| interrupt(vmcb, 1 << 12), Field::VirtualInterrupt, Why::NotOffered),
        (|vmcb| interrupt(vmcb, Bits::NMI_ENABLE), Field::VirtualInterrupt, Why::NotOffered),
        (|vmcb| interrupt(vmcb, Bits::X2AVIC_ENABLE), Field::VirtualInterrupt, Why::NotOffered),
        (|vmcb| interrupt(vmcb, Bits::AVIC_ENABLE), Field::VirtualInterrupt, Why::NotOffered),
        (|vmcb| interrupt(vmcb, 1 << 4), Field::VirtualInterrupt, Why::Reserved),
        (|vmcb| interrupt(vmcb, 1 << 10), Field::VirtualInterrupt, Why::Reserved),
        (|vmcb| interrupt(vmcb, 1 << 40), Field::VirtualInterrupt, Why::Reserved),
        (|vmcb| vmcb.control.interrupt_state = 4, Field::InterruptState, Why::Reserved),
        (|vmcb| vmcb.control.asid = 0, Field::Asid, Why::Undefined),
        (|vmcb| vmcb.control.asid = 15, Field::Asid, Why::NotOffered),
        (|vmcb| vmcb.control.tlb_control = 2, Field::TlbControl, Why::Undefined),
        (|vmcb| vmcb.control.tlb_control = 0x101, Field::TlbControl, Why::Reserved),
    ]);
}

#[test]
fn where_addresses_may_lead() {
    all_are_refused(&[
        (|vmcb| vmcb.control.io_map = FRAMES << 12, Field::IoMap, Why::BeyondHost),
        (|vmcb| vmcb.control.io_map = (FRAMES - 2) << 12, Field::IoMap, Why::BeyondHost),
        (|vmcb| vmcb.control.io_map = u64::MAX, Field::IoMap, Why::BeyondHost),
        (|vmcb| vmcb.control.io_map = 0x20_0000, Field::IoMap, Why::NotReadable),
        (|vmcb| vmcb.control.io_map = 0x1f_e000, Field::IoMap, Why::NotReadable),
        (|vmcb| vmcb.control.io_map = 0x2f_f000, Field::IoMap, Why::NotReadable),
        (|vmcb| vmcb.control.msr_map = (FRAMES - 1) << 12, Field::MsrMap, Why::BeyondHost),
        (|vmcb| vmcb.control.msr_map = 0x1f_f000, Field::MsrMap, Why::NotReadable),
        (|vmcb| vmcb.control.nested_cr3 = FRAMES << 12, Field::NestedCr3, Why::BeyondHost),
        (|vmcb| vmcb.control.nested_cr3 |= 1 << 52, Field::NestedCr3, Why::BeyondHost),
        (|vmcb| vmcb.control.nested_cr3 = 0x2f_f000, Field::NestedCr3, Why::NotReadable),
        (|vmcb| vmcb.control.nested_cr3 |= 1, Field::NestedCr3, Why::Reserved),
        (|vmcb| vmcb.control.nested_cr3 |= 1 << 5, Field::NestedCr3, Why::Reserved),
    ]);
    // The last that fit, and low bits that the CPU ignores.
    let mut vmcb = valid();
    vmcb.control.io_map = ((FRAMES - 3) << 12) + 0xfff;
    vmcb.control.msr_map = 0x1f_e000 + 1;
    vmcb.control.nested_cr3 = 0x30_0000 + 0x18;
    let entry = offer().check(&vmcb).unwrap();
    let frames = [entry.io_map, entry.msr_map, entry.nested_root].map(Frame::number);
    assert_eq!(frames, [FRAMES - 3, 0x1fe, 0x300]);
}

#[test]
fn a_host_without_an_end_has_frames_with_numbers_all_the_same() {
    let offer = Offer { frames_end: u64::MAX, ..offer() };
    let beyond = EntryError { field: Field::Operand, why: Why::BeyondHost };
    assert_eq!(offer.operand(1 << 52), Err(beyond));
    assert_eq!(offer.operand(u64::MAX << 12), Err(beyond));
}

#[test]
fn where_operands_may_lead() {
    let operand = |address| offer().operand(address).map_err(|error| (error.field, error.why));
    assert_eq!(operand(0x5000), Ok(Frame::new(5).unwrap()));
    assert_eq!(operand(0x5010), Err((Field::Operand, Why::Unaligned)));
    assert_eq!(operand(FRAMES << 12), Err((Field::Operand, Why::BeyondHost)));
    assert_eq!(operand(0x20_0000), Err((Field::Operand, Why::NotReadable)));
}

fn injected(vmcb: &mut Vmcb, event: Event) -> Result<Option<Event>, (Field, Why)> {
    vmcb.control.event = event;
    offer().check(vmcb).map(|entry| entry.event).map_err(|error| (error.field, error.why))
}

/// The exceptions that may be injected; of the others it is said why not.
fn exceptions(vmcb: &mut Vmcb, why_not: impl Fn(u8) -> Why) -> Vec<u8> {
    let may_be = |vector: &u8| {
        let event = Event::new(EventKind::Exception, *vector, Some(0));
        let injected = injected(vmcb, event);
        assert!([Ok(Some(event)), Err((Field::Event, why_not(*vector)))].contains(&injected));
        injected.is_ok()
    };
    (0..=255).filter(may_be).collect()
}

#[test]
fn what_may_be_injected() {
    let mut vmcb = valid();
    for kind in [EventKind::Interrupt, EventKind::Nmi, EventKind::SoftwareInterrupt] {
        for vector in [0, 4, 5, 0x80] {
            let event = Event::new(kind, vector, None);
            assert_eq!(injected(&mut vmcb, event), Ok(Some(event)));
        }
    }
    for kind in [1, 5, 6, 7] {
        let event = Event::from_raw(0x8000_0000 | kind << 8);
        assert_eq!(injected(&mut vmcb, event), Err((Field::Event, Why::Undefined)));
    }
    let reserved = Event::from_raw(0x8000_1080);
    assert_eq!(injected(&mut vmcb, reserved), Err((Field::Event, Why::Reserved)));
    // Not valid: not an event, whatever else it says.
    assert_eq!(injected(&mut vmcb, Event::from_raw(!(1 << 31))), Ok(None));
}

#[test]
fn which_exceptions_may_be_injected() {
    let all = [0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 30];
    let mut vmcb = valid();
    // Code of 32 bits beneath a kernel of 64.
    vmcb.save.cs.attributes = 0xc9b;
    assert_eq!(exceptions(&mut vmcb, |_| Why::Undefined), all);
    let not_here = |vector| matches!(vector, 4 | 5);
    let why_not = |vector| if not_here(vector) { Why::Contradiction } else { Why::Undefined };
    let rest: Vec<_> = all.into_iter().filter(|&vector| !not_here(vector)).collect();
    assert_eq!(exceptions(&mut valid(), why_not), rest);
}

#[test]
fn each_reserved_bit_of_the_control_area_is_refused() {
    let ranges = [0x18..0x3c, 0xc4..0xc8, 0xe8..0xf0, 0x100..0x108, 0x110..0x3e0];
    for offset in ranges.into_iter().flatten() {
        for bit in 0..8 {
            let mut vmcb = valid();
            byte(&mut vmcb, offset, 1 << bit);
            let field = Field::Reserved(u16::try_from(offset).unwrap());
            assert_eq!(refused(&vmcb), Some((field, Why::Reserved)));
        }
    }
}

/// What is promised of a block that passes, said once more and in other words.
fn keeps_its_promises(vmcb: &Vmcb) {
    let Ok(entry) = offer().check(vmcb) else { return };
    let bytes = vmcb.as_bytes();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    for (address, first, count) in [
        (word(0x40), entry.io_map, 3),
        (word(0x48), entry.msr_map, 2),
        (word(0xb0), entry.nested_root, 1),
    ] {
        assert_eq!(address >> 12, first.number());
        for frame in first.number()..first.number() + count {
            assert!(frame < FRAMES && !MONITORS.contains(&frame));
        }
    }
    assert!((1..15).contains(&entry.asid));
    assert_eq!(u64::from(entry.asid), word(0x58) & 0xffff_ffff);
    assert_eq!(bytes[0x10] & 1, 1, "VMRUN is intercepted");
    assert_eq!(word(0x90), 1, "nested paging and nothing else");
    for pointer in [0x98, 0xa0, 0xb8, 0xe0, 0xf0, 0xf8, 0x108] {
        assert_eq!(word(pointer), 0, "{pointer:#x}");
    }
    assert_eq!(word(0x60) & 0xffff_ff00_fee0_fef0, 0, "plain virtual interrupts");
    let (efer, cr0, cr4) = (word(0x4d0), word(0x558), word(0x548));
    assert_eq!(efer & 1 << 12, 1 << 12);
    assert_eq!(efer & !0x1d01, 0);
    assert_eq!(cr4 & !CR4, 0);
    assert_eq!(cr0 >> 32 | word(0x550) >> 40 | word(0x560) >> 32 | word(0x568) >> 32, 0);
    let is_long = efer & 1 << 10 != 0;
    let could_be_long = efer & 1 << 8 != 0 && cr0 & 1 << 31 != 0;
    assert_eq!(is_long, could_be_long);
    assert!(!is_long || cr4 & 1 << 5 != 0);
    assert!(cr0 & 1 << 31 == 0 || cr0 & 1 != 0);
    let event = word(0xa8);
    assert_eq!(entry.event.map(Event::raw), (event & 1 << 31 != 0).then_some(event));
}

#[test]
fn any_one_bit_that_passes_keeps_the_promises() {
    let mut passed = 0;
    for bit in 0..0x8000 {
        let mut vmcb = valid();
        vmcb.as_mut_bytes()[bit / 8] ^= 1 << (bit % 8);
        passed += usize::from(refused(&vmcb).is_none());
        keeps_its_promises(&vmcb);
    }
    // Registers may be anything, and so do many blocks pass.
    assert!(passed > 10_000, "{passed}");
}

/// Words that are more likely to pass, or nearly.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0_u64..0x200,
        (0_u64..64).prop_map(|bit| 1 << bit),
        (0_u64..0x400).prop_map(|frame| frame << 12),
        (FRAMES - 4..FRAMES + 4).prop_map(|frame| frame << 12),
    ]
}

/// Where it matters what is written.
fn offset() -> impl Strategy<Value = usize> {
    let registers = [0x410, 0x4c8, 0x4d0, 0x548, 0x550, 0x558, 0x560, 0x568, 0x668];
    prop_oneof![(0_usize..0x28).prop_map(|word| word * 8), prop::sample::select(registers.to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 4096)) {
        let mut page = Page::zeroed();
        page.bytes_mut().copy_from_slice(&bytes);
        let _ = offer().check(Vmcb::of_page(&page));
    }

    #[test]
    fn what_passes_keeps_the_promises(
        changes in prop::collection::vec((offset(), word(), any::<bool>()), 1..5),
    ) {
        let mut vmcb = valid();
        for (offset, word, whole) in changes {
            let field = &mut vmcb.as_mut_bytes()[offset..offset + 8];
            let before = u64::from_le_bytes(field.try_into().unwrap());
            let after = if whole { word } else { before ^ word };
            field.copy_from_slice(&after.to_le_bytes());
        }
        keeps_its_promises(&vmcb);
    }

    #[test]
    fn any_address_is_a_frame_of_the_hypervisors_or_none(address in word()) {
        if let Ok(frame) = offer().operand(address) {
            prop_assert_eq!(frame.number() << 12, address);
            prop_assert!(frame.number() < FRAMES && readable(frame));
        }
    }
}
