//! What the hypervisor is told by CPUID: what is meant to be shown, and nothing else.

use std::collections::BTreeMap;

use frontend_bare::cpuid::{Asker, CALLS_VERSION, MONITOR, SIGNATURE, XCR0, cpuid};
use proptest::prelude::*;

type Answer = [u32; 4];

const OFF: Asker = Asker { cr4: 0, xcr0: 1 };

/// A CPU that has everything.
const fn everything(_: u32, _: u32) -> Answer {
    [u32::MAX; 4]
}

const ALL: u32 = u32::MAX;

/// Function, subfunction, and what is shown of a CPU that has everything. All others are zero.
const SHOWN: &[(u32, u32, Answer)] = &[
    (0, 0, [0xd, ALL, ALL, ALL]),
    // SSE3 to AES, XSAVE, AVX, RDRAND, and the mark; not VMX, TSC-deadline, or OSXSAVE when off.
    (1, 0, [ALL, ALL, 0xf6fa_320b, 0x178b_fbff]),
    (5, 0, [ALL; 4]),
    (6, 0, [4, 0, 1, 0]),
    (7, 0, [1, 0xf1bf_07a9, 0x1a41_5f4e, 0x0080_4510]),
    (7, 1, [0x0080_1c30, 0, 0, 0]),
    (0xb, 0, [ALL; 4]),
    (0xb, 1, [ALL; 4]),
    (0x4000_0000, 0, [ALL; 4]),
    (0x4000_0001, 0, [ALL; 4]),
    (0x8000_0000, 0, [0x8000_0026, ALL, ALL, ALL]),
    (0x8000_0001, 0, [ALL, ALL, 0x206b_2bff, 0xefd3_fbff]),
    (0x8000_0002, 0, [ALL; 4]),
    (0x8000_0003, 0, [ALL; 4]),
    (0x8000_0004, 0, [ALL; 4]),
    (0x8000_0005, 0, [ALL; 4]),
    (0x8000_0006, 0, [ALL; 4]),
    (0x8000_0007, 0, [0, 0xf, ALL, 0x1fdf]),
    (0x8000_0008, 0, [ALL, 0x7f1f_f215, ALL, 0xffff_0000]),
    // Nested paging, next RIP, clean bits, flush by ASID, decode assists, filters of PAUSE.
    (0x8000_000a, 0, [0xff, ALL - 1, 0, 0x14e9]),
    (0x8000_0019, 0, [ALL; 4]),
    (0x8000_001a, 0, [ALL; 4]),
    (0x8000_001d, 0, [ALL; 4]),
    (0x8000_001d, 1, [ALL; 4]),
    (0x8000_001e, 0, [ALL; 4]),
    (0x8000_0021, 0, [0x7804_0d67, 0, 6, 0]),
    (0x8000_0026, 0, [ALL; 4]),
];

#[test]
fn what_is_shown_of_a_cpu_that_has_everything() {
    for (function, subfunction, expected) in SHOWN {
        let answer = cpuid(*function, *subfunction, &OFF, everything);
        assert_eq!(answer, *expected, "{function:#x}.{subfunction}: {answer:x?}");
    }
}

#[test]
fn functions_that_are_not_listed_are_zero() {
    let anywhere = [0xb, 0x8000_001d, 0x8000_0026];
    let functions = (0..0x100).chain(0x4000_0100..0x4000_0200).chain(0x8000_0000..0x8000_0100);
    for function in functions.chain([0x2000_0000, 0x8fff_fffe, 0xc000_0000, u32::MAX]) {
        for subfunction in [0, 1, 2, 63, 64, u32::MAX] {
            let listed = SHOWN.iter().any(|row| row.0 == function)
                && (function != 7 || subfunction < 2)
                || anywhere.contains(&function);
            let computed = function == 0xd || (MONITOR..MONITOR + 2).contains(&function);
            let answer = cpuid(function, subfunction, &OFF, everything);
            let hidden = answer == [0; 4];
            assert!(computed || hidden != listed, "{function:#x}.{subfunction}");
        }
    }
}

#[test]
fn what_is_hidden_by_name() {
    let bit = |function, register: usize, bit: u32| {
        cpuid(function, 0, &OFF, everything)[register] & 1 << bit != 0
    };
    let (b, c, d) = (1, 2, 3);
    for (name, hidden) in [
        ("VMX", bit(1, c, 5)),
        ("MPX", bit(7, b, 14)),
        ("cache monitoring", bit(7, b, 12)),
        ("shadow stacks", bit(7, c, 7)),
        ("SGX", bit(7, c, 30)),
        ("keys of supervisors", bit(7, c, 31)),
        ("indirect branch tracking", bit(7, d, 20)),
        ("SKINIT", bit(0x8000_0001, c, 12)),
        ("IBS", bit(0x8000_0001, c, 10)),
        ("LWP", bit(0x8000_0001, c, 15)),
        ("INVLPGB", bit(0x8000_0008, b, 3)),
        ("records of branches", bit(0x8000_000a, d, 1)),
        ("SVM lock", bit(0x8000_000a, d, 2)),
        ("rate of the time-stamp counter", bit(0x8000_000a, d, 4)),
        ("AVIC", bit(0x8000_000a, d, 13)),
        ("virtual VMLOAD", bit(0x8000_000a, d, 15)),
        ("virtual GIF", bit(0x8000_000a, d, 16)),
        ("virtual NMI", bit(0x8000_000a, d, 25)),
        ("SEV", cpuid(0x8000_001f, 0, &OFF, everything) != [0; 4]),
        ("XSAVES", cpuid(0xd, 1, &OFF, everything)[0] & 1 << 3 != 0),
    ] {
        assert!(!hidden, "{name}");
    }
    for (name, shown) in [
        ("AES", bit(1, c, 25)),
        ("x2APIC", bit(1, c, 21)),
        ("five levels", bit(7, c, 16)),
        ("SVM", bit(0x8000_0001, c, 2)),
        ("no execution", bit(0x8000_0001, d, 20)),
        ("1 GiB pages", bit(0x8000_0001, d, 26)),
        ("IBPB", bit(0x8000_0008, b, 12)),
    ] {
        assert!(shown, "{name}");
    }
}

#[test]
fn what_the_monitor_provides_is_shown_on_any_cpu() {
    let poor = |_, _| [0, 16, 0, 1];
    let answer = cpuid(0x8000_000a, 0, &OFF, poor);
    assert_eq!(answer, [0, 15, 0, 0b1000_1001], "fifteen ASIDs are left");
    assert_eq!(cpuid(0x8000_000a, 0, &OFF, |_, _| [0; 4])[1], 0);
    assert_eq!(cpuid(1, 0, &OFF, |_, _| [0; 4]), [0, 0, 1 << 31, 0]);
}

#[test]
fn the_monitor_says_who_it_is() {
    let [last, words @ ..] = cpuid(MONITOR, 0, &OFF, everything);
    assert_eq!(last, 0x4000_0101);
    assert_eq!(words.map(u32::to_le_bytes).as_flattened(), SIGNATURE);
    assert_eq!(cpuid(last, 0, &OFF, everything), [CALLS_VERSION, 0, 0, 0]);
    assert_eq!(cpuid(last + 1, 0, &OFF, everything), [0; 4]);
}

#[test]
fn functions_go_as_far_as_the_cpu_has_them() {
    assert_eq!(cpuid(0, 0, &OFF, |_, _| [7, 1, 2, 3]), [7, 1, 2, 3]);
    let extended = |_, _| [0x8000_000a, 0, 0, 0];
    assert_eq!(cpuid(0x8000_0000, 0, &OFF, extended)[0], 0x8000_000a);
    assert_eq!(cpuid(7, 0, &OFF, |_, _| [0; 4])[0], 0);
}

#[test]
fn control_bits_are_the_askers_own() {
    let osxsave = |cr4, real| cpuid(1, 0, &Asker { cr4, xcr0: 1 }, real)[2] >> 27 & 1;
    let ospke = |cr4, real| cpuid(7, 0, &Asker { cr4, xcr0: 1 }, real)[2] >> 4 & 1;
    // The CPU answers about the monitor's registers, whatever they are.
    for real in [everything, |_, _| [0; 4]] {
        assert_eq!((osxsave(0, real), osxsave(1 << 18, real)), (0, 1));
        assert_eq!((ospke(0, real), ospke(1 << 22, real)), (0, 1));
    }
}

/// Parts as an EPYC has them, and some that are not shown. Sizes are those of the manual, 11.5.
fn parts(function: u32, subfunction: u32) -> Answer {
    assert_eq!(function, 0xd);
    match subfunction {
        // The sizes here are about the monitor's registers, and wrong for anybody else.
        0 => [0x6_02ff, 0xbad, 0xbad, 1 << 30],
        1 => [0x1f, 0xbad, 0x1800, 0],
        2 => [256, 576, 0, 0],
        3 => [64, 960, 0, 0],
        4 => [64, 1024, 0, 0],
        5 => [64, 832, 0, 0],
        6 => [512, 896, 2, 0],
        7 => [1024, 1408, 2, 0],
        9 => [8, 2432, 0, 0],
        11 => [16, 0, 1, 0],
        17 => [64, 2752, 2, 0],
        18 => [8192, 2816, 6, 0],
        62 => [128, 2440, 0, 0],
        _ => [0; 4],
    }
}

#[test]
fn xsave_is_as_large_as_what_is_on() {
    let sizes = |xcr0| {
        let asker = Asker { cr4: 1 << 18, xcr0 };
        let [low, now, most, high] = cpuid(0xd, 0, &asker, parts);
        assert_eq!((low, most, high), (0x2e7, 2440, 0), "MPX, tiles and LWP are not shown");
        (now, cpuid(0xd, 1, &asker, parts))
    };
    // x87 alone; with SSE; AVX; keys, which lie behind AVX-512; AVX-512.
    assert_eq!(sizes(0x1), (576, [7, 576, 0, 0]));
    assert_eq!(sizes(0x3), (576, [7, 576, 0, 0]));
    assert_eq!(sizes(0x7), (832, [7, 832, 0, 0]));
    assert_eq!(sizes(0x207), (2440, [7, 840, 0, 0]));
    // Behind 64 bytes of masks, 896 is a multiple of 64.
    assert_eq!(sizes(0xe7), (2432, [7, 2432, 0, 0]));
    // What is not shown does not count, even if it is on.
    assert_eq!(sizes(1 << 62 | 0x6_001f), (832, [7, 832, 0, 0]));
    let bumpy = |function, subfunction| match subfunction {
        2 => [8, 576, 0, 0],
        6 => [512, 896, 2, 0],
        _ => parts(function, subfunction),
    };
    let asker = Asker { cr4: 0, xcr0: 0x47 };
    assert_eq!(cpuid(0xd, 1, &asker, bumpy)[1], 640 + 512, "584 is none");
}

#[test]
fn parts_are_shown_one_by_one() {
    for (subfunction, expected) in [
        (2, [256, 576, 0, 0]),
        (3, [0; 4]),
        (4, [0; 4]),
        (6, [512, 896, 2, 0]),
        (9, [8, 2432, 0, 0]),
        (11, [0; 4]),
        (17, [0; 4]),
        (62, [0; 4]),
        (64, [0; 4]),
        (66, [0; 4]),
        (u32::MAX, [0; 4]),
    ] {
        assert_eq!(cpuid(0xd, subfunction, &OFF, parts), expected, "{subfunction}");
    }
    for subfunction in 0..64 {
        assert_eq!(cpuid(0xd, subfunction, &OFF, |_, _| [0; 4]), [0; 4], "no XSAVE");
    }
}

proptest! {
    #[test]
    fn nothing_else_shows_whatever_the_cpu_says(
        answers in prop::collection::btree_map(any::<u8>(), any::<Answer>(), 1..20),
        seed in any::<Answer>(),
        function in prop::sample::select(&[0_u32, 0x4000_0000, 0x8000_0000][..]),
        offset in 0_u32..0x30,
        subfunction in prop_oneof![0_u32..70, any::<u32>()],
        cr4 in any::<u64>(),
        xcr0 in any::<u64>(),
    ) {
        let asker = Asker { cr4, xcr0 };
        let said = |answers: &BTreeMap<u8, Answer>, at: u32| {
            answers.get(&(at as u8)).copied().unwrap_or(seed)
        };
        let ask = |function, subfunction| said(&answers, function ^ subfunction);
        let function = function + offset;
        let answer = cpuid(function, subfunction, &asker, ask);
        if function == 0xd {
            let own = u64::from(answer[3]) << 32 | u64::from(answer[0]);
            prop_assert!(subfunction != 0 || own & !XCR0 == 0);
            prop_assert!(subfunction != 1 || answer[0] & !7 == 0);
            prop_assert!(subfunction < 64 || answer == [0; 4]);
            return Ok(());
        }
        let is_it = |row: &&(u32, u32, Answer)| {
            row.0 == function && (function != 7 || row.1 == subfunction)
        };
        let row = SHOWN.iter().find(is_it);
        let mut mask = row.map_or([0; 4], |row| row.2);
        if (0x4000_0000..0x4000_0100).contains(&function) {
            mask = [ALL; 4];
        }
        match function {
            0 | 0x8000_0000 => mask[0] = ALL,
            1 => mask[2] |= 1 << 27,
            7 if subfunction == 0 => mask[2] |= 1 << 4,
            0x8000_000a => mask[1] = ALL,
            _ => (),
        }
        for (shown, mask) in answer.into_iter().zip(mask) {
            prop_assert_eq!(shown & !mask, 0, "{:#x}.{}: {:x?}", function, subfunction, answer);
        }
        // And what the CPU does not have is not made up, but for what the monitor provides.
        let real = ask(function, subfunction);
        let provided = match function {
            1 => [0, 0, 1 << 31 | 1 << 27, 0],
            7 => [0, 0, 1 << 4, 0],
            0x8000_000a => [0, ALL, 0, 0x88],
            0 | 0x8000_0000 => [ALL, 0, 0, 0],
            _ => [0; 4],
        };
        for ((shown, real), provided) in answer.into_iter().zip(real).zip(provided) {
            prop_assert_eq!(shown & !(real | provided), 0);
        }
    }
}
