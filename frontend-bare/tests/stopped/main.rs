//! What a hypervisor sees of a launched guest that stopped, and what it may hand back.

#![expect(clippy::wildcard_enum_match_arm, reason = "an exit that is not meant is like the others")]

mod guest;
mod kvm;
mod own;
mod stops;

use frontend_bare::context::{gather, scatter};
use frontend_bare::entry_check::Offer;
use frontend_bare::exit_code::ExitCode;
use frontend_bare::general::General;
use frontend_bare::guest_walk::GuestMemory;
use frontend_bare::instruction::Undecodable;
use frontend_bare::stopped::{NoRow, Refused, Resumed, Stopped, Touched};
use frontend_bare::vmcb::{Event, EventKind, Intercept, StateSaveArea, Vmcb, cr4, efer};
use proptest::prelude::*;
use stops::{Exited, Stop, stops};
use view_core::registers::{Exit, Registers, masks};
use zerocopy::{FromZeros, IntoBytes};
use zeroize::Zeroize;

/// All bits of registers, at random.
pub(crate) fn registers() -> impl Strategy<Value = (Vmcb, General)> {
    any::<u64>().prop_map(|seed| {
        let (mut vmcb, mut general) = (Vmcb::zeroed(), General::ZERO);
        let mut state = seed | 1;
        for byte in vmcb.save.as_mut_bytes().iter_mut().chain(general.as_mut_bytes()) {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            *byte = (state >> 56) as u8;
        }
        (vmcb, general)
    })
}

pub(crate) fn exited() -> impl Strategy<Value = Exited> {
    (prop::sample::select(stops()), registers())
        .prop_map(|(stop, (vmcb, general))| Exited::new(stop, &vmcb, general))
}

/// A guest whose registers have all their bits set, as far as they may.
fn full(stop: Stop) -> Exited {
    let (mut vmcb, mut general) = (Vmcb::zeroed(), General::ZERO);
    vmcb.save.as_mut_bytes().fill(0xff);
    general.as_mut_bytes().fill(0xff);
    vmcb.save.rip = 0xffff_8000_1234_5678;
    Exited::new(stop, &vmcb, general)
}

/// With the bits of a mask as another guest has them.
fn merged(mut exited: Exited, with: &Exited) -> Exited {
    let mask = masks(exited.stop.exit).shown;
    let mut words = gather(&exited.guest.save, &exited.general);
    let others = gather(&with.guest.save, &with.general);
    let all = words.words_mut().iter_mut().zip(others.words()).zip(mask.words());
    all.for_each(|((word, other), mask)| *word = *word & !mask | other & mask);
    scatter(&words, &mut exited.guest.save, &mut exited.general);
    exited
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// Guests that differ in nothing that the table shows look the same, to the last bit.
    #[test]
    fn nothing_shows_but_the_bits_of_the_table(
        one in exited(),
        (vmcb, general) in registers(),
    ) {
        let other = merged(Exited::new(one.stop, &vmcb, general), &one);
        prop_assert_eq!(one.stopped().expect("a row").exit(), one.stop.exit);
        let ((vmcb, general), (others_vmcb, others)) = (one.shown(), other.shown());
        prop_assert!(vmcb.as_bytes() == others_vmcb.as_bytes(), "{}", one.stop.name);
        prop_assert!(general.as_bytes() == others.as_bytes(), "{}", one.stop.name);
    }

    #[test]
    fn what_shows_may_be_handed_back(one in exited()) {
        judge_entry(one.shown().0);
    }

    #[test]
    fn a_change_of_one_bit_is_refused_but_in_results(
        one in exited(),
        bits in prop::collection::vec(0..BITS, 20),
        is_carried_out in any::<bool>(),
    ) {
        let shown = one.shown();
        bits.into_iter().for_each(|bit| judge_flip(&one, &shown, bit, is_carried_out));
    }

    /// Whatever a CPU may leave, and whatever a guest has in its tables and its code.
    #[test]
    fn no_exit_makes_it_stumble(
        code in prop_oneof![0..0x100_u64, Just(0x400)],
        words in any::<[u64; 6]>(),
        is_device in any::<bool>(),
        (vmcb, general) in registers(),
        seed in any::<u64>(),
    ) {
        let mut control = Vmcb::zeroed().control.clone();
        control.exit_code = code;
        [control.exit_info_1, control.exit_info_2, control.next_rip, ..] = words;
        control.exit_info_2 = vmcb.save.rip.wrapping_add(words[3] % 20);
        control.next_rip = if words[4] & 1 == 0 { 0 } else { control.exit_info_2 };
        control.exit_event = Event::from_raw(words[5] & words[0] >> 1);
        let read = |at: u64| {
            let word = (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            (!word.is_multiple_of(16)).then_some(word & 0xff_ffff_ff7f | 1)
        };
        let mut memory = GuestMemory { address_bits: 40, read };
        let touched = if is_device { Touched::Device } else { Touched::Memory };
        let mut save = vmcb.save.clone();
        save.cpl &= 3;
        let stopped = Stopped::new(&control, &save, &general, &mut memory, touched);
        if let Ok(stopped) = stopped {
            let (mut shown, mut others) = (Vmcb::zeroed(), General::ZERO);
            stopped.show(&mut shown.control, &mut shown.save, &mut others);
            let resumed = stopped.resume(&shown.control, &shown.save, &others);
            prop_assert!(resumed.expect("nothing was changed").save.as_bytes() == save.as_bytes());
        }
    }

    #[test]
    fn gathering_and_scattering_lose_nothing((vmcb, general) in registers()) {
        let words = gather(&vmcb.save, &general);
        let (mut save, mut others) = (StateSaveArea::new_zeroed(), General::ZERO);
        scatter(&words, &mut save, &mut others);
        prop_assert!(others.as_bytes() == general.as_bytes());
        let mut ones = StateSaveArea::new_zeroed();
        ones.as_mut_bytes().fill(0xff);
        let missing = gather(&ones, &general);
        let missing = Registers::NAMES.iter().zip(missing.words()).filter(|(_, word)| **word == 0);
        let missing: Vec<_> = missing.map(|(name, _)| *name).collect();
        prop_assert_eq!(missing, ["xcr0", "dr0", "dr1", "dr2", "dr3", "extended"]);
        let again = gather(&save, &others);
        prop_assert!(again.words() == words.words());
        // With zeroes for words, what is left are bytes that no register has.
        let mut rest = vmcb.save.clone();
        scatter(&Registers::ZERO, &mut rest, &mut others);
        let joined = rest.as_bytes().iter().zip(save.as_bytes()).map(|(rest, word)| rest | word);
        prop_assert!(joined.eq(vmcb.save.as_bytes().iter().copied()));
    }
}

/// Flips a bit of what is handed back: it is refused, or it is a result and is taken.
fn judge_flip(one: &Exited, shown: &(Vmcb, General), bit: usize, is_carried_out: bool) {
    let is_carried_out = is_carried_out && !one.stop.bytes.is_empty();
    let (mut vmcb, mut general) = shown.clone();
    if is_carried_out {
        vmcb.save.rip = vmcb.control.next_rip;
    }
    let rip = vmcb.save.rip;
    match vmcb.save.as_mut_bytes().get_mut(bit / 8) {
        Some(byte) => *byte ^= 1 << (bit % 8),
        None => general.as_mut_bytes()[bit / 8 - size_of::<StateSaveArea>()] ^= 1 << (bit % 8),
    }
    // From one place where it may be to the other.
    let steps = [shown.0.save.rip, shown.0.control.next_rip];
    let is_step = !one.stop.bytes.is_empty() && rip != vmcb.save.rip;
    let is_step = is_step && steps.contains(&vmcb.save.rip);
    let is_result = is_carried_out && results(one.stop)[bit / 8] & 1 << (bit % 8) != 0;
    // A load of less than its register can't have just any bit of it.
    let is_extended = ["movzx", "movsx"].iter().any(|start| one.stop.name.starts_with(start));
    let is_taken = resume(one, &vmcb, &general).is_ok();
    assert!(
        is_taken == (is_result || is_step) || is_extended && is_result,
        "{}: bit {bit}, carried out {is_carried_out}",
        one.stop.name
    );
}

/// What may change but `rip`, as bytes of the save area and of what is beside it.
fn results(stop: Stop) -> Vec<u8> {
    let (mut save, mut general) = (StateSaveArea::new_zeroed(), General::ZERO);
    let mut mask = masks(stop.exit).result;
    mask.rip = 0;
    scatter(&mask, &mut save, &mut general);
    [save.as_bytes(), general.as_bytes()].concat()
}

#[test]
fn a_change_of_any_bit_is_refused_but_in_results() {
    for (name, is_carried_out) in
        [("mov r15, [rdi+8]", true), ("rdmsr", false), ("page fault", false)]
    {
        let stop = stops().into_iter().find(|stop| stop.name == name).expect("it is listed");
        let one = full(stop);
        let shown = one.shown();
        for bit in 0..BITS {
            judge_flip(&one, &shown, bit, is_carried_out);
        }
    }
}

/// How many bits a hypervisor could flip.
const BITS: usize = (size_of::<StateSaveArea>() + size_of::<General>()) * 8;

#[test]
fn what_decodes_and_judges_shows_as_it_is() {
    let stop = stops().into_iter().find(|stop| stop.name == "vmmcall").unwrap();
    for (mode, change) in [
        ("64-bit", (|_| {}) as fn(&mut StateSaveArea)),
        ("user", |save| save.cpl = 3),
        ("32-bit", |save| save.cs.attributes = 0xc9b),
        ("protected", |save| {
            (save.efer, save.cr4, save.cs.attributes) = (efer::SVME | efer::SCE, 0, 0xc9b);
            save.cr0 = 0x8001_0011;
        }),
        ("virtual 8086", |save| {
            (save.efer, save.cr4, save.cs.attributes) = (efer::SVME, 0, 0x9b);
            (save.rflags, save.cpl) = (1 << 17, 3);
        }),
        ("real", |save| {
            (save.efer, save.cr4, save.cs.attributes, save.cr0) = (efer::SVME, 0, 0x9b, 0x10);
        }),
    ] {
        let mut one = Exited::new(stop, &Vmcb::zeroed(), General::ZERO);
        change(&mut one.guest.save);
        one.control.next_rip = one.next_rip();
        let (mut vmcb, mut general) = one.shown();
        let (real, shown) = (&one.guest.save, &vmcb.save);
        for (real, shown, mask) in [
            (real.cr0, shown.cr0, 1),
            (real.efer, shown.efer, efer::LMA),
            (real.rflags, shown.rflags, 1 << 17),
            (real.cpl.into(), shown.cpl.into(), 3),
            (real.cs.attributes.into(), shown.cs.attributes.into(), 0x600),
        ] {
            assert_eq!(real & mask, shown & mask, "{mode}");
        }
        judge_entry(vmcb.clone());
        for bit in 0..BITS {
            judge_flip(&one, &(vmcb.clone(), general.clone()), bit, true);
        }
        vmcb.save.rip = vmcb.control.next_rip;
        (vmcb.save.rax, general.rbx) = (5, 0);
        let resumed = resume(&one, &vmcb, &general).expect("a result");
        assert_eq!((resumed.save.rax, resumed.save.rip), (5, one.next_rip()));
    }
}

/// What shows passes the check of what a hypervisor hands to VMRUN.
fn judge_entry(mut vmcb: Vmcb) {
    vmcb.control.intercepts = vmcb.control.intercepts.with(Intercept::Vmrun);
    (vmcb.control.asid, vmcb.control.nested_features) = (1, 1);
    let offer = Offer {
        frames_end: 0x1000,
        address_bits: 40,
        cr4: cr4::PAE,
        efer: efer::SCE | efer::LME | efer::LMA | efer::NXE,
        asids: 1..=14,
        readable: |_| true,
    };
    assert!(offer.check(&vmcb).is_ok(), "{:?}", offer.check(&vmcb));
}

#[test]
fn wiping_leaves_nothing() {
    let one = full(stops()[0]);
    let (vmcb, general) = one.shown();
    let mut resumed = resume(&one, &vmcb, &general).expect("nothing was changed");
    resumed.zeroize();
    assert!(
        resumed.save.as_bytes().iter().chain(resumed.general.as_bytes()).all(|byte| *byte == 0)
    );
}

#[test]
fn what_is_handed_back_as_it_was_changes_nothing() {
    for stop in stops() {
        let one = full(stop);
        let (vmcb, general) = one.shown();
        let resumed = one.stopped().expect("a row").resume(&vmcb.control, &vmcb.save, &general);
        let resumed = resumed.expect("nothing was changed");
        assert!(resumed.save.as_bytes() == one.guest.save.as_bytes(), "{}", stop.name);
        assert!(resumed.general.as_bytes() == one.general.as_bytes(), "{}", stop.name);
        assert!(!resumed.event.is_valid() && resumed.xcr0.is_none());
    }
}

#[test]
fn words_of_exits_show_what_is_asked_and_no_more() {
    for stop in stops() {
        let mut one = full(stop);
        one.control.fetched = frontend_bare::vmcb::Fetched::new(&[0x5e; 15]);
        one.control.exit_info_1 |= 0x3f << 40;
        let (vmcb, _) = one.shown();
        let control = &vmcb.control;
        assert_eq!(control.exit_code, stop.code, "{}", stop.name);
        let info_1 = match control.exit() {
            ExitCode::By(Intercept::CrWrite(8)) => 1 << 63 | 15,
            // Without what KVM does not ask: the size of addresses and segments.
            ExitCode::By(Intercept::Io) => stop.infos[0] & !0x380,
            _ => stop.infos[0],
        };
        assert_eq!(control.exit_info_1, info_1, "{}", stop.name);
        let shown_rip = u64::from(one.is_by(Intercept::Iret));
        assert_eq!(vmcb.save.rip, shown_rip, "{}", stop.name);
        assert_eq!(control.next_rip, stop.bytes.len() as u64, "{}", stop.name);
        let is_device = stop.touched == Touched::Device;
        let bytes: &[u8] = if is_device { stop.bytes } else { &[] };
        assert_eq!(control.fetched.bytes(), bytes, "{}", stop.name);
        let info_2 = match control.exit() {
            ExitCode::NestedPageFault => stop.infos[1],
            ExitCode::By(Intercept::Io) => stop.bytes.len() as u64,
            _ => 0,
        };
        assert_eq!(control.exit_info_2, info_2, "{}", stop.name);
        assert_eq!(control.interrupt_state, 0);
    }
    let mut one = full(stops().into_iter().find(|stop| stop.name == "page fault").unwrap());
    one.control.exit_info_2 |= 0x678;
    one.control.interrupt_state = 3;
    let (vmcb, _) = one.shown();
    assert_eq!(vmcb.control.exit_info_2, 0x1234_5000, "where in its page shows for devices alone");
    assert_eq!(vmcb.control.interrupt_state, 1);
}

#[test]
fn an_exit_without_a_row_says_why() {
    let by = |name: &str| full(stops().into_iter().find(|stop| stop.name == name).unwrap());
    let refused = |change: &dyn Fn(&mut Exited), name| {
        let mut one = by(name);
        change(&mut one);
        one.stopped().map(|stopped| stopped.exit())
    };
    for code in [0x00, 0x10, 0x14, 0x4e, 0x65, 0x6e, 0x7d, 0x75, 0x79, 0x90, 0x401, u64::MAX] {
        let found = refused(&|one| one.control.exit_code = code, "cpuid");
        assert_eq!(found, Err(NoRow::Exit(ExitCode::from_raw(code))));
    }
    for info in [0x14, 0x18, 0x70, 0x00] {
        let found = refused(&|one| one.control.exit_info_1 = 0x3f8 << 16 | info | 1, "in al");
        assert_eq!(found, Err(NoRow::Port), "{info:x}");
    }
    let event = Event::new(EventKind::Exception, 14, Some(2));
    let through = Err(NoRow::ThroughDevice);
    assert_eq!(refused(&|one| one.control.exit_event = event, "mov eax, [rbx]"), through);
    assert_eq!(refused(&|one| one.control.exit_event = event, "cpuid"), through);
    assert_eq!(refused(&|one| one.control.exit_info_1 |= 1 << 33, "mov eax, [rbx]"), through);
    assert_eq!(refused(&|one| one.control.exit_info_1 |= 1 << 4, "mov eax, [rbx]"), through);
    let contradiction = Err(NoRow::Contradiction);
    assert_eq!(refused(&|one| one.control.exit_info_1 |= 2, "mov eax, [rbx]"), contradiction);
    assert_eq!(refused(&|one| one.control.exit_info_1 &= !2, "mov [rbx], sil"), contradiction);
    let as_hlt = |one: &mut Exited| {
        (one.control.exit_code, one.control.next_rip) = (0x78, 0);
    };
    assert_eq!(refused(&as_hlt, "cpuid"), contradiction);
    let far = |one: &mut Exited| one.control.next_rip += 14;
    assert_eq!(refused(&far, "cpuid"), Err(NoRow::NextRip));
    let back = |one: &mut Exited| one.control.next_rip = one.guest.save.rip;
    assert_eq!(refused(&back, "cpuid"), Err(NoRow::NextRip));
    let last = |one: &mut Exited| {
        (one.guest.save.rip, one.control.exit_info_2) = (u64::MAX, 0);
    };
    assert_eq!(refused(&last, "in al"), Err(NoRow::NextRip), "zero says: not carried out");
    let short = Err(NoRow::Instruction(Undecodable::Short));
    let unmapped = |one: &mut Exited| one.guest.words.clear();
    assert_eq!(refused(&unmapped, "mov eax, [rbx]"), short);
    let in_32_bits = |one: &mut Exited| one.guest.save.cs.attributes = 0xc9b;
    assert!(matches!(refused(&in_32_bits, "mov eax, [rbx]"), Err(NoRow::Instruction(_))));
}

/// What was being delivered shows where the guest would not raise it again.
#[test]
fn an_event_that_an_exit_cut_short_comes_back_or_is_raised_again() {
    let fault = stops().into_iter().find(|stop| stop.name == "page fault").unwrap();
    let again = [
        Event::new(EventKind::Interrupt, 0x31, None),
        Event::new(EventKind::Nmi, 2, None),
        Event::new(EventKind::Exception, 1, None),
        Event::new(EventKind::Exception, 18, None),
    ];
    let dropped = [
        Event::new(EventKind::Exception, 14, Some(0x5ec2)),
        Event::new(EventKind::Exception, 13, Some(0x5ec2)),
        Event::new(EventKind::Exception, 3, None),
        Event::new(EventKind::SoftwareInterrupt, 0x80, None),
        Event::from_raw(0x31),
        Event::NONE,
    ];
    for event in again.into_iter().chain(dropped) {
        let mut one = full(fault);
        one.control.exit_event = event;
        let (mut vmcb, general) = one.shown();
        let expected = if again.contains(&event) { event } else { Event::NONE };
        assert_eq!(vmcb.control.exit_event, expected, "{event:?}");
        assert_eq!(vmcb.control.event, Event::NONE);
        vmcb.control.event = vmcb.control.exit_event;
        let resumed = resume(&one, &vmcb, &general);
        assert_eq!(resumed.expect("it is given again").event, expected);
    }
    let mut one = full(fault);
    one.control.exit_event = Event::new(EventKind::Exception, 1, Some(0x5ec2));
    assert_eq!(one.shown().0.control.exit_event, again[2], "without what the guest did");
}

/// The resumed guest, or why there is none.
pub(crate) fn resume(one: &Exited, vmcb: &Vmcb, general: &General) -> Result<Resumed, Refused> {
    one.stopped().expect("a row").resume(&vmcb.control, &vmcb.save, general)
}

#[test]
fn only_rows_of_instructions_may_be_carried_out() {
    for stop in stops() {
        let steps = masks(stop.exit).result.rip != 0;
        assert_eq!(steps, !stop.bytes.is_empty(), "{}", stop.name);
        assert!(steps || matches!(stop.exit, Exit::Interrupt | Exit::PageFault | Exit::Shutdown));
        let one = full(stop);
        let (mut vmcb, general) = one.shown();
        for rip in [2, 16, one.guest.save.rip, one.next_rip()] {
            vmcb.save.rip = rip;
            if rip != vmcb.control.next_rip {
                let changed = resume(&one, &vmcb, &general).expect_err("it is elsewhere");
                let Refused::Changed(changed) = changed else { panic!("{changed}") };
                assert_eq!(changed.0, "rip", "{}", stop.name);
            }
        }
    }
}
