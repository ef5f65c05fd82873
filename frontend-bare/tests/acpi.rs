//! The firmware's tables: what is taken from them, and that nothing is taken from what does not add
//! up, or is noise.

use frontend_bare::acpi::{AcpiError, Register, Reset, Survey, Table, survey};
use proptest::prelude::*;

/// Where the memory of these tests begins and the root pointer is.
const BASE: u64 = 0xf_0000;

/// Tables in memory, one behind the other.
#[derive(Clone)]
struct Firmware {
    bytes: Vec<u8>,
    tables: Vec<u64>,
}

/// Makes the sum of bytes zero by one of them.
fn sum_up(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    bytes[at] = sum.wrapping_neg();
}

/// A table with these bytes behind its header.
fn table(signature: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut table = vec![0; 36];
    table[..4].copy_from_slice(signature);
    table[4..8].copy_from_slice(&(36 + body.len() as u32).to_le_bytes());
    table[8] = 6;
    table[10..16].copy_from_slice(b"VENDOR");
    table.extend_from_slice(body);
    sum_up(&mut table, 9);
    table
}

impl Firmware {
    fn new() -> Self {
        Self { bytes: vec![0; 36], tables: vec![] }
    }

    fn place(&mut self, table: &[u8]) -> u64 {
        // Tables may be anywhere, also at odd addresses.
        self.bytes.push(0xaa);
        let address = BASE + self.bytes.len() as u64;
        self.bytes.extend_from_slice(table);
        address
    }

    fn with(mut self, table: &[u8]) -> Self {
        let address = self.place(table);
        self.tables.push(address);
        self
    }

    /// With an XSDT and a root of revision 2, or an RSDT and one of revision 0.
    fn done(mut self, wide: bool) -> Vec<u8> {
        let tables = self.tables.clone();
        let list: Vec<_> = if wide {
            tables.iter().flat_map(|address| address.to_le_bytes()).collect()
        } else {
            tables.iter().flat_map(|address| (*address as u32).to_le_bytes()).collect()
        };
        let list = self.place(&table(if wide { b"XSDT" } else { b"RSDT" }, &list));
        let root = &mut self.bytes[..36];
        root[..8].copy_from_slice(b"RSD PTR ");
        if wide {
            root[15] = 2;
            root[16..20].copy_from_slice(&0xdead_beef_u32.to_le_bytes());
            root[20] = 36;
            root[24..32].copy_from_slice(&list.to_le_bytes());
        } else {
            root[16..20].copy_from_slice(&(list as u32).to_le_bytes());
            root[20..36].fill(0x77);
        }
        sum_up(&mut root[..20], 8);
        if wide {
            sum_up(root, 32);
        }
        self.bytes
    }
}

fn read(bytes: &[u8]) -> impl FnMut(u64, &mut [u8]) -> bool {
    |address, to| {
        let from =
            address.checked_sub(BASE).and_then(|at| bytes.get(at as usize..)?.get(..to.len()));
        from.map(|from| to.copy_from_slice(from)).is_some()
    }
}

fn surveyed(bytes: &[u8]) -> Result<Survey, AcpiError> {
    survey(BASE, read(bytes))
}

/// CPUs by their flags, some of them in the longer form, with other things between.
fn madt(short: &[u32], long: &[u32]) -> Vec<u8> {
    let mut body = vec![0, 0, 0xe0, 0xfe, 1, 0, 0, 0];
    for (number, flags) in (0..).zip(short) {
        body.extend([0, 8, number, number]);
        body.extend(flags.to_le_bytes());
        // An override of an interrupt.
        body.extend([2, 10, 0, 0, 2, 0, 0, 0, 3, 3]);
    }
    for (number, flags) in (0x100_u32..).zip(long) {
        body.extend([9, 16, 0, 0]);
        body.extend(number.to_le_bytes());
        body.extend(flags.to_le_bytes());
        body.extend(number.to_le_bytes());
    }
    table(b"APIC", &body)
}

/// Fields of a FADT by their offsets, in a table of this length.
fn fadt(length: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut body = vec![0; length - 36];
    for (at, bytes) in fields {
        body[at - 36..at - 36 + bytes.len()].copy_from_slice(bytes);
    }
    table(b"FACP", &body)
}

/// A generic address.
fn address(space: u8, address: u64) -> [u8; 12] {
    let mut bytes = [space, 16, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes[4..].copy_from_slice(&address.to_le_bytes());
    bytes
}

/// A FADT as QEMU's q35 has it.
fn q35() -> Vec<u8> {
    fadt(
        244,
        &[
            (64, &0x604_u32.to_le_bytes()),
            (112, &0x84a5_u32.to_le_bytes()),
            (116, &address(1, 0xcf9)),
            (128, &[0xf]),
            (172, &address(1, 0x604)),
        ],
    )
}

fn cpus(madt: &[u8]) -> Result<u32, AcpiError> {
    surveyed(&Firmware::new().with(&q35()).with(madt).done(true)).map(|survey| survey.cpus)
}

#[test]
fn a_machine_as_qemu_has_it() {
    for wide in [false, true] {
        let firmware = Firmware::new().with(&table(b"SSDT", &[7; 300])).with(&q35());
        let survey = surveyed(&firmware.with(&madt(&[1], &[])).done(wide)).unwrap();
        assert_eq!(survey.cpus, 1);
        assert_eq!(survey.pm1, [Register::Port(0x604)]);
        assert_eq!(survey.sleep_control, None);
        let reset = Reset { register: Register::Port(0xcf9), value: 0xf };
        assert_eq!(survey.reset, Some(reset));
        assert!(!survey.iommu);
    }
}

#[test]
fn cpus_count_that_are_enabled_or_may_be() {
    assert_eq!(cpus(&madt(&[1, 0, 2, 3, 4], &[])), Ok(3));
    assert_eq!(cpus(&madt(&[1], &[1, 0, 2, 8])), Ok(3));
    assert_eq!(cpus(&madt(&[], &[])), Ok(0));
    assert_eq!(cpus(&madt(&[1; 200], &[1; 300])), Ok(500));
    // Two such tables are too many CPUs rather than too few.
    let firmware = Firmware::new().with(&q35()).with(&madt(&[1], &[])).with(&madt(&[1], &[]));
    assert_eq!(surveyed(&firmware.done(true)).unwrap().cpus, 2);
}

#[test]
fn all_ways_to_sleep_are_found() {
    let sleep = |length, fields: &[(usize, &[u8])]| {
        let firmware = Firmware::new().with(&fadt(length, fields)).with(&madt(&[1], &[]));
        let survey = surveyed(&firmware.done(true)).unwrap();
        let sleep = survey.pm1.iter().copied().chain(survey.sleep_control);
        (sleep.collect::<Vec<_>>(), survey.reset)
    };
    let (a, b): (&[u8], &[u8]) = (&[4, 6, 0, 0], &[8, 0xb, 0, 0]);
    let (port_a, port_b) = (Register::Port(0x604), Register::Port(0xb08));
    // One of revision 1 ends before the reset register.
    assert_eq!(sleep(116, &[(64, a), (68, b)]), (vec![port_a, port_b], None));
    // What is said twice in two ways is both.
    let (x_a, x_b) = (address(1, 0x1004), address(0, 0xfed8_0804));
    let all = [
        port_a,
        port_b,
        Register::Port(0x1004),
        Register::Memory(0xfed8_0804),
        Register::Elsewhere(2),
    ];
    let pci = address(2, 0x1234);
    let fields: &[(usize, &[u8])] = &[(64, a), (68, b), (172, &x_a), (184, &x_b), (244, &pci)];
    assert_eq!(sleep(276, fields), (all.to_vec(), None));
    // A port that is none.
    let (far, none) = (address(1, 0x1_0604), address(1, 0));
    let odd = sleep(268, &[(172, &far), (184, &none)]);
    assert_eq!(odd, (vec![Register::Elsewhere(1)], None));
    // A shorter table ends where it says, whatever is behind.
    assert_eq!(sleep(183, &[(64, a), (172, &x_a[..11])]), (vec![port_a, all[2]], None));
    // A reset register that is not supported is none.
    assert_eq!(sleep(244, &[(116, &x_a)]).1, None);
    let memory = Reset { register: Register::Memory(0xfed8_0804), value: 6 };
    let supported = sleep(244, &[(112, &[0, 4, 0, 0]), (116, &x_b), (128, &[6])]);
    assert_eq!(supported.1, Some(memory));
}

#[test]
fn units_that_translate_for_devices_are_found() {
    for signature in [b"DMAR", b"IVRS"] {
        let firmware = Firmware::new().with(&q35()).with(&madt(&[1], &[]));
        let bytes = firmware.with(&table(signature, &[0; 12])).done(true);
        assert!(surveyed(&bytes).unwrap().iommu);
    }
}

#[test]
fn what_is_missing_is_said() {
    let only = |table: &[u8]| surveyed(&Firmware::new().with(table).done(true));
    assert_eq!(only(&q35()), Err(AcpiError::Missing(Table::Madt)));
    assert_eq!(only(&madt(&[1], &[])), Err(AcpiError::Missing(Table::Fadt)));
    assert_eq!(surveyed(&[]), Err(AcpiError::Unreadable(BASE)));
    assert_eq!(survey(u64::MAX, |_, _| false), Err(AcpiError::Unreadable(u64::MAX)));
    assert_eq!(surveyed(&[0; 64]), Err(AcpiError::Signature(Table::Rsdp)));
    // A hole in the list is none of the tables.
    let mut firmware = Firmware::new().with(&q35()).with(&madt(&[1], &[]));
    firmware.tables.insert(1, 0);
    assert_eq!(surveyed(&firmware.clone().done(true)).unwrap().cpus, 1);
    firmware.tables.push(0xffff_0000);
    assert_eq!(surveyed(&firmware.done(true)), Err(AcpiError::Unreadable(0xffff_0000)));
}

#[test]
fn lists_that_are_no_lists_are_refused() {
    let mut firmware = Firmware::new().with(&q35()).with(&madt(&[1], &[]));
    firmware.tables.resize(256, 0);
    assert!(surveyed(&firmware.clone().done(true)).is_ok());
    firmware.tables.push(0);
    assert_eq!(surveyed(&firmware.done(true)), Err(AcpiError::TooMany(257)));
    let mut bytes = Firmware::new().with(&q35()).with(&madt(&[1], &[])).done(true);
    bytes[20] = 35;
    sum_up(&mut bytes[..35], 32);
    assert_eq!(surveyed(&bytes), Err(AcpiError::Length(Table::Rsdp, 35)));
    // A root that leads to something else.
    let mut bytes = Firmware::new().with(&q35()).with(&madt(&[1], &[])).done(true);
    bytes[24..32].copy_from_slice(&(BASE + 37).to_le_bytes());
    sum_up(&mut bytes[..36], 32);
    assert_eq!(surveyed(&bytes), Err(AcpiError::Signature(Table::Xsdt)));
}

#[test]
fn entries_that_lead_nowhere_are_refused() {
    let with = |entry: &[u8]| {
        let body = [&[0; 8], entry].concat();
        cpus(&table(b"APIC", &body))
    };
    assert_eq!(with(&[]), Ok(0));
    assert_eq!(with(&[0, 8, 0, 0, 1, 0, 0, 0]), Ok(1));
    assert_eq!(with(&[0, 7, 0, 0, 1, 0, 0, 0]), Err(AcpiError::Entry(44)), "shorter than a CPU");
    assert_eq!(with(&[9; 15]), Err(AcpiError::Entry(44)));
    assert_eq!(with(&[5, 1, 0, 8, 0, 0, 1, 0, 0, 0]), Err(AcpiError::Entry(44)));
    assert_eq!(with(&[5, 0]), Err(AcpiError::Entry(44)), "for ever");
    assert_eq!(with(&[5, 4, 0, 0, 6, 5, 0, 0]), Err(AcpiError::Entry(48)), "past the end");
    assert_eq!(with(&[5, 4, 0, 0, 6, 4, 0, 0]), Ok(0));
}

#[test]
fn lengths_are_bounded() {
    let long = |length: u32| {
        let mut table = table(b"APIC", &vec![0; length as usize - 36]);
        table[44..].as_chunks_mut().0.iter_mut().for_each(|entry| *entry = [5, 4, 0, 0]);
        sum_up(&mut table, 9);
        cpus(&table)
    };
    assert_eq!(long(1 << 20), Ok(0));
    assert_eq!(long((1 << 20) + 4), Err(AcpiError::Length(Table::Madt, (1 << 20) + 4)));
    let short = |length: u8| {
        let mut table = table(b"APIC", &[0; 8]);
        table[4] = length;
        sum_up(&mut table, 9);
        cpus(&table)
    };
    assert_eq!(short(44), Ok(0));
    assert_eq!(short(43), Err(AcpiError::Length(Table::Madt, 43)));
    let short = Firmware::new().with(&fadt(115, &[])).with(&madt(&[1], &[])).done(true);
    assert_eq!(surveyed(&short), Err(AcpiError::Length(Table::Fadt, 115)));
}

/// Each byte of what is taken, one bit wrong: no table is believed then.
#[test]
fn no_wrong_byte_is_believed() {
    for wide in [false, true] {
        let good = Firmware::new().with(&q35()).with(&madt(&[1], &[])).done(wide);
        assert!(surveyed(&good).is_ok());
        let list = 8 * if wide { 2 } else { 1 } + 36;
        let end = good.len();
        let fadt = 37..37 + 244;
        let madt = fadt.end + 1..end - list - 1;
        let root = 0..if wide { 36 } else { 20 };
        for at in root.chain(fadt).chain(madt).chain(end - list..end) {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(surveyed(&bad).is_err(), "{at} of {end}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn noise_is_survived(
        wide in any::<bool>(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        mended in any::<bool>(),
    ) {
        let firmware = Firmware::new().with(&q35()).with(&madt(&[1, 1], &[1]));
        let mut bytes = firmware.with(&table(b"DMAR", &[0; 20])).done(wide);
        for (at, byte) in &noise {
            *at.get_mut(&mut bytes) = *byte;
        }
        if mended {
            // Checksums that are right let more through.
            for (at, length) in [(37, 244), (37 + 245, 36 + 8 + 2 * 18 + 16)] {
                sum_up(&mut bytes[at..at + length], 9);
            }
            sum_up(&mut bytes[..20], 8);
            sum_up(&mut bytes[..36], 32);
        }
        let mut reads = 0;
        let mut from = read(&bytes);
        let _ = survey(BASE, |address, to: &mut [u8]| {
            reads += 1;
            from(address, to)
        });
        prop_assert!(reads < 1000, "{reads}");
    }

    #[test]
    fn memory_of_noise_ends(seed in any::<[u8; 16]>(), address in any::<u64>()) {
        // All memory is readable, and has the same sixteen bytes again and again.
        let noise = |address: u64, to: &mut [u8]| {
            for (at, byte) in (address..).zip(to) {
                *byte = seed[(at % 16) as usize];
            }
            true
        };
        let _ = survey(address & !0xf, noise);
        // The same behind a root that is right.
        let mut root = [0; 36];
        root[..8].copy_from_slice(b"RSD PTR ");
        root[16..20].copy_from_slice(&seed[..4]);
        sum_up(&mut root[..20], 8);
        let _ = survey(0, |address, to: &mut [u8]| match root.get(address as usize..) {
            Some(from) if from.len() >= to.len() => {
                to.copy_from_slice(&from[..to.len()]);
                true
            }
            _ => noise(address, to),
        });
    }
}
