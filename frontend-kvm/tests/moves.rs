//! A guest whose pages are switched, closed, watched, and that goes on in another machine.

mod common;

use std::sync::Arc;

use common::{Ear, PAGES, boot, kvm, page, steps, until, until_ready, word};
use frontend_kvm::abi::{gfn, mailbox, status};
use frontend_kvm::guest::place;
use frontend_kvm::sys::MemFd;
use frontend_kvm::{Machine, Mode, OnFault, Program, VcpuState};
use view_core::Page;

/// Makes `to` what `from` is; both are paused. The state takes the way through its bytes.
fn move_over(from: &Machine, to: &Machine) {
    for number in 0..from.memory().pages() as u64 {
        to.memory().write_page(place(number), &page(from, number)).unwrap();
    }
    let bytes = from.save(0).unwrap().to_bytes();
    to.load(0, &VcpuState::from_bytes(&bytes).unwrap()).unwrap();
}

#[test]
fn a_guest_goes_on_where_it_was_in_another_machine() {
    let Some(kvm) = kvm("a_guest_goes_on_where_it_was_in_another_machine") else { return };
    let (mut here, _) = boot(&kvm, Mode::Toggler, |boot| boot.toggle_every = 10_000);
    let program = Program::new(Mode::Toggler, &common::ENTROPY);
    here.start(Ear::new()).unwrap();
    until("it toggled", || word(&here, gfn::STATUS, status::TOGGLES) > 3);
    for _ in 0..4 {
        here.pause();
        let before = steps(&here);
        let there = Machine::new(&kvm, PAGES).unwrap();
        move_over(&here, &there);
        drop(here);
        assert_eq!(steps(&there), before);
        there.start(Ear::new()).unwrap();
        until("it goes on", || steps(&there) > before + 50_000);
        assert!(page(&there, gfn::SECRET + 1).bytes() == program.secret(1).bytes());
        here = there;
    }
}

#[test]
fn a_guest_can_be_rolled_back_and_revived() {
    let Some(kvm) = kvm("a_guest_can_be_rolled_back_and_revived") else { return };
    let (machine, _) = boot(&kvm, Mode::Spin, |boot| boot.steps_max = 3_000_000);
    machine.start(Ear::new()).unwrap();
    until("it counts", || steps(&machine) > 1000);
    machine.pause();
    let (state, at) = (machine.save(0).unwrap(), steps(&machine));
    let held: Vec<Page> = (0..PAGES as u64).map(|number| page(&machine, number)).collect();
    machine.resume().unwrap();
    machine.wait(0, common::LONG).unwrap();
    assert_eq!(steps(&machine), 3_000_000);
    for (number, page) in (0..).zip(&held) {
        machine.memory().write_page(place(number), page).unwrap();
    }
    machine.load(0, &state).unwrap();
    assert_eq!(steps(&machine), at);
    machine.resume().unwrap();
    machine.wait(0, common::LONG).unwrap();
    assert_eq!(steps(&machine), 3_000_000);
}

#[test]
fn a_page_is_switched_under_the_running_guest_and_back() {
    let Some(kvm) = kvm("a_page_is_switched_under_the_running_guest_and_back") else { return };
    let (machine, _) = boot(&kvm, Mode::Counter, |_| {});
    machine.start(Ear::new()).unwrap();
    let memory = machine.memory();
    let own = || word(&machine, gfn::MAILBOX, mailbox::STEPS);
    until("progress is in its own page", || own() > 0);
    let other = MemFd::create(c"pageveil-other", 4).unwrap();
    let view = frontend_kvm::sys::Mapping::shared(&other).unwrap();
    let seen = |p: usize| {
        let words = view.words(p).unwrap();
        words[mailbox::STEPS as usize].load(std::sync::atomic::Ordering::Relaxed)
    };
    for turn in 0..100 {
        let from = turn % 4;
        memory.switch(place(gfn::MAILBOX), &other, from).unwrap();
        let kept = own();
        let before = seen(from);
        until("progress is in the other page", || seen(from) > before);
        assert_eq!(own(), kept, "a store reached the page after it was switched");
        memory.restore(place(gfn::MAILBOX)).unwrap();
        let kept = seen(from);
        until("progress is in its own page again", || own() > 0 && own() >= kept);
        assert_eq!(seen(from), kept, "a store reached the other page after the restore");
    }
}

#[test]
fn a_closed_page_faults_until_it_is_restored() {
    let Some(kvm) = kvm("a_closed_page_faults_until_it_is_restored") else { return };
    let (machine, ear) = boot(&kvm, Mode::Counter, |_| {});
    machine.start(ear.clone()).unwrap();
    until_ready(&machine);
    let memory = Arc::clone(machine.memory());
    ear.on_fault(move || {
        memory.restore(place(gfn::COUNTER_A)).unwrap();
        OnFault::Retry
    });
    for turn in 1..=50 {
        machine.memory().close(place(gfn::COUNTER_A)).unwrap();
        until("it faults", || ear.faults() >= turn);
        let now = steps(&machine);
        until("it goes on", || steps(&machine) > now);
    }
}

#[test]
fn a_closed_page_can_be_paused_on() {
    let Some(kvm) = kvm("a_closed_page_can_be_paused_on") else { return };
    let (machine, ear) = boot(&kvm, Mode::Spin, |_| {});
    ear.on_fault(|| OnFault::Retry);
    machine.start(ear.clone()).unwrap();
    until("it counts", || steps(&machine) > 0);
    machine.memory().close(place(gfn::COUNTER_A)).unwrap();
    until("it faults", || ear.faults() > 3);
    machine.pause();
    let stood = steps(&machine);
    machine.memory().restore(place(gfn::COUNTER_A)).unwrap();
    machine.resume().unwrap();
    until("it goes on", || steps(&machine) > stood);
}

#[test]
fn a_punched_page_reads_as_zero_everywhere() {
    let Some(kvm) = kvm("a_punched_page_reads_as_zero_everywhere") else { return };
    let (machine, _) = boot(&kvm, Mode::Counter, |_| {});
    machine.start(Ear::new()).unwrap();
    until_ready(&machine);
    machine.pause();
    assert!(page(&machine, gfn::SECRET).bytes().iter().any(|byte| *byte != 0));
    machine.memory().punch(place(gfn::SECRET)).unwrap();
    assert!(page(&machine, gfn::SECRET).bytes().iter().all(|byte| *byte == 0));
}
