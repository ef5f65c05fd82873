//! The control block as bytes: what the manual's tables say, from both sides.

use frontend_bare::exit_code::ExitCode;
use frontend_bare::vmcb::{
    Event, EventKind, Fetched, Intercept, Intercepts, Segment, TlbControl, VirtualInterrupt, Vmcb,
};
use proptest::prelude::*;
use view_core::Page;
use zeroize::Zeroize;

fn random_page(seed: u8) -> Page {
    let mut page = Page::zeroed();
    for (index, byte) in page.bytes_mut().iter_mut().enumerate() {
        *byte = (index as u8).wrapping_mul(167).wrapping_add(seed) | 1;
    }
    page
}

#[test]
fn a_field_is_the_bytes_at_its_offset() {
    let mut page = Page::zeroed();
    for (at, value) in [(0x70, 0x400), (0xb0, 0x5000), (0x578, 0xfff0), (0x5f8, 7), (0x410, 0x9b)] {
        page.bytes_mut()[at..at + 2].copy_from_slice(&u16::to_le_bytes(value));
    }
    let vmcb = Vmcb::of_page(&page);
    assert_eq!(vmcb.control.exit(), ExitCode::NestedPageFault);
    assert_eq!((vmcb.control.nested_cr3, vmcb.save.rip, vmcb.save.rax), (0x5000, 0xfff0, 7));
    assert_eq!(vmcb.save.cs.selector, 0x9b);
    Vmcb::of_page_mut(&mut page).save.rip = 0x1234;
    assert_eq!(page.bytes()[0x578..0x57a], [0x34, 0x12]);
}

#[test]
fn an_intercept_is_the_bit_of_its_exit_code() {
    // Bits as in appendix B, codes as in appendix C.
    for (byte, bit, code, intercept) in [
        (0x000, 3, 0x03, Intercept::CrRead(3)),
        (0x002, 8, 0x18, Intercept::CrWrite(8)),
        (0x004, 7, 0x27, Intercept::DrRead(7)),
        (0x006, 6, 0x36, Intercept::DrWrite(6)),
        (0x008, 14, 0x4e, Intercept::Exception(14)),
        (0x00c, 0, 0x60, Intercept::Intr),
        (0x00c, 18, 0x72, Intercept::Cpuid),
        (0x00c, 24, 0x78, Intercept::Hlt),
        (0x00c, 27, 0x7b, Intercept::Io),
        (0x00c, 28, 0x7c, Intercept::Msr),
        (0x00c, 31, 0x7f, Intercept::Shutdown),
        (0x010, 0, 0x80, Intercept::Vmrun),
        (0x010, 1, 0x81, Intercept::Vmmcall),
        (0x010, 5, 0x85, Intercept::Clgi),
        (0x010, 13, 0x8d, Intercept::Xsetbv),
        (0x014, 2, 0xa2, Intercept::Invpcid),
    ] {
        let mut vmcb = Vmcb::zeroed();
        vmcb.control.intercepts = Intercepts::of(&[intercept]);
        let mut bytes = [0; 0x1000];
        bytes[byte + bit / 8] = 1 << (bit % 8);
        assert_eq!(vmcb.as_page().bytes(), &bytes, "{intercept:?}");
        assert_eq!(ExitCode::from_raw(code), ExitCode::By(intercept));
    }
}

#[test]
fn intercepts_are_a_set() {
    let set = Intercepts::of(&[Intercept::Hlt, Intercept::Vmrun]);
    assert!(set.has(Intercept::Hlt) && set.has(Intercept::Vmrun) && !set.has(Intercept::Io));
    assert_eq!(set.without(Intercept::Hlt), Intercepts::of(&[Intercept::Vmrun]));
    let both = set.or(Intercepts::of(&[Intercept::Io, Intercept::Hlt]));
    assert_eq!(both, set.with(Intercept::Io));
    assert_eq!(both.first_unnamed(), None);
    // A register that is not there does not become a neighbour's bit.
    assert_eq!(Intercept::CrRead(200).number(), 0x0f);
}

#[test]
fn exit_codes_go_there_and_back() {
    for code in (0..0x1000).chain([u64::MAX, 1 << 40]) {
        let exit = ExitCode::from_raw(code);
        assert_eq!(exit.raw(), code, "{exit:?}");
    }
    assert_eq!(ExitCode::from_raw(u64::from(u32::MAX)), ExitCode::Invalid);
    assert_eq!(ExitCode::from_raw(0xa7), ExitCode::Unknown(0xa7));
    assert_eq!(ExitCode::from_raw(0x160), ExitCode::Unknown(0x160));
}

#[test]
fn an_event_is_packed_as_the_manual_says() {
    let fault = Event::new(EventKind::Exception, 14, Some(5));
    assert_eq!(fault.raw(), 0x5_8000_0b0e);
    assert_eq!(Event::new(EventKind::Nmi, 2, None).raw(), 0x8000_0202);
    assert_eq!((fault.kind(), fault.vector()), (Some(EventKind::Exception), 14));
    assert_eq!(fault.error_code(), Some(5));
    assert!(fault.is_valid() && !Event::NONE.is_valid());
    assert_eq!(Event::from_raw(0x8000_0100).kind(), None);
}

#[test]
fn fetched_bytes_are_at_most_fifteen() {
    assert_eq!(Fetched::new(&[0x0f, 0xa2]).bytes(), [0x0f, 0xa2]);
    assert_eq!(Fetched::new(&[0x90; 40]).bytes(), [0x90; 15]);
    let mut page = Page::zeroed();
    page.bytes_mut()[0xd0] = 0xff;
    assert_eq!(Vmcb::of_page(&page).control.fetched.bytes().len(), 15);
}

#[test]
fn what_is_not_a_way_to_flush_is_none() {
    let known: Vec<_> = (0..0x200).filter(|&field| TlbControl::from_raw(field).is_some()).collect();
    assert_eq!(known, [0, 1, 3, 7]);
    assert_eq!(TlbControl::from_raw(3), Some(TlbControl::FlushGuest));
}

#[test]
fn bits_of_virtual_interrupts_are_set_and_cleared_alone() {
    let before = VirtualInterrupt(0x5_0100_0003);
    assert!(before.has(VirtualInterrupt::MASKING) && !before.has(VirtualInterrupt::IRQ));
    let during = before.with(VirtualInterrupt::IRQ, true);
    assert_eq!(during.0, 0x5_0100_0103);
    assert_eq!(during.with(VirtualInterrupt::IRQ, false), before);
}

#[test]
fn vmload_moves_what_vmrun_does_not() {
    let (from, mut to) = (random_page(1), random_page(2));
    let before = to.clone();
    let source = &Vmcb::of_page(&from).save;
    Vmcb::of_page_mut(&mut to).save.take_vmload_state(source);
    // FS and GS, LDTR, TR, and from STAR to SYSENTER_EIP.
    let moved = [0x440..0x460, 0x470..0x480, 0x490..0x4a0, 0x600..0x640];
    for at in 0..0x1000 {
        let expected = if moved.iter().any(|range| range.contains(&at)) { &from } else { &before };
        assert_eq!(to.bytes()[at], expected.bytes()[at], "at {at:#x}");
    }
}

#[test]
fn wiping_leaves_nothing() {
    let mut page = random_page(3);
    Vmcb::of_page_mut(&mut page).zeroize();
    assert_eq!(page.bytes(), &[0; 0x1000]);
}

#[test]
fn nothing_of_the_guest_is_printed() {
    let secret = 0x5ec1_2e70;
    let mut vmcb = Vmcb::zeroed();
    vmcb.save.rax = secret;
    vmcb.save.cs = Segment { selector: 0, attributes: 0, limit: 0, base: secret };
    vmcb.control.exit_code = 0x78;
    vmcb.control.exit_info_1 = secret;
    vmcb.control.exit_info_2 = secret;
    vmcb.control.next_rip = secret;
    vmcb.control.fetched = Fetched::new(&secret.to_le_bytes());
    vmcb.control.event = Event::new(EventKind::Exception, 13, Some(0x5ec1_2e70));
    let event = vmcb.control.event;
    let printed = format!("{vmcb:?} {:?} {:?} {event:?}", vmcb.save.cs, vmcb.control.fetched);
    assert!(printed.contains("By(Hlt)"), "{printed}");
    for shown in [format!("{secret}"), format!("{secret:x}"), "112, 46, 193, 94".into()] {
        assert!(!printed.contains(&shown), "{printed}");
    }
}

proptest! {
    #[test]
    fn any_bytes_can_be_looked_at(bytes in prop::collection::vec(any::<u8>(), 4096)) {
        let mut page = Page::zeroed();
        page.bytes_mut().copy_from_slice(&bytes);
        let control = &Vmcb::of_page(&page).control;
        let printed = format!("{control:?} {:?} {:?}", control.event, control.fetched);
        prop_assert!(!printed.is_empty());
        let set = control.intercepts;
        let named = (0..0xc0).filter_map(Intercept::from_number).filter(|&one| set.has(one));
        let rest = named.fold(set, Intercepts::without);
        prop_assert_eq!(rest == Intercepts::NONE, set.first_unnamed().is_none());
    }
}
