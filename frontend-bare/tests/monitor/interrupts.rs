//! Interrupts: the hypervisor's flag, which the CPU has not twice, and what guests find of theirs.

use frontend_bare::exit_code::ExitCode;
use frontend_bare::vmcb::{Event, EventKind, Intercept, VirtualInterrupt};

use crate::guest::Guest;
use crate::rig::Rig;

const RFLAGS_IF: u64 = 1 << 9;

/// Whether physical interrupts wait while the hypervisor runs: its own flag does not count then,
/// and the monitor lets none through.
fn are_held_back(rig: &mut Rig) -> bool {
    assert!(!rig.is_in_guest());
    let (vmcb, switched) = rig.cpu();
    vmcb.control.virtual_interrupt.has(VirtualInterrupt::MASKING) && switched.interrupts == 0
}

#[test]
fn the_hypervisors_global_flag_holds_interrupts_back() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    assert!(!are_held_back(&mut rig));
    assert_eq!(rig.svm(Intercept::Clgi, 0), None);
    assert!(are_held_back(&mut rig));
    assert_eq!(rig.svm(Intercept::Stgi, 0), None);
    assert!(!are_held_back(&mut rig));
    // Each #VMEXIT clears it, also that of a guest that did not run.
    assert!(rig.enter(guest.block()));
    rig.interrupt();
    assert!(are_held_back(&mut rig));
    assert_eq!(rig.svm(Intercept::Stgi, 0), None);
    rig.change_block(guest.block(), |block| block.control.asid = 0);
    assert!(!rig.enter(guest.block()));
    assert!(are_held_back(&mut rig));
}

#[test]
fn while_a_guest_runs_the_flag_that_the_hypervisor_had_counts() {
    for on in [false, true] {
        let mut rig = Rig::new();
        let guest = rig.make(Guest(0));
        let rflags = &mut rig.cpu().0.save.rflags;
        *rflags = *rflags & !RFLAGS_IF | if on { RFLAGS_IF } else { 0 };
        assert!(rig.enter(guest.block()));
        assert_eq!(rig.cpu().1.interrupts, u64::from(on));
        assert_eq!(rig.launch(), Some(0));
        assert_eq!(rig.cpu().1.interrupts, u64::from(on));
    }
}

#[test]
fn a_guest_keeps_the_shadow_behind_its_sti() {
    for launched in [false, true] {
        let mut rig = Rig::new();
        let guest = rig.make(Guest(0));
        assert!(rig.enter(guest.block()));
        if launched {
            assert_eq!(rig.launch(), Some(0));
        }
        rig.cpu().0.control.interrupt_state = 1;
        rig.interrupt();
        assert_eq!(rig.block(guest.block()).control.interrupt_state, 1);
        assert!(rig.enter(guest.block()));
        assert_eq!(rig.cpu().0.control.interrupt_state, 1);
        // An instruction that the hypervisor carries out ends it.
        rig.guest_halts();
        let length = u64::from(launched);
        rig.change_block(guest.block(), |block| {
            (block.save.rip, block.control.interrupt_state) = (block.save.rip + length, 0);
        });
        assert!(rig.enter(guest.block()));
        assert_eq!(rig.cpu().0.control.interrupt_state, 0);
    }
}

#[test]
fn what_was_being_delivered_to_a_guest_shows_and_may_be_given_again() {
    let mut rig = Rig::new();
    let guest = rig.launched(0);
    let interrupt = Event::new(EventKind::Interrupt, 0x31, None);
    rig.cpu().0.save.rflags |= RFLAGS_IF;
    rig.cpu().0.control.exit_event = interrupt;
    rig.exit(ExitCode::By(Intercept::Intr), [0; 2]);
    assert_eq!(rig.block(guest.block()).control.exit_event, interrupt);
    rig.change_block(guest.block(), |block| block.control.event = interrupt);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.cpu().0.control.event, interrupt);
    // A fault of the guest's own neither shows nor is it for the hypervisor to give.
    let fault = Event::new(EventKind::Exception, 14, Some(2));
    rig.cpu().0.control.exit_event = fault;
    rig.exit(ExitCode::By(Intercept::Intr), [0; 2]);
    assert_eq!(rig.block(guest.block()).control.exit_event, Event::NONE);
    rig.change_block(guest.block(), |block| block.control.event = fault);
    assert!(!rig.enter(guest.block()));
    assert!(rig.said("is not for a guest that is launched"));
}

#[test]
fn a_guest_that_is_not_launched_is_given_what_its_hypervisor_says() {
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    let fault = Event::new(EventKind::Exception, 14, Some(2));
    rig.change_block(guest.block(), |block| block.control.event = fault);
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.cpu().0.control.event, fault);
    // Its pages are found while that is delivered.
    rig.cpu().0.control.exit_event = fault;
    rig.exit(ExitCode::NestedPageFault, [1 << 32 | 6, 5 << 12]);
    assert!(rig.is_in_guest());
    assert_eq!(rig.cpu().0.control.event, fault);
}
