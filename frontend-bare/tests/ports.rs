//! The hypervisor's writes to ports of power: no reset and no sleep goes unseen, in whichever width
//! it is written.

use frontend_bare::acpi::{Register, Reset, Survey};
use frontend_bare::permission_map::insisted::why_port;
use frontend_bare::permission_map::{IoAccess, IoMap, IoWidth};
use frontend_bare::ports::PortAnswer::{Done, Off, PassOn, Reset as Anew};
use frontend_bare::ports::{NotAPort, PortAnswer, Ports};
use proptest::prelude::*;

const PM1A: u16 = 0x604;
const PM1B: u16 = 0xb08;
const SLEEP_CONTROL: u16 = 0x3c;
const RESET: u16 = 0xfe;

/// A machine with all registers of power that there are.
fn survey() -> Survey {
    let mut survey = Survey::default();
    survey.pm1.extend([Register::Port(PM1A), Register::Port(PM1B)]);
    survey.sleep_control = Some(Register::Port(SLEEP_CONTROL));
    survey.reset = Some(Reset { register: Register::Port(RESET), value: 0x7a });
    survey
}

fn write(port: u16, width: IoWidth, value: u32) -> PortAnswer {
    Ports::of(&survey()).unwrap().write(IoAccess { port, width }, value)
}

#[test]
fn commands_of_power_are_known() {
    use IoWidth::{Four, One, Two};
    for (port, width, value, answer) in [
        (0x64, One, 0xfe, Anew),
        (0x64, One, 0xf0, Anew),
        (0x64, One, 0xff, PassOn),
        (0x64, One, 0xfd, Done),
        (0x64, One, 0xd1, Done),
        (0x64, One, 0xdd, Done),
        (0x64, One, 0xdf, PassOn),
        (0x64, One, 0xd4, PassOn),
        (0x64, One, 0x60, PassOn),
        (0x92, One, 3, Anew),
        (0x92, One, 1, Anew),
        (0x92, One, 2, PassOn),
        (0x92, One, 0, Done),
        (0xcf9, One, 2, PassOn),
        (0xcf9, One, 6, Anew),
        (0xcf9, One, 0xe, Anew),
        (0xcf9, One, 4, Anew),
        (0xcf8, Two, 0x0600, Anew),
        (0xcf8, Two, 0x0006, PassOn),
        // An address of PCI's configuration space.
        (0xcf8, Four, 0x8000_0600, PassOn),
        (0xcf7, Four, 0x0006_0000, Anew),
        (0xcf6, Four, 0x0600_0000, Anew),
        (0x63, Two, 0xfe00, Anew),
        (PM1A, Two, 0x2000, Off),
        (PM1A, Two, 0x1c01, PassOn),
        (PM1A, Four, 0x2000, Off),
        (PM1A + 1, One, 0x20, Off),
        (PM1A, One, 0x20, PassOn),
        (PM1B, Two, 0x3400, Off),
        (SLEEP_CONTROL, One, 0x34, Off),
        (SLEEP_CONTROL, One, 0x14, PassOn),
        (RESET, One, 0x7a, Anew),
        (RESET, One, 0x7b, PassOn),
        // To be off is worse than to start anew.
        (PM1A - 1, Four, 0x20_0000, Off),
        (0x80, One, 0xfe, PassOn),
    ] {
        assert_eq!(write(port, width, value), answer, "{value:#x} to {port:#x}, {width:?}");
    }
}

#[test]
fn a_port_that_resets_and_sleeps_is_scrubbed_for_once() {
    let mut survey = survey();
    survey.reset = Some(Reset { register: Register::Port(0xcf9), value: 0xf });
    let ports = Ports::of(&survey).unwrap();
    let one = |value| ports.write(IoAccess { port: 0xcf9, width: IoWidth::One }, value);
    assert_eq!((one(0xf), one(6), one(0xb)), (Anew, Anew, PassOn));
}

#[test]
fn registers_elsewhere_are_refused() {
    for register in [Register::Memory(0xfed8_0804), Register::Elsewhere(2)] {
        let mut with = survey();
        with.pm1.push(register).unwrap();
        assert_eq!(Ports::of(&with), Err(NotAPort(register)));
        let with = Survey { sleep_control: Some(register), ..survey() };
        assert_eq!(Ports::of(&with), Err(NotAPort(register)));
        let with = Survey { reset: Some(Reset { register, value: 6 }), ..survey() };
        assert_eq!(Ports::of(&with), Err(NotAPort(register)));
    }
}

#[test]
fn a_machine_without_tables_has_what_every_machine_has() {
    let ports = Ports::of(&Survey::default()).unwrap();
    assert_eq!(ports.to_insist_on().count(), 0);
    assert_eq!(ports.write(IoAccess { port: 0xcf9, width: IoWidth::One }, 6), Anew);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever has an answer of its own comes out: the map has a bit for it.
    #[test]
    fn what_is_not_intercepted_may_pass(
        port in prop_oneof![
            prop::sample::select(&[0x60, 0x8e, 0xcf5, PM1A - 3, PM1B - 3, 0x39, RESET - 3][..]),
            any::<u16>(),
        ],
        more in 0_u16..8,
        width in prop::sample::select(&[IoWidth::One, IoWidth::Two, IoWidth::Four][..]),
        value in any::<u32>(),
    ) {
        let ports = Ports::of(&survey()).unwrap();
        let mut map = IoMap::empty();
        map.insist_all();
        ports.to_insist_on().for_each(|port| map.insist(port));
        let access = IoAccess { port: port.wrapping_add(more), width };
        prop_assert!(map.intercepts(access) || ports.write(access, value) == PassOn);
    }
}

#[test]
fn every_port_with_an_answer_is_insisted_on() {
    for survey in [Survey::default(), survey()] {
        let ports = Ports::of(&survey).unwrap();
        for port in 0..=u16::MAX {
            let answers = |value| ports.write(IoAccess { port, width: IoWidth::One }, value);
            let special = (0..=0xff).any(|value| answers(value) != PassOn);
            let insisted = why_port(port).is_some() || ports.to_insist_on().any(|one| one == port);
            assert_eq!(special, insisted, "{port:#x}");
        }
    }
}
