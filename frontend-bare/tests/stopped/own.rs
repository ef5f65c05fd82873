//! What a launched guest is spared of its hypervisor: exits that the monitor answers, and events.

use frontend_bare::exit_code::ExitCode;
use frontend_bare::general::General;
use frontend_bare::launched::{Moment, intercepts, is_interrupt_vector, may_wait};
use frontend_bare::stopped::{Refused, Resumed};
use frontend_bare::vmcb::{
    Event, EventKind, Intercept, Intercepts, StateSaveArea, VirtualInterrupt, Vmcb, efer,
};
use proptest::prelude::*;
use view_core::registers::Exit;
use zerocopy::IntoBytes;

use crate::stops::{Exited, stops};
use crate::{registers, resume};

const OFFERED: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE | efer::SVME;
const GENERAL_PROTECTION: Event = Event::new(EventKind::Exception, 13, Some(0));

fn at(name: &str, vmcb: &Vmcb, general: &General) -> Exited {
    let stop = stops().into_iter().find(|stop| stop.name == name).expect("it is listed");
    Exited::new(stop, vmcb, general.clone())
}

fn answer(one: &Exited) -> Option<Resumed> {
    one.stopped().expect("a row").own_answer(OFFERED)
}

/// `wrmsr`, in a guest that has these registers otherwise.
fn write(msr: u32, value: u64, vmcb: &Vmcb, general: &General) -> (Exited, Option<Resumed>) {
    let (mut vmcb, mut general) = (vmcb.clone(), general.clone());
    (vmcb.save.rax, general.rdx, general.rcx) = (value, value >> 32, msr.into());
    let one = at("wrmsr", &vmcb, &general);
    let answered = answer(&one);
    (one, answered)
}

type Field = fn(&mut StateSaveArea) -> &mut u64;
const MSRS: [(u32, Field); 12] = [
    (0xc000_0080, |save| &mut save.efer),
    (0x277, |save| &mut save.g_pat),
    (0x174, |save| &mut save.sysenter_cs),
    (0x175, |save| &mut save.sysenter_esp),
    (0x176, |save| &mut save.sysenter_eip),
    (0xc000_0081, |save| &mut save.star),
    (0xc000_0082, |save| &mut save.lstar),
    (0xc000_0083, |save| &mut save.cstar),
    (0xc000_0084, |save| &mut save.sfmask),
    (0xc000_0100, |save| &mut save.fs.base),
    (0xc000_0101, |save| &mut save.gs.base),
    (0xc000_0102, |save| &mut save.kernel_gs_base),
];

proptest! {
    #[test]
    fn registers_of_the_control_block_are_the_guests_own(
        (vmcb, general) in registers(),
        which in 0..MSRS.len(),
    ) {
        let (msr, field) = MSRS[which];
        let mut general = general;
        general.rcx = u64::from(msr) | 0x5ec2 << 32;
        let one = at("rdmsr", &vmcb, &general);
        let mut expected = one.guest.save.clone();
        let value = *field(&mut expected) & !if msr == 0xc000_0080 { efer::SVME } else { 0 };
        (expected.rax, expected.rip) = (value & 0xffff_ffff, one.next_rip());
        general.rdx = value >> 32;
        let answered = answer(&one).expect("the monitor knows it");
        prop_assert!(answered.save.as_bytes() == expected.as_bytes());
        prop_assert!(answered.general.as_bytes() == general.as_bytes());
        prop_assert!(!answered.event.is_valid());
    }

    #[test]
    fn other_registers_are_the_hypervisors((vmcb, general) in registers(), msr in any::<u32>()) {
        prop_assume!(MSRS.iter().all(|(known, _)| *known != msr));
        let mut general = general;
        general.rcx = msr.into();
        prop_assert!(answer(&at("rdmsr", &vmcb, &general)).is_none());
        prop_assert!(answer(&at("wrmsr", &vmcb, &general)).is_none());
    }
}

#[test]
fn writes_take_what_the_cpu_takes() {
    let (mut vmcb, general) = (Vmcb::zeroed(), General::ZERO);
    vmcb.save.g_pat = 0x0007_0406_0007_0406;
    let long = efer::LME | efer::NXE;
    let noncanonical = 0x8000_0000_0000_u64;
    for (msr, value, taken) in [
        (0xc000_0080, long | efer::SCE, Some(long | efer::SCE | efer::LMA | efer::SVME)),
        (0xc000_0080, long | efer::LMA, Some(long | efer::LMA | efer::SVME)),
        (0xc000_0080, efer::NXE, None), // out of long mode, with paging on
        (0xc000_0080, long | efer::SVME, None),
        (0xc000_0080, long | 1 << 14, None),
        (0x277, 0x0106_0500_0107_0406, Some(0x0106_0500_0107_0406)),
        (0x277, 2, None),
        (0x277, 3 << 56, None),
        (0xc000_0082, !0xfff, Some(!0xfff)),
        (0xc000_0082, noncanonical, None),
        (0xc000_0101, noncanonical - 1, Some(noncanonical - 1)),
        (0x175, noncanonical, None),
        (0xc000_0081, noncanonical, Some(noncanonical)), // selectors
        (0xc000_0084, u64::MAX, Some(0xffff_ffff)),
    ] {
        let (one, answered) = write(msr, value, &vmcb, &general);
        let answered = answered.expect("the monitor knows it");
        let mut expected = one.guest.save.clone();
        if let Some(taken) = taken {
            let (_, field) = MSRS.iter().find(|(known, _)| *known == msr).unwrap();
            *field(&mut expected) = taken;
            expected.rip = one.next_rip();
            assert_eq!(answered.event, Event::NONE, "{msr:x} {value:x}");
        } else {
            assert_eq!(answered.event, GENERAL_PROTECTION, "{msr:x} {value:x}");
        }
        assert!(answered.save.as_bytes() == expected.as_bytes(), "{msr:x} {value:x}");
        assert!(answered.general.as_bytes() == one.general.as_bytes());
    }
}

#[test]
fn an_answer_ends_a_shadow_and_a_refusal_does_not() {
    for (value, is_taken) in [(0x0007_0406_0007_0406, true), (2, false)] {
        let (mut one, _) = write(0x277, value, &Vmcb::zeroed(), &General::ZERO);
        one.control.interrupt_state = 1;
        assert_eq!(answer(&one).expect("the monitor knows it").in_shadow, !is_taken);
    }
}

#[test]
fn exceptions_go_back_to_the_guest_and_xsetbv_is_for_kernels() {
    for (vector, error_code) in [(1, None), (17, Some(0))] {
        let mut one = at("page fault", &Vmcb::zeroed(), &General::ZERO);
        one.control.exit_code = 0x40 + u64::from(vector);
        let answered = answer(&one).expect("the monitor gives it back");
        assert_eq!(answered.event, Event::new(EventKind::Exception, vector, error_code));
        assert!(answered.save.as_bytes() == one.guest.save.as_bytes());
    }
    let mut vmcb = Vmcb::zeroed();
    assert!(answer(&at("xsetbv", &vmcb, &General::ZERO)).is_none());
    let general = General { rcx: 1, ..General::ZERO };
    let answered = answer(&at("xsetbv", &vmcb, &general)).expect("there is no other");
    assert_eq!(answered.event, GENERAL_PROTECTION);
    // One that has the number of an MSR is still none.
    let general = General { rcx: 0x277, ..General::ZERO };
    let answered = answer(&at("xsetbv", &vmcb, &general)).expect("there is no other");
    assert_eq!(answered.event, GENERAL_PROTECTION);
    vmcb.save.cpl = 3;
    let answered = answer(&at("xsetbv", &vmcb, &General::ZERO)).expect("not for programs");
    assert_eq!(answered.event, GENERAL_PROTECTION);
    let asked = ["rdmsr", "wrmsr", "xsetbv"];
    for stop in stops().into_iter().filter(|stop| !asked.contains(&stop.name)) {
        let one = Exited::new(stop, &Vmcb::zeroed(), General::ZERO);
        assert!(answer(&one).is_none(), "{}", stop.name);
    }
}

#[test]
fn instructions_that_are_kept_from_a_guest_are_refused_it() {
    let undefined = Event::new(EventKind::Exception, 6, None);
    for (code, event) in [
        (0x6f, GENERAL_PROTECTION), // rdpmc
        (0x73, undefined),          // rsm
        (0x7a, undefined),          // invlpga
        (0x80, undefined),          // vmrun
        (0x82, undefined),
        (0x83, undefined),
        (0x84, undefined),
        (0x85, undefined),
        (0x86, undefined), // skinit
        (0x87, undefined), // rdtscp
        (0x8a, undefined), // monitor
        (0x8b, undefined),
        (0x8c, undefined),
        (0x8e, undefined), // rdpru
        (0xa0, undefined), // invlpgb
        (0xa4, undefined),
    ] {
        let mut one = at("page fault", &Vmcb::zeroed(), &General::ZERO);
        one.control.exit_code = code;
        let answered = answer(&one).expect("the monitor refuses it");
        assert_eq!(answered.event, event, "{code:x}");
        assert!(answered.save.as_bytes() == one.guest.save.as_bytes());
    }
}

#[test]
fn a_launched_guest_is_given_what_hardware_would_give_it() {
    let cut_short = Event::new(EventKind::Exception, 1, None);
    let moment = |exit, is_carried_out, takes_interrupts| Moment {
        exit,
        is_carried_out,
        takes_interrupts,
        cut_short,
    };
    for exit in [Exit::ReadMsr, Exit::WriteMsr, Exit::Cpuid, Exit::Interrupt, Exit::Halt] {
        for (is_carried_out, takes) in [(true, true), (true, false), (false, true), (false, false)]
        {
            let may = |event| moment(exit, is_carried_out, takes).may_inject(event);
            for vector in 0..=255 {
                let interrupt = Event::new(EventKind::Interrupt, vector, None);
                assert_eq!(may(interrupt), takes && vector >= 32 && vector != 0x80);
                assert!(!may(Event::new(EventKind::SoftwareInterrupt, vector, None)));
                let exception = Event::new(EventKind::Exception, vector, None);
                assert_eq!(may(exception), !is_carried_out && exception == cut_short);
                let exception = Event::new(EventKind::Exception, vector, Some(0));
                let of_msr = matches!(exit, Exit::ReadMsr | Exit::WriteMsr);
                assert_eq!(may(exception), !is_carried_out && of_msr && vector == 13);
            }
            assert!(may(Event::new(EventKind::Nmi, 2, None)));
            assert!(!may(Event::new(EventKind::Exception, 13, Some(1))));
            let reserved = Event::new(EventKind::Nmi, 2, None).raw() | 1 << 12;
            assert!(!may(Event::from_raw(reserved)));
            assert!(!may(Event::from_raw(1 << 31 | 7 << 8)), "a kind that is reserved");
        }
    }
    let invalid = Event::from_raw(3 << 8 | 1);
    let same = Moment { cut_short: invalid, ..moment(Exit::Interrupt, false, false) };
    assert!(!same.may_inject(invalid));
    let none = Moment { cut_short: Event::NONE, ..moment(Exit::Interrupt, false, false) };
    assert!(!none.may_inject(cut_short));
    assert!(!none.may_inject(Event::NONE));
}

#[test]
fn what_waits_is_an_interrupt_or_comes_back() {
    let mut vmcb = Vmcb::zeroed();
    let waits = |vector: u64| VirtualInterrupt(VirtualInterrupt::IRQ | vector << 32 | 0xf << 16);
    assert!(may_wait(&vmcb.control));
    for vector in 0..=255 {
        vmcb.control.virtual_interrupt = waits(vector.into());
        assert_eq!(may_wait(&vmcb.control), is_interrupt_vector(vector));
        let mut one = at("hlt", &vmcb, &General::ZERO);
        let (mut shown, general) = one.shown();
        shown.control.virtual_interrupt = vmcb.control.virtual_interrupt;
        let refused = resume(&one, &shown, &general).err();
        assert_eq!(refused, (!is_interrupt_vector(vector)).then_some(Refused::Waiting));
        one.control.exit_code = 0x64;
    }
    // So KVM asks to be told when the guest takes interrupts.
    vmcb.control.virtual_interrupt = waits(0);
    vmcb.control.intercepts = Intercepts::of(&[Intercept::Vintr]);
    assert!(may_wait(&vmcb.control));
    vmcb.control.virtual_interrupt = VirtualInterrupt(0);
    vmcb.control.intercepts = Intercepts::NONE;
    assert!(may_wait(&vmcb.control));
}

#[test]
fn a_launched_guest_is_stopped_where_there_is_a_row_or_the_monitor_insists() {
    let all = (0..=191).filter_map(Intercept::from_number).collect::<Vec<_>>();
    let everything = intercepts(&Intercepts::of(&all));
    let nothing = intercepts(&Intercepts::NONE);
    for intercept in &all {
        assert!(everything.has(*intercept) || !nothing.has(*intercept));
    }
    // What an ordinary kernel does by itself stays with it.
    for own in [
        Intercept::CrRead(0),
        Intercept::CrWrite(0),
        Intercept::CrWrite(3),
        Intercept::CrWrite(4),
        Intercept::Cr0SelectiveWrite,
        Intercept::DrRead(7),
        Intercept::DrWrite(0),
        Intercept::Exception(6),
        Intercept::Exception(14),
        Intercept::Invlpg,
        Intercept::Rdtsc,
    ] {
        assert!(!everything.has(own), "{own:?}");
    }
    // What a hypervisor keeps from its guest for its own sake.
    for kept in [Intercept::Rdpmc, Intercept::Mwait, Intercept::TaskSwitch] {
        assert!(everything.has(kept) && !nothing.has(kept), "{kept:?}");
    }
    // What reaches out of a guest never goes unseen.
    for outward in [Intercept::Vmload, Intercept::Stgi, Intercept::Io, Intercept::Xsetbv] {
        assert!(nothing.has(outward), "{outward:?}");
    }
    for stop in stops() {
        let one = Exited::new(stop, &Vmcb::zeroed(), General::ZERO);
        if let ExitCode::By(intercept) = one.control.exit() {
            assert!(everything.has(intercept), "{} has a row", stop.name);
        }
    }
}
