//! Where all goes, and the memory map.

use std::ops::Range as Span;

use frontend_bare::linux::{Bytes, Files, Header, Machine, NoPlace, Part, Plan, memory_map};
use frontend_bare::start_info::Range;
use proptest::prelude::*;

use super::{MIB, Patch, header, kernel, ranges};

/// A plan for a kernel's file at 20 MiB and a command line behind it.
fn planned(patches: &[Patch<'_>], change: impl Fn(&mut Files)) -> Result<Plan, NoPlace> {
    let ranges = ranges();
    let kernel = Bytes { address: 20 * MIB, size: 0x4000 };
    let command_line = Bytes { address: 21 * MIB, size: 22 };
    let mut files = Files { kernel, initrd: None, command_line };
    change(&mut files);
    let machine = Machine { ranges: &ranges, monitor: 0x200..0x480 };
    Plan::of(&header(patches).unwrap(), &files, &machine)
}

#[test]
fn what_cannot_be_placed_is_refused() {
    let no_room = |part, size| Err(NoPlace::NoRoom { part, size });
    assert_eq!(planned(&[], |_| ()).unwrap().kernel.address, 16 * MIB);
    // 13 MiB at an address of 2 MiB's multiple: not above, but there is room below.
    let big = (13 * MIB as u32).to_le_bytes();
    let moved = planned(&[(0x260, &big)], |_| ()).unwrap();
    assert_eq!(moved.kernel.address, 6 * MIB, "above the monitor");
    let fixed = planned(&[(0x260, &big), (0x234, &[0])], |_| ());
    assert_eq!(fixed, no_room(Part::Kernel, 13 * MIB));
    let unaligned = 0x100_1000_u64.to_le_bytes();
    let fixed = planned(&[(0x258, &unaligned), (0x234, &[0])], |_| ());
    assert_eq!(fixed.unwrap().kernel.address, 0x100_1000, "it wants to be just there");
    let huge = planned(&[(0x260, &(30 * MIB as u32).to_le_bytes())], |_| ());
    assert_eq!(huge, no_room(Part::Kernel, 30 * MIB));
    let nowhere = planned(&[(0x258, &u64::MAX.to_le_bytes())], |_| ());
    assert_eq!(nowhere.unwrap().kernel.address, 6 * MIB);
    let huge = 29 * MIB;
    let initrd = planned(&[], |files| files.initrd = Some(Bytes { address: 64 * MIB, size: huge }));
    assert_eq!(initrd, no_room(Part::Initrd, huge));
    let long = planned(&[], |files| files.command_line.size = 2048);
    assert_eq!(long, Err(NoPlace::CommandLine { has: 2048, max: 2047 }));
    assert!(planned(&[], |files| files.command_line.size = 2047).is_ok());
    assert!(planned(&[], |files| files.kernel.size = 0x4000 - 15).is_ok(), "not padded");
    let short = planned(&[], |files| files.kernel.size = 0x4000 - 16);
    assert_eq!(short, Err(NoPlace::Truncated));
    assert_eq!(planned(&[], |files| files.kernel.size = 0x600), Err(NoPlace::Truncated));
}

#[test]
fn files_in_the_monitor_or_past_all_addresses_are_refused() {
    for address in [0x20_0000, 0x47_ffff, 0x20_0000 - 21, u64::MAX] {
        let line = planned(&[], |files| files.command_line.address = address);
        assert_eq!(line, Err(NoPlace::Source(Part::CommandLine)), "{address:#x}");
        let kernel = planned(&[], |files| files.kernel.address = address);
        assert_eq!(kernel, Err(NoPlace::Source(Part::Kernel)), "{address:#x}");
        let file = Bytes { address, size: 22 };
        let initrd = planned(&[], |files| files.initrd = Some(file));
        assert_eq!(initrd, Err(NoPlace::Source(Part::Initrd)), "{address:#x}");
    }
    assert!(planned(&[], |files| files.command_line.address = 0x20_0000 - 22).is_ok());
    assert!(planned(&[], |files| files.command_line.address = 0x48_0000).is_ok());
}

#[test]
fn an_initrd_stays_only_where_it_may() {
    let with = |address, patches: &[Patch<'_>]| {
        let file = Bytes { address, size: 0x1800 };
        planned(patches, |files| files.initrd = Some(file)).unwrap().initrd.unwrap().address
    };
    assert_eq!(with(0x60_0000, &[]), 0x60_0000);
    assert_ne!(with(0x60_0001, &[]), 0x60_0001, "not at a page's beginning");
    assert_ne!(with(0xf_0000, &[]), 0xf_0000, "not memory");
    // The command line is in its last page, behind it, or in the next one.
    let file = Bytes { address: 20 * MIB + 0x5000, size: 0x1800 };
    for (line, stays) in [(0x6fff, false), (0x6800, false), (0x7000, true)] {
        let change = |files: &mut Files| {
            files.initrd = Some(file);
            files.command_line.address = 20 * MIB + line;
        };
        assert_eq!(planned(&[], change).unwrap().initrd == Some(file), stays, "{line:#x}");
    }
    // The kernel takes none there.
    let limit = (0x5f_ffff_u32).to_le_bytes();
    let low = with(0x60_0000, &[(0x22c, &limit)]);
    assert!(low + 0x1800 <= 0x60_0000);
}

#[test]
fn room_that_is_just_enough_is_enough() {
    let header = header(&[]).unwrap();
    let ranges = |first, kernel, initrd| {
        [
            Range::new(0x1_0000, first, 1),
            Range::new(16 * MIB, kernel, 1),
            Range::new(32 * MIB, initrd, 1),
        ]
    };
    let files = Files {
        kernel: Bytes { address: 64 * MIB, size: 0x4000 },
        initrd: Some(Bytes { address: 65 * MIB, size: 0x4_2000 }),
        command_line: Bytes { address: 66 * MIB, size: 22 },
    };
    let plan = |ranges: &[Range]| Plan::of(&header, &files, &Machine { ranges, monitor: 0..0 });
    let enough = plan(&ranges(0x9000, 3 * MIB, 0x4_2000)).unwrap();
    assert_eq!((enough.tables, enough.kernel.address), (0x1_0000, 16 * MIB));
    assert_eq!(enough.initrd.unwrap().address, 32 * MIB);
    assert!(plan(&ranges(0x8fff, 3 * MIB, 0x4_2000)).is_err());
    assert!(plan(&ranges(0x9000, 3 * MIB - 1, 0x4_2000)).is_err());
    assert!(plan(&ranges(0x9000, 3 * MIB, 0x4_1fff)).is_err());
}

#[test]
fn no_initrd_is_none() {
    for initrd in [None, Some(Bytes { address: 0x20_0000, size: 0 })] {
        let plan = planned(&[], |files| files.initrd = initrd).unwrap();
        assert_eq!(plan.initrd, None);
    }
}

fn spans() -> impl Strategy<Value = Vec<Range>> {
    // Ends of ranges also in the middle of pages, and ranges over others.
    let range = (0_u64..0x400, 0_u64..0x180, 0_u64..3, 1_u32..5);
    let range = range.prop_map(|(page, pages, odd, kind)| {
        Range::new(page * 0x1000 + odd * 0x155, pages * 0x1000 + odd * 0x321, kind.max(2) - 1)
    });
    prop::collection::vec(range, 1..12)
}

fn bytes(size: u64) -> impl Strategy<Value = Bytes> {
    let address = (0_u64..0x400, prop_oneof![Just(0_u64), 0_u64..0x1000]);
    (address, 1..size).prop_map(|((page, odd), size)| Bytes { address: page * 4096 + odd, size })
}

const fn disjoint(one: &Span<u64>, other: &Span<u64>) -> bool {
    one.end <= other.start || other.end <= one.start
}

/// Whether these addresses are in one range of memory and nowhere else.
fn free(ranges: &[Range], span: &Span<u64>) -> bool {
    let of = |range: &Range| range.address..range.address + range.size;
    let within = |range: &Range| of(range).start <= span.start && span.end <= of(range).end;
    ranges.iter().any(|range| range.kind == 1 && within(range))
        && ranges.iter().all(|range| range.kind == 1 || disjoint(&of(range), span))
}

fn span(bytes: Bytes) -> Span<u64> {
    bytes.address..bytes.address + bytes.size
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn nothing_overlaps_and_room_that_is_there_is_found(
        ranges in spans(),
        monitor in (0_u64..0x400, 0_u64..0x100),
        initrd in bytes(0x4_0000),
        code in bytes(0x1_0000),
        line in bytes(0x3000),
        pages in 1_u32..0x80,
    ) {
        let monitor = monitor.0..monitor.0 + monitor.1;
        let wanted = (pages * 4096).to_le_bytes();
        let page: Patch<'_> = (0x230, &[0, 0x10, 0, 0]);
        let header = header(&[(0x260, &wanted), page, (0x1f4, &[0; 4]), (0x238, &[0, 0x40])]);
        let kernel = Bytes { size: code.size + 0x600, ..code };
        let files = Files { kernel, initrd: Some(initrd), command_line: line };
        let machine = Machine { ranges: &ranges, monitor: monitor.clone() };
        let sources = [span(kernel), span(initrd), span(line)];
        let monitor = monitor.start * 4096..monitor.end * 4096;
        match Plan::of(&header.unwrap(), &files, &machine) {
            Ok(plan) => {
                let size = (u64::from(pages) * 4096).max(code.size);
                let kernel = plan.kernel.address..plan.kernel.address + size;
                let first = plan.tables..plan.command_line + line.size + 1;
                let place = span(plan.initrd.unwrap());
                let stays = place == span(initrd);
                prop_assert_eq!(plan.descriptors, plan.tables + 0x6000);
                prop_assert_eq!(plan.zero_page, plan.descriptors + 0x1000);
                prop_assert_eq!(plan.command_line, plan.zero_page + 0x1000);
                prop_assert!(kernel.start >= MIB && kernel.start.is_multiple_of(4096));
                prop_assert!(first.start >= 0x1_0000 && first.start.is_multiple_of(4096));
                prop_assert!(place.start.is_multiple_of(4096));
                for (index, one) in [&kernel, &first, &place].into_iter().enumerate() {
                    prop_assert!(free(&ranges, one) && disjoint(one, &monitor));
                    let copied = index < 2 || !stays;
                    let sources = sources.iter().filter(|_| copied);
                    prop_assert!(sources.clone().all(|source| disjoint(one, source)));
                }
                prop_assert!(disjoint(&kernel, &first) && disjoint(&kernel, &place));
                prop_assert!(disjoint(&first, &place));
            }
            Err(NoPlace::Source(_)) => {
                prop_assert!(sources.iter().any(|source| !disjoint(source, &monitor)));
            }
            Err(NoPlace::NoRoom { part: Part::Kernel, size }) => {
                // Nor is there any, at any page.
                for at in (MIB..8 * MIB).step_by(4096) {
                    let place = at..at + size;
                    let taken = sources.iter().chain([&monitor]).any(|one| !disjoint(&place, one));
                    prop_assert!(taken || !free(&ranges, &place), "{at:#x}");
                }
            }
            Err(refused) => prop_assert!(matches!(refused, NoPlace::NoRoom { .. }), "{refused:?}"),
        }
    }

    #[test]
    fn hostile_numbers_do_no_harm(
        noise in prop::collection::vec(any::<(u64, u64, u32)>(), 0..140),
        edges in prop::collection::vec(prop::sample::select(&[0, 1, 4096, u64::MAX][..]), 8),
        monitor in any::<(u64, u64)>(),
        file in prop::collection::vec(any::<u8>(), Header::FILE_BYTES),
    ) {
        let noise = noise.iter().map(|one| Range::new(one.0, one.1, one.2 % 3));
        let mut ranges: Vec<_> = noise.collect();
        ranges.extend(edges.chunks(2).map(|one| Range::new(one[0], one[1], 1)));
        let mut bytes = kernel(0x4000, &[]);
        bytes[0x22c..Header::FILE_BYTES].copy_from_slice(&file[0x22c..]);
        bytes[0x1f1..0x1f8].copy_from_slice(&file[0x1f1..0x1f8]);
        bytes[0x230..0x234].copy_from_slice(&(1_u32 << (file[0] % 32)).to_le_bytes());
        bytes[0x236] |= 1;
        let _ = Header::of(&file);
        let header = Header::of(&bytes).unwrap();
        let at = |index| Bytes { address: edges[index], size: edges[index + 1] };
        let files = Files { kernel: at(0), initrd: Some(at(2)), command_line: at(4) };
        let machine = Machine { ranges: &ranges, monitor: monitor.0..monitor.1 };
        let _ = Plan::of(&header, &files, &machine);
        let many = memory_map(&ranges, &machine.monitor);
        prop_assert!(many.is_ok() || ranges.len() > 40);
    }

    #[test]
    fn the_map_is_the_machines_without_the_monitor(
        ranges in spans(),
        first in 0_u64..0x400,
        frames in 0_u64..0x100,
        address in 0_u64..0x60_0000,
    ) {
        let monitor = first..first + frames;
        let map = memory_map(&ranges, &monitor).unwrap();
        let owned = (monitor.start * 4096..monitor.end * 4096).contains(&address);
        let is_in = |start: u64, size: u64| (start..start + size).contains(&address);
        let theirs = ranges.iter().filter(|range| is_in(range.address, range.size));
        let expected = theirs.map(|range| if range.kind == 1 && owned { 2 } else { range.kind });
        let told = map.iter().filter(|one| is_in(one.address.get(), one.size.get()));
        let told: Vec<_> = told.map(|one| one.kind.get()).collect();
        prop_assert_eq!(told, expected.collect::<Vec<_>>());
    }
}

#[test]
fn a_map_that_does_not_fit_is_refused() {
    let many = |count: u64| (0..count).map(|at| Range::new(at << 20, 4096, 1)).collect::<Vec<_>>();
    assert_eq!(memory_map(&many(128), &(0..0)).unwrap().len(), 128);
    assert!(memory_map(&many(129), &(0..0)).is_err());
    // One more entry, for the monitor is at the end of a range.
    let mut ranges = many(128);
    ranges[5] = Range::new(5 << 20, 0x3000, 1);
    assert!(memory_map(&ranges, &(0x502..0x503)).is_err());
    assert!(memory_map(&ranges, &(0x500..0x503)).is_ok());
}
