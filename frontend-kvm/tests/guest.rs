//! The toy guest on a real KVM: it counts, it is heard, it is answered, it stops when told.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{Ear, LONG, boot, kvm, page, steps, until, until_ready, word};
use frontend_kvm::abi::{self, code, gfn, mailbox, status};
use frontend_kvm::{
    Crash, Doorbell, GuestEvent, Handler, Machine, MachineError, Mode, OnFault, Program, Reply,
    VcpuStatus,
};
use view_core::{Gfn, MaskId, Perm};

#[test]
fn the_guest_counts_to_its_end() {
    let Some(kvm) = kvm("the_guest_counts_to_its_end") else { return };
    let (machine, ear) = boot(&kvm, Mode::Spin, |boot| boot.steps_max = 1_000_000);
    machine.start(ear.clone()).unwrap();
    assert_eq!(machine.wait(0, LONG).unwrap(), VcpuStatus::Ended(0));
    assert_eq!((steps(&machine), word(&machine, gfn::COUNTER_A, 0)), (1_000_000, 1_000_000));
    assert_eq!(*ear.heard(), [GuestEvent::End(0)]);
    assert!(matches!(machine.resume(), Err(MachineError::Over(VcpuStatus::Ended(0)))));
}

#[test]
fn a_paused_guest_stands_still_and_a_resumed_one_goes_on() {
    let Some(kvm) = kvm("a_paused_guest_stands_still_and_a_resumed_one_goes_on") else { return };
    let (machine, ear) = boot(&kvm, Mode::Spin, |_| {});
    machine.start(ear).unwrap();
    let mut last = 0;
    for _ in 0..300 {
        until("it counts", || steps(&machine) > last);
        machine.pause();
        assert_eq!(machine.status(0).unwrap(), VcpuStatus::Paused);
        last = steps(&machine);
        let first = word(&machine, gfn::COUNTER_A, 0);
        assert!(first == last || first == last + 1, "A is {first}, B is {last}");
        std::thread::yield_now();
        assert_eq!(steps(&machine), last);
        machine.resume().unwrap();
    }
    machine.stop();
    assert_eq!(machine.status(0).unwrap(), VcpuStatus::Paused);
}

#[test]
fn pauses_that_meet_doorbells_lose_neither() {
    let Some(kvm) = kvm("pauses_that_meet_doorbells_lose_neither") else { return };
    let (machine, ear) = boot(&kvm, Mode::Spin, |boot| boot.step_every = 1);
    machine.start(ear.clone()).unwrap();
    for _ in 0..300 {
        machine.pause();
        machine.resume().unwrap();
    }
    until("it counts", || ear.heard().len() > 1000);
    machine.stop();
    let rung = ear
        .heard()
        .iter()
        .zip(1..)
        .all(|(event, step)| *event == GuestEvent::Doorbell(Doorbell::Step(step)));
    assert!(rung, "a doorbell was lost or heard twice");
}

#[test]
fn sharing_is_heard_and_its_answer_reaches_the_guest() {
    let Some(kvm) = kvm("sharing_is_heard_and_its_answer_reaches_the_guest") else { return };
    let (machine, ear) = boot(&kvm, Mode::Counter, |boot| {
        boot.share_mask = 3;
        boot.share_expiry = 77;
    });
    machine.start(ear.clone()).unwrap();
    let steps = || word(&machine, gfn::MAILBOX, mailbox::STEPS);
    until("progress is in the mailbox", || steps() > 0);
    let share = Doorbell::Share {
        gfn: Gfn::new(gfn::MAILBOX).unwrap(),
        perm: Perm::Read,
        mask: MaskId::new(3).unwrap(),
        expiry: 77,
    };
    assert_eq!(ear.heard().first(), Some(&GuestEvent::Doorbell(share)));
    assert_eq!(page(&machine, gfn::MAILBOX).bytes()[..64], mailbox::GREETING);
    assert_eq!(word(&machine, gfn::STATUS, status::SHARE_CODE), u64::from(code::DONE));
}

#[test]
fn secrets_are_as_told_and_the_entropy_is_gone() {
    let Some(kvm) = kvm("secrets_are_as_told_and_the_entropy_is_gone") else { return };
    let program = Program::new(Mode::Counter, &common::ENTROPY);
    let machine = Machine::boot(&kvm, common::PAGES, &program).unwrap();
    machine.start(Ear::new()).unwrap();
    until_ready(&machine);
    machine.pause();
    for number in 0..program.boot.secret_pages {
        let held = page(&machine, gfn::SECRET + number);
        assert!(held.bytes() == program.secret(number).bytes(), "secret page {number}");
    }
    for number in 0..machine.memory().pages() as u64 {
        let page = page(&machine, number);
        let found = page.bytes().windows(8).any(|bytes| *bytes == common::ENTROPY[..8]);
        assert!(!found, "entropy is still in page {number:#x}");
    }
}

#[test]
fn a_toggler_keeps_secrets_in_its_mailbox_only_while_it_is_its_own() {
    let Some(kvm) = kvm("a_toggler_keeps_secrets_in_its_mailbox_only_while_it_is_its_own") else {
        return;
    };
    let (machine, ear) = boot(&kvm, Mode::Toggler, |boot| boot.toggle_every = 1000);
    machine.start(ear.clone()).unwrap();
    until("it toggled", || word(&machine, gfn::STATUS, status::TOGGLES) > 5);
    machine.stop();
    let heard = ear.heard();
    let shares = |event: &GuestEvent| matches!(event, GuestEvent::Doorbell(Doorbell::Share { .. }));
    let alternate = heard.iter().zip(0..).all(|(event, at)| shares(event) == (at % 2 == 0));
    assert!(alternate && heard.len() > 10, "{heard:?}");
}

#[test]
fn a_bad_guest_is_refused_everything() {
    let Some(kvm) = kvm("a_bad_guest_is_refused_everything") else { return };
    let (machine, ear) = boot(&kvm, Mode::Bad, |_| {});
    machine.start(ear.clone()).unwrap();
    let ended = machine.wait(0, LONG).unwrap();
    let answers: Vec<_> =
        (0..abi::TRIES).map(|n| word(&machine, gfn::STATUS, status::BAD + n)).collect();
    assert_eq!(ended, VcpuStatus::Ended(0), "answers {answers:x?}, console {:?}", ear.console());
    assert_eq!(ear.console(), format!("{}\n", ".".repeat(abi::TRIES as usize)));
    let heard = ear.heard();
    let formed = heard.iter().filter(|event| matches!(event, GuestEvent::Doorbell(_))).count();
    assert_eq!(formed, 2, "only the two well-formed doorbells may reach the handler");
    let malformed = heard.iter().filter(|event| matches!(event, GuestEvent::Malformed(_))).count();
    assert_eq!(malformed as u64, abi::TRIES - 3 + 2);
}

/// Parks the vCPU at every `STEP`.
struct Parker;

impl Handler for Parker {
    fn may_enter(&self, _vcpu: u8) -> bool {
        true
    }

    fn event(&self, _vcpu: u8, _event: GuestEvent) -> Reply {
        Reply::Pause(code::DONE)
    }

    fn fault(&self, _vcpu: u8) -> OnFault {
        OnFault::Stop
    }
}

#[test]
fn a_handler_can_park_the_guest_at_a_doorbell() {
    let Some(kvm) = kvm("a_handler_can_park_the_guest_at_a_doorbell") else { return };
    let (machine, _) = boot(&kvm, Mode::Spin, |boot| boot.step_every = 10);
    machine.start(Arc::new(Parker)).unwrap();
    for turn in 1..=50 {
        assert_eq!(machine.wait(0, LONG).unwrap(), VcpuStatus::Paused);
        assert_eq!(steps(&machine), turn * 10);
        machine.resume().unwrap();
    }
    machine.stop();
}

/// Panics at the first event.
struct Clumsy;

impl Handler for Clumsy {
    fn may_enter(&self, _vcpu: u8) -> bool {
        true
    }

    fn event(&self, _vcpu: u8, _event: GuestEvent) -> Reply {
        panic!("on purpose")
    }

    fn fault(&self, _vcpu: u8) -> OnFault {
        OnFault::Stop
    }
}

#[test]
fn a_handler_that_panics_stops_its_guest_and_nothing_else() {
    let Some(kvm) = kvm("a_handler_that_panics_stops_its_guest_and_nothing_else") else { return };
    let (machine, _) = boot(&kvm, Mode::Spin, |boot| boot.step_every = 10);
    machine.start(Arc::new(Clumsy)).unwrap();
    assert_eq!(machine.wait(0, LONG).unwrap(), VcpuStatus::Crashed(Crash::Handler));
    machine.pause();
    machine.stop();
}

#[test]
fn machines_start_and_stop_in_any_order() {
    let Some(kvm) = kvm("machines_start_and_stop_in_any_order") else { return };
    let (machine, ear) = boot(&kvm, Mode::Spin, |boot| boot.step_every = 3);
    std::thread::scope(|scope| {
        for turn in 0..4 {
            let (machine, ear) = (&machine, &ear);
            scope.spawn(move || {
                for _ in 0..100 {
                    // Refusals are fine: another thread was first. What counts is that none hangs.
                    let _ = match turn {
                        0 => machine.start(ear.clone()),
                        1 => machine.resume(),
                        2 => machine.save(0).map(|_| ()),
                        _ => {
                            machine.pause();
                            Ok(())
                        }
                    };
                    if turn == 0 {
                        machine.stop();
                    }
                }
            });
        }
    });
    machine.start(ear).unwrap();
    let now = steps(&machine);
    until("it counts", || steps(&machine) > now);
}

#[test]
fn a_wrong_machine_is_refused() {
    let Some(kvm) = kvm("a_wrong_machine_is_refused") else { return };
    for pages in [0, 1, 0x7ff, 512 * 512 + 1, usize::MAX] {
        assert!(matches!(Machine::new(&kvm, pages), Err(MachineError::Pages(_))));
    }
    let (machine, ear) = boot(&kvm, Mode::Spin, |_| {});
    assert!(matches!(machine.resume(), Err(MachineError::NotStarted)));
    assert!(matches!(machine.save(1), Err(MachineError::NoSuchVcpu(1))));
    machine.start(ear.clone()).unwrap();
    assert!(matches!(machine.start(ear), Err(MachineError::AlreadyStarted)));
    until("it runs", || machine.status(0).unwrap() == VcpuStatus::Running);
    assert!(matches!(machine.save(0), Err(MachineError::NotPaused)));
}

#[test]
fn a_machine_without_a_guest_crashes_alone() {
    let Some(kvm) = kvm("a_machine_without_a_guest_crashes_alone") else { return };
    let (machine, ear) = boot(&kvm, Mode::Spin, |_| {});
    // Nothing but zeroes where the payload was: `add [rax], al`, up to the end of the memory.
    for page in gfn::PAYLOAD..gfn::COUNTER_A {
        machine.memory().punch(frontend_kvm::guest::place(page)).unwrap();
    }
    machine.memory().close(frontend_kvm::guest::place(0)).unwrap();
    machine.start(ear.clone()).unwrap();
    let status = machine.wait(0, Duration::from_secs(60)).unwrap();
    assert_eq!(status, VcpuStatus::Crashed(Crash::Fault));
    assert_eq!(ear.faults(), 1);
}
