//! What a hypervisor finds of a launched guest's registers, and what it may change.

use frontend_bare::exit_code::ExitCode;
use frontend_bare::vmcb::{Event, EventKind, Intercept, VirtualInterrupt};
use zerocopy::IntoBytes;

use crate::guest::{Guest, SHUT_DOWN};
use crate::rig::Rig;

const SECRET: u64 = 0x5ec2_e700_0000_0004;

/// Puts the secret into every register that a guest may have anything in.
fn fill(rig: &mut Rig) {
    let (vmcb, switched) = rig.cpu();
    let save = &mut vmcb.save;
    (save.rax, save.rsp, save.cr2) = (SECRET, SECRET, SECRET);
    (save.star, save.lstar, save.kernel_gs_base) = (SECRET, SECRET, SECRET);
    (save.fs.base, save.gs.base, save.tr.base) = (SECRET, SECRET, SECRET);
    for word in switched.general.as_mut_bytes().as_chunks_mut::<8>().0 {
        *word = SECRET.to_le_bytes();
    }
    // XMM5, and what is behind the header: the upper half of some YMM.
    for at in [160 + 16 * 5, 576 + 16] {
        switched.extended.as_mut_bytes()[at..at + 8].copy_from_slice(&SECRET.to_le_bytes());
    }
}

fn has(bytes: &[u8]) -> bool {
    bytes.windows(8).any(|window| window == SECRET.to_le_bytes())
}

/// Whether the secret is in what the hypervisor's CPU has.
fn shows(rig: &mut Rig) -> bool {
    assert!(!rig.is_in_guest());
    let (vmcb, switched) = rig.cpu();
    let in_block = has(vmcb.as_bytes());
    in_block || has(switched.general.as_bytes()) || has(switched.extended.as_bytes())
}

/// A launched guest with secrets in all registers, stopped at HLT.
fn halted() -> (Rig, Guest) {
    let mut rig = Rig::new();
    let guest = rig.launched(0);
    fill(&mut rig);
    rig.guest_halts();
    assert!(!shows(&mut rig));
    assert_eq!(rig.machine.find(SECRET, |_| false), None);
    (rig, guest)
}

/// The guest is entered and has all that it had.
fn goes_on(rig: &mut Rig, guest: Guest) {
    assert!(rig.enter(guest.block()));
    let (vmcb, switched) = rig.cpu();
    let save = &vmcb.save;
    assert_eq!([save.rax, save.rsp, save.lstar, save.gs.base], [SECRET; 4]);
    assert_eq!([switched.general.rbx, switched.general.r15], [SECRET; 2]);
    assert!(has(switched.extended.as_bytes()));
}

/// The hypervisor's entry comes to nothing: the guest is gone.
fn is_gone(rig: &mut Rig, guest: Guest, reason: &str) {
    assert!(!rig.enter(guest.block()));
    assert_eq!(rig.exit_code(guest), SHUT_DOWN);
    let lines = &rig.machine.console;
    assert!(rig.said("guest 0 is stopped") && rig.said(reason), "{lines:?}");
    assert!(rig.is_scrubbed(guest) && !shows(rig));
}

#[test]
fn nothing_shows_at_a_halt_and_all_is_there_again() {
    let (mut rig, guest) = halted();
    let block = rig.block(guest.block());
    assert_eq!(block.control.exit(), ExitCode::By(Intercept::Hlt));
    assert_eq!((block.save.rip, block.control.next_rip), (0, 1));
    goes_on(&mut rig, guest);
}

#[test]
fn at_a_port_its_byte_shows_and_nothing_else() {
    let mut rig = Rig::new();
    let guest = rig.launched(0);
    fill(&mut rig);
    rig.cpu().0.save.rax = SECRET << 8 | 0x41;
    let next = rig.cpu().0.save.rip + 1;
    rig.guest_does(&[0xee], Intercept::Io, [0x3f8 << 16 | 1 << 4, next]);
    assert!(!shows(&mut rig));
    assert_eq!(rig.block(guest.block()).save.rax, 0x41);
}

#[test]
fn what_comes_in_through_a_port_is_the_result_and_nothing_else() {
    for is_wrong in [false, true] {
        let (mut rig, guest) = halted();
        rig.change_block(guest.block(), |block| block.save.rip = 1);
        assert!(rig.enter(guest.block()));
        let next = rig.cpu().0.save.rip + 1;
        rig.guest_does(&[0xec], Intercept::Io, [0x3f8 << 16 | 1 << 4 | 1, next]);
        rig.change_block(guest.block(), |block| {
            (block.save.rip, block.save.rax) = (1, if is_wrong { 0x142 } else { 0x42 });
        });
        if is_wrong {
            is_gone(&mut rig, guest, "the register rax was changed");
        } else {
            assert!(rig.enter(guest.block()));
            assert_eq!(rig.cpu().0.save.rax, SECRET & !0xff | 0x42);
        }
    }
}

#[test]
fn a_changed_register_stops_the_guest() {
    let changes: [fn(&mut Rig, Guest); 7] = [
        |rig, guest| rig.change_block(guest.block(), |block| block.save.rax = 1),
        |rig, guest| rig.change_block(guest.block(), |block| block.save.rip = 5),
        |rig, guest| rig.change_block(guest.block(), |block| block.save.cr3 = 0x1000),
        |rig, guest| rig.change_block(guest.block(), |block| block.save.cr4 ^= 1 << 4),
        |rig, guest| rig.change_block(guest.block(), |block| block.save.lstar = 1),
        |rig, guest| rig.kept(guest.block()).0.r9 = 1,
        |rig, guest| rig.kept(guest.block()).1.as_mut_bytes()[160] = 1,
    ];
    for change in changes {
        let (mut rig, guest) = halted();
        change(&mut rig, guest);
        is_gone(&mut rig, guest, "was changed");
    }
}

#[test]
fn exceptions_are_not_for_hypervisors_to_give() {
    for (kind, vector) in [
        (EventKind::Exception, 14),
        (EventKind::Exception, 6),
        (EventKind::SoftwareInterrupt, 0x80),
        // Its interrupts are off.
        (EventKind::Interrupt, 0x31),
    ] {
        let (mut rig, guest) = halted();
        rig.change_block(guest.block(), |block| {
            block.control.event = Event::new(kind, vector, None);
        });
        is_gone(&mut rig, guest, "is not for a guest that is launched");
    }
}

#[test]
fn an_interrupt_that_the_guest_takes_is_given() {
    let mut rig = Rig::new();
    let guest = rig.launched(0);
    rig.cpu().0.save.rflags |= 1 << 9;
    rig.guest_halts();
    let event = Event::new(EventKind::Interrupt, 0x31, None);
    rig.change_block(guest.block(), |block| (block.save.rip, block.control.event) = (1, event));
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.cpu().0.control.event, event);
    rig.interrupt();
    assert_eq!(rig.block(guest.block()).control.event, Event::NONE);
}

#[test]
fn a_waiting_interrupt_that_is_none_stops_the_guest() {
    let (mut rig, guest) = halted();
    rig.change_block(guest.block(), |block| {
        block.control.virtual_interrupt.0 |= VirtualInterrupt::IRQ | 0x80 << 32;
    });
    is_gone(&mut rig, guest, "what waits is not an interrupt");
}

#[test]
fn what_waits_when_a_guest_is_launched_is_no_exception() {
    for (vector, waits) in [(0x80, false), (14, false), (0x31, true)] {
        let mut rig = Rig::new();
        let guest = rig.make(Guest(0));
        rig.change_block(guest.block(), |block| {
            block.control.virtual_interrupt.0 |= VirtualInterrupt::IRQ | vector << 32;
        });
        assert!(rig.enter(guest.block()));
        assert_eq!(rig.launch(), Some(0));
        let waiting = rig.cpu().0.control.virtual_interrupt;
        assert_eq!(waiting.has(VirtualInterrupt::IRQ), waits, "vector {vector:#x}");
    }
}

#[test]
fn a_hypervisor_does_not_say_where_a_launched_guests_instruction_ends() {
    // On a CPU that does not say so either: what was in the block before is still there.
    let mut rig = Rig::new();
    let guest = rig.make(Guest(0));
    let rip = rig.block(guest.block()).save.rip;
    rig.change_block(guest.block(), |block| {
        block.control.event = Event::new(EventKind::SoftwareInterrupt, 0x30, None);
        block.control.next_rip = rip + 7;
    });
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.launch(), Some(0));
    rig.guest_halts();
    assert_eq!(rig.block(guest.block()).control.next_rip, 1);
}

#[test]
fn a_block_that_is_refused_shows_no_register_of_the_guest() {
    let spoils: [fn(&mut frontend_bare::vmcb::Vmcb); 4] = [
        |block| block.control.asid = 0,
        |block| block.control.nested_features = 0,
        |block| block.control.io_map = u64::MAX,
        |block| block.control.nested_cr3 = 0xfff,
    ];
    for spoil in spoils {
        let (mut rig, guest) = halted();
        let good = rig.host_read_page(guest.block()).unwrap();
        rig.change_block(guest.block(), spoil);
        assert!(!rig.enter(guest.block()));
        assert!(!shows(&mut rig));
        assert_eq!(rig.exit_code(guest), ExitCode::Invalid);
        assert_eq!(rig.machine.find(SECRET, |_| false), None);
        // Nothing ran, and a block that is as it was is entered.
        rig.host_write_page(guest.block(), &good).unwrap();
        goes_on(&mut rig, guest);
    }
}

/// VMRUN switches none of them, so whoever runs next would find them.
#[test]
fn breakpoints_are_of_whoever_runs() {
    let mut rig = Rig::new();
    rig.machine.breakpoints = [1, 2, 3, 4];
    let guest = rig.launched(0);
    rig.machine.breakpoints = [SECRET; 4];
    rig.guest_halts();
    assert_eq!(rig.machine.breakpoints, [1, 2, 3, 4], "the hypervisor's are back");
    rig.machine.breakpoints = [5; 4];
    assert!(rig.enter(guest.block()));
    assert_eq!(rig.machine.breakpoints, [SECRET; 4], "the guest's are back");
    rig.call(frontend_bare::calls::END, [0; 3]);
    assert_eq!(rig.machine.breakpoints, [5; 4], "also when there is no guest any more");
}

/// Of parts that it does not know the monitor does not know either which the CPU takes together.
#[test]
fn a_guest_turns_on_what_the_monitor_knows() {
    for (asked, taken) in [(7, true), (1 | 1 << 3, false), (1 | 1 << 3 | 1 << 4, false)] {
        let mut rig = Rig::new();
        let guest = rig.launched(0);
        let (vmcb, switched) = rig.cpu();
        vmcb.save.rax = asked;
        (switched.general.rcx, switched.general.rdx) = (0, 0);
        rig.guest_does(&[0x0f, 0x01, 0xd1], Intercept::Xsetbv, [0; 2]);
        rig.change_block(guest.block(), |vmcb| vmcb.save.rip += 3);
        assert!(rig.enter(guest.block()));
        let (vmcb, switched) = rig.cpu();
        assert_eq!(switched.xcr0 == asked, taken, "{asked:#x}");
        assert_eq!(vmcb.control.event.is_valid(), !taken, "{asked:#x}");
    }
}
