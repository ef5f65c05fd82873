//! The hypervisor's accesses to MSRs: what is virtual behaves as the manual says, and of the rest
//! nothing reaches the CPU that could move the monitor or hide from it.

use std::collections::BTreeMap;

use frontend_bare::msr::MsrAnswer::{Done, GeneralProtection, PassOn, Value};
use frontend_bare::msr::{Below, MsrAnswer, Msrs, Offered};
use frontend_bare::permission_map::MsrAccess;
use frontend_bare::permission_map::insisted::{Whom, why_msr};
use frontend_bare::vmcb::{Vmcb, cr0, efer};
use proptest::prelude::*;

/// A CPU with these values in its MSRs, and zero in others.
#[derive(Default)]
struct Cpu(BTreeMap<u32, u64>);

/// The monitor's page; all others are the hypervisor's.
const MONITORS: u64 = 0x20_0000;

impl Below for Cpu {
    fn real(&mut self, msr: u32) -> u64 {
        self.0.get(&msr).copied().unwrap_or(0)
    }
    fn is_readable_page(&mut self, address: u64) -> bool {
        address.is_multiple_of(4096) && address != MONITORS && address < 1 << 40
    }
}

const OFFERED: Offered =
    Offered { efer: efer::SCE | efer::LME | efer::NXE | 1 << 14 | 1 << 15, x2apic: true };

const EFER: u32 = 0xc000_0080;
const VM_CR: u32 = 0xc001_0114;
const VM_HSAVE_PA: u32 = 0xc001_0117;

/// The hypervisor's registers in long mode, as its control block has them.
fn block() -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    vmcb.save.efer = efer::SVME | efer::LME | efer::LMA | efer::SCE;
    vmcb.save.cr0 = cr0::PG | cr0::PE;
    vmcb
}

/// A write to a fresh set of MSRs, above a CPU that has `real` in this one.
fn written(msr: u32, value: u64, real: u64) -> MsrAnswer {
    let mut cpu = Cpu(BTreeMap::from([(msr, real)]));
    Msrs::new(OFFERED).write(msr, value, &mut block().save, &mut cpu)
}

#[test]
fn svm_is_off_for_the_hypervisor_until_it_turns_it_on() {
    let (mut msrs, mut vmcb) = (Msrs::new(OFFERED), block());
    let save = &mut vmcb.save;
    let long = efer::LME | efer::LMA | efer::SCE;
    // KVM refuses to begin where it is on.
    assert_eq!(msrs.read(EFER, save), Value(long));
    assert!(!msrs.svme());
    assert_eq!(msrs.write(EFER, long | efer::SVME, save, &mut Cpu::default()), Done);
    assert_eq!(msrs.read(EFER, save), Value(long | efer::SVME));
    assert!(msrs.svme());
    assert_eq!(msrs.write(EFER, long | efer::NXE, save, &mut Cpu::default()), Done);
    assert_eq!(msrs.read(EFER, save), Value(long | efer::NXE));
    assert!(!msrs.svme());
    assert_eq!(save.efer, long | efer::NXE | efer::SVME, "below it stays on");
}

#[test]
fn what_cpuid_shows_is_offered() {
    let with = |function, register: usize, bit: u32| {
        Offered::of(|asked, _| {
            let mut answer = [0; 4];
            answer[register] = u32::from(asked == function) << bit;
            answer
        })
    };
    let none = Offered::of(|_, _| [0; 4]);
    assert_eq!(none, Offered { efer: 0, x2apic: false });
    for (function, register, bit, efer) in [
        (0x8000_0001, 3, 11, 0),
        (0x8000_0001, 3, 29, 8),
        (0x8000_0001, 3, 20, 11),
        (0x8000_0001, 3, 25, 14),
        (0x8000_0001, 2, 17, 15),
        (0x8000_0008, 1, 13, 18),
        (0x8000_0021, 0, 8, 21),
    ] {
        assert_eq!(with(function, register, bit), Offered { efer: 1 << efer, ..none });
    }
    assert_eq!(with(1, 2, 21), Offered { x2apic: true, ..none });
    // MCOMMIT, ignored bits of addresses: there, but hidden.
    assert_eq!(with(0x8000_0008, 1, 8), none);
    assert_eq!(with(0x8000_0021, 0, 7), none);
}

#[test]
fn efer_takes_what_is_offered() {
    let (mut msrs, mut vmcb) = (Msrs::new(OFFERED), block());
    let save = &mut vmcb.save;
    let before = save.efer;
    let mut write = |value, save: &mut _| msrs.write(EFER, value, save, &mut Cpu::default());
    for bit in [1, 7, 9, 13, 16, 17, 20, 21, 63] {
        assert_eq!(write(before | 1 << bit, save), GeneralProtection, "{bit}");
    }
    assert_eq!(write(efer::SCE, save), GeneralProtection, "out of long mode with paging on");
    assert_eq!(save.efer, before);
    // LMA is the CPU's, whatever is written.
    assert_eq!(write(efer::LME, save), Done);
    assert_eq!(save.efer, efer::LME | efer::LMA | efer::SVME);
    save.cr0 = cr0::PE;
    save.efer = efer::SVME | efer::LME;
    assert_eq!(write(efer::LMA, save), Done);
    assert_eq!(save.efer, efer::SVME);
}

#[test]
fn the_save_area_is_virtual() {
    let (mut msrs, mut vmcb) = (Msrs::new(OFFERED), block());
    let save = &mut vmcb.save;
    let mut cpu = Cpu::default();
    assert_eq!(msrs.write(VM_HSAVE_PA, 0x1234_5000, save, &mut cpu), Done);
    assert_eq!(msrs.read(VM_HSAVE_PA, save), Value(0x1234_5000));
    for refused in [0x1234_5001, MONITORS, 1 << 40, u64::MAX] {
        assert_eq!(msrs.write(VM_HSAVE_PA, refused, save, &mut cpu), GeneralProtection);
        assert_eq!(msrs.read(VM_HSAVE_PA, save), Value(0x1234_5000));
    }
}

#[test]
fn svm_can_be_locked_away_as_the_manual_says() {
    const DIS: u64 = 1 << 4;
    const LOCK: u64 = 1 << 3;
    let (mut msrs, mut vmcb) = (Msrs::new(OFFERED), block());
    let save = &mut vmcb.save;
    let mut cpu = Cpu::default();
    assert_eq!(msrs.read(VM_CR, save), Value(0), "not disabled, not locked");
    assert_eq!(msrs.write(VM_CR, 1 << 5, save, &mut cpu), GeneralProtection);
    assert_eq!(msrs.write(VM_CR, 0b111, save, &mut cpu), Done);
    assert_eq!(msrs.read(VM_CR, save), Value(0b111));
    assert_eq!(msrs.write(EFER, save.efer, save, &mut cpu), Done);
    assert_eq!(msrs.write(VM_CR, DIS, save, &mut cpu), GeneralProtection, "in use");
    assert_eq!(msrs.write(EFER, save.efer & !efer::SVME, save, &mut cpu), Done);
    assert_eq!(msrs.write(VM_CR, DIS, save, &mut cpu), Done);
    assert_eq!(msrs.write(EFER, save.efer | efer::SVME, save, &mut cpu), GeneralProtection);
    assert_eq!(msrs.write(VM_CR, DIS | LOCK, save, &mut cpu), Done);
    // Now neither of the two changes any more, and nothing is said about it.
    assert_eq!(msrs.write(VM_CR, 1, save, &mut cpu), Done);
    assert_eq!(msrs.read(VM_CR, save), Value(DIS | LOCK | 1));
}

#[test]
fn the_apic_stays_where_it_is() {
    const BASE: u64 = 0xfee0_0100;
    let (off, xapic, x2apic, nonsense) = (BASE, BASE | 0x800, BASE | 0xc00, BASE | 0x400);
    for (from, to, answer) in [
        (off, xapic, PassOn),
        (xapic, x2apic, PassOn),
        (xapic, xapic, PassOn),
        (x2apic, x2apic, PassOn),
        (xapic, off, PassOn),
        (x2apic, off, PassOn),
        (off, x2apic, GeneralProtection),
        (x2apic, xapic, GeneralProtection),
        (xapic, nonsense, GeneralProtection),
        (xapic, xapic + 0x1000, GeneralProtection),
        (xapic, MONITORS | 0x900, GeneralProtection),
        (xapic, xapic ^ 0x100, GeneralProtection),
        (xapic, xapic | 1, GeneralProtection),
    ] {
        assert_eq!(written(0x1b, to, from), answer, "{from:#x} to {to:#x}");
    }
    let old = Offered { x2apic: false, ..OFFERED };
    let mut cpu = Cpu(BTreeMap::from([(0x1b, xapic)]));
    let answer = Msrs::new(old).write(0x1b, x2apic, &mut block().save, &mut cpu);
    assert_eq!(answer, GeneralProtection);
}

#[test]
fn commands_start_no_cpu() {
    let command = |value: u64, base| {
        let mut cpu = Cpu(BTreeMap::from([(0x1b, base)]));
        Msrs::new(OFFERED).write(0x830, value, &mut block().save, &mut cpu)
    };
    const ON: u64 = 0xfee0_0d00;
    for (value, answer) in [
        (0x40f1, PassOn),      // fixed
        (0x0004_00f2, PassOn), // fixed, to itself
        (0x0001_0000_0000_01f2, PassOn),
        (0x0000_0400, PassOn), // NMI
        (0x000c_4500, Done),   // INIT, to all others
        (0x0000_0608, Done),   // start-up
        (0x0000_0200, Done),   // SMI
        (0x0010_00f2, GeneralProtection),
        (0x0000_10f2, GeneralProtection),
    ] {
        assert_eq!(command(value, ON), answer, "{value:#x}");
    }
    assert_eq!(command(0x0004_00f2, 0xfee0_0900), GeneralProtection, "not in that mode");
}

#[test]
fn what_would_change_nothing_is_done_and_what_would_is_refused() {
    // IORRs, TOP_MEM, traps of ports, the base of configuration space, SMM's memory, IBS.
    let fixed = [0xc001_0016, 0xc001_0018, 0xc001_001a, 0xc001_001d, 0xc001_0050, 0xc001_0056];
    for msr in fixed.into_iter().chain([0xc001_0058, 0xc001_0111, 0xc001_0113, 0xc001_1033]) {
        assert_eq!(written(msr, 0x1234, 0x1234), Done, "{msr:#x}");
        assert_eq!(written(msr, 0x1235, 0x1234), GeneralProtection, "{msr:#x}");
    }
    const SYSCFG: u32 = 0xc001_0010;
    assert_eq!(written(SYSCFG, 0x70_0000, 0x78_0000), PassOn, "as Linux mends what firmware left");
    assert_eq!(written(SYSCFG, 0x78_0000, 0x78_0000), Done);
    assert_eq!(written(SYSCFG, 0x78_0000, 0x70_0000), GeneralProtection);
    assert_eq!(written(SYSCFG, 0xf0_0000, 0x78_0000), GeneralProtection, "encryption");
    assert_eq!(written(SYSCFG, 0xf0_0000, 0x70_0000), GeneralProtection, "encryption");
    const HWCR: u32 = 0xc001_0015;
    assert_eq!(written(HWCR, 0x204_0010, 0x10), PassOn);
    assert_eq!(written(HWCR, 0x11, 0x10), GeneralProtection, "the lock of SMM");
    assert_eq!(written(HWCR, 0, 0x10), GeneralProtection, "INVD that writes nothing back");
    assert_eq!(written(0x1d9, 2, 0), PassOn);
    assert_eq!(written(0x1d9, 1, 0), GeneralProtection, "records of branches");
    assert_eq!(written(0xc001_0020, 0xffff_8000_1234_5678, 0), Done, "no microcode, and no #GP");
    for msr in [0xc001_0116, 0xc001_0118, 0xc001_0119, 0xc001_011b] {
        assert_eq!(written(msr, 0, 0), GeneralProtection, "{msr:#x}");
    }
}

#[test]
fn what_no_map_has_is_no_msr() {
    let vmcb = block();
    for msr in [0x2000, 0x4000_0000, 0x4b56_4d00, 0xbfff_ffff, 0xc000_2000, 0xc001_2000, u32::MAX] {
        assert_eq!(Msrs::new(OFFERED).read(msr, &vmcb.save), GeneralProtection, "{msr:#x}");
        assert_eq!(written(msr, 0, 0), GeneralProtection, "{msr:#x}");
    }
}

/// All MSRs that the maps have.
fn all() -> impl Iterator<Item = u32> {
    [0..0x2000, 0xc000_0000..0xc000_2000, 0xc001_0000..0xc001_2000].into_iter().flatten()
}

#[test]
fn whatever_is_insisted_on_has_a_verdict() {
    let vmcb = block();
    for msr in all() {
        let insisted = |write| why_msr(MsrAccess { msr, write }, Whom::Hypervisor).is_some();
        let read = Msrs::new(OFFERED).read(msr, &vmcb.save);
        assert_eq!(matches!(read, Value(_)), insisted(false), "{msr:#x}");
        assert!(insisted(false) || read == PassOn);
        // All bits change: no MSR on the list takes that.
        let passed = written(msr, u64::MAX, 0) == PassOn;
        assert_eq!(passed, !insisted(true), "{msr:#x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn nothing_reaches_the_cpu_that_is_not_listed(
        msr in prop::sample::select(all().filter(|msr| {
            why_msr(MsrAccess { msr: *msr, write: true }, Whom::Hypervisor).is_some()
        }).collect::<Vec<_>>()),
        real in any::<u64>(),
        flips in prop::collection::vec(0_u32..64, 0..3),
        noise in prop::option::of(any::<u64>()),
        base in any::<u64>(),
    ) {
        let value = noise.unwrap_or(flips.iter().fold(real, |value, bit| value ^ 1 << bit));
        let mut cpu = Cpu(BTreeMap::from([(0x1b, base), (msr, real)]));
        let base = cpu.real(0x1b);
        let (mut msrs, mut vmcb) = (Msrs::new(OFFERED), block());
        let before = vmcb.save.efer;
        let answer = msrs.write(msr, value, &mut vmcb.save, &mut cpu);
        let harmless = match msr {
            0x1b => (value ^ real) & !0xc00 == 0,
            0x1d9 => value & !2 == 0,
            0x830 => base & 0xc00 == 0xc00 && matches!(value >> 8 & 7, 0 | 1 | 4),
            0xc001_0010 => real & !value == 1 << 19 && value & !real == 0,
            0xc001_0015 => (value ^ real) & !(1 << 18 | 1 << 25) == 0,
            _ => false,
        };
        prop_assert!(answer != PassOn || harmless, "{:#x}: {:#x} over {:#x}", msr, value, real);
        let now = vmcb.save.efer;
        prop_assert!(now & efer::SVME != 0 && (now ^ before) & efer::LMA == 0);
        prop_assert!(now & !(OFFERED.efer | efer::LMA | efer::SVME) == 0);
        prop_assert!(msr == EFER || now == before);
        prop_assert!(!matches!(answer, Value(_)));
    }
}
