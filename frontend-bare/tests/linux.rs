//! Linux beneath the monitor: what a kernel's file must say, where all goes, and what is there in
//! the end, byte by byte where the protocol says.

use std::ops::Range as Span;

use frontend_bare::linux::{
    Bytes, Files, Header, Machine, Memory, NoPlace, NotLinux, Part, Plan, Start, memory_map,
};
use frontend_bare::start_info::Range;
use frontend_bare::vmcb::Vmcb;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

/// A field of a kernel's header: where it is, and its bytes.
type Patch<'a> = (usize, &'a [u8]);

/// The file of a kernel of version 2.15: three sectors of setup, and what runs.
fn kernel(size: usize, patches: &[Patch<'_>]) -> Vec<u8> {
    let mut file: Vec<_> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
    let header: &[Patch<'_>] = &[
        (0x1f1, &[2]),
        (0x1f4, &(((size - 0x600) / 16) as u32).to_le_bytes()),
        (0x1fe, &[0x55, 0xaa, 0xeb, 0x6a]),
        (0x202, b"HdrS\x0f\x02"),
        (0x211, &[1]),
        (0x22c, &0x7fff_ffff_u32.to_le_bytes()),
        (0x230, &0x20_0000_u32.to_le_bytes()),
        (0x234, &[1]),
        (0x236, &[0x7f, 0]),
        (0x238, &2047_u32.to_le_bytes()),
        (0x258, &0x100_0000_u64.to_le_bytes()),
        (0x260, &0x30_0000_u32.to_le_bytes()),
    ];
    for (at, bytes) in header.iter().chain(patches) {
        file[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

fn header(patches: &[Patch<'_>]) -> Result<Header, NotLinux> {
    Header::of(&kernel(0x4000, patches))
}

#[test]
fn a_kernel_says_what_it_wants() {
    let header = header(&[]).unwrap();
    assert_eq!(header.version(), 0x20f);
    assert_eq!(header.setup_size(), 0x600);
    assert_eq!(header.preferred(), 16 * MIB);
    assert_eq!(header.alignment(), 2 * MIB);
    assert_eq!(header.init_size(), 3 * MIB);
    assert_eq!(header.initrd_end_max(), 0x8000_0000);
    assert_eq!(header.command_line_max(), 2047);
    assert!(header.is_relocatable());
}

#[test]
fn what_is_no_kernel_is_refused() {
    let refused = |patch: Patch<'_>| header(&[patch]).unwrap_err();
    assert_eq!(refused((0x1fe, &[0])), NotLinux::Magic);
    assert_eq!(refused((0x202, b"HdrT")), NotLinux::Magic);
    assert_eq!(refused((0x206, &[0x0b, 2])), NotLinux::Version(0x20b));
    assert_eq!(refused((0x211, &[0])), NotLinux::Low);
    assert_eq!(refused((0x236, &[0x7e, 0])), NotLinux::Not64Bit);
    assert_eq!(refused((0x230, &[0; 4])), NotLinux::Alignment(0));
    assert_eq!(refused((0x230, &[3, 0, 0, 0])), NotLinux::Alignment(3));
    assert_eq!(refused((0x201, &[0x65])), NotLinux::HeaderEnd(0x65), "before INIT_SIZE's end");
    assert_eq!(refused((0x201, &[0x8f])), NotLinux::HeaderEnd(0x8f), "over the disks");
    assert!(header(&[(0x201, &[0x66])]).is_ok() && header(&[(0x201, &[0x8e])]).is_ok());
    assert!(header(&[(0x206, &[0x0c, 2])]).is_ok());
    let file = kernel(0x4000, &[]);
    assert_eq!(Header::of(&file[..Header::FILE_BYTES - 1]).unwrap_err(), NotLinux::Short);
    assert!(Header::of(&file[..Header::FILE_BYTES]).is_ok());
    // Zero sectors are four.
    assert_eq!(header(&[(0x1f1, &[0])]).unwrap().setup_size(), 5 * 512);
}

/// Memory of bytes from address 0 on.
struct Ram(Vec<u8>);

impl Ram {
    fn at(&self, address: u64, size: u64) -> &[u8] {
        let address = usize::try_from(address).unwrap();
        &self.0[address..address + usize::try_from(size).unwrap()]
    }

    fn word(&self, address: u64) -> u64 {
        u64::from_le_bytes(self.at(address, 8).try_into().unwrap())
    }

    fn half(&self, address: u64) -> u64 {
        self.word(address) & 0xffff_ffff
    }
}

impl Memory for Ram {
    fn copy(&mut self, from: Bytes, to: u64) {
        let bytes = self.at(from.address, from.size).to_vec();
        self.write(to, &bytes);
    }
    fn write(&mut self, to: u64, bytes: &[u8]) {
        let to = usize::try_from(to).unwrap();
        self.0[to..to + bytes.len()].copy_from_slice(bytes);
    }
}

/// What firmware says of a machine with 32 MiB.
fn ranges() -> Vec<Range> {
    vec![
        Range::new(0, 0x9_fc00, 1),
        Range::new(0x9_fc00, 0x400, 2),
        Range::new(0xf_0000, 0x1_0000, 2),
        Range::new(MIB, 31 * MIB - 0x2_0000, 1),
        Range::new(32 * MIB - 0x2_0000, 0x2_0000, 3),
        Range::new(0xfffc_0000, 0x4_0000, 2),
    ]
}

const COMMAND_LINE: &[u8] = b"console=ttyS0 panic=-1";
const RSDP: u64 = 0xf_5a40;

/// The machine's memory with all three files in it, and what was done with them.
fn started(initrd_at: u64) -> (Ram, Plan, Start) {
    let mut ram = Ram(vec![0xcc; 32 << 20]);
    let file = kernel(0x4_0000, &[]);
    let initrd: Vec<_> = (0..0x2_3456_u32).map(|at| (at * 13 + 5) as u8).collect();
    // The kernel's file lies where the kernel would like to be.
    ram.write(16 * MIB + 0x800, &file);
    ram.write(initrd_at, &initrd);
    ram.write(0x50_0003, COMMAND_LINE);
    let bytes = |address, bytes: &[u8]| Bytes { address, size: bytes.len() as u64 };
    let files = Files {
        kernel: bytes(16 * MIB + 0x800, &file),
        initrd: Some(bytes(initrd_at, &initrd)),
        command_line: bytes(0x50_0003, COMMAND_LINE),
    };
    let (ranges, header) = (ranges(), Header::of(&file).unwrap());
    let machine = Machine { ranges: &ranges, monitor: 0x200..0x480 };
    let plan = Plan::of(&header, &files, &machine).unwrap();
    let start = plan.carry_out(&header, &machine, RSDP, &mut ram).unwrap();
    assert_eq!(ram.at(plan.kernel.address, 0x3_fa00), &file[0x600..]);
    let place = plan.initrd.unwrap();
    assert_eq!((place.size, ram.at(place.address, 0x2_3456)), (0x2_3456, &initrd[..]));
    assert!(ram.at(0x20_0000, 0x28_0000).iter().all(|byte| *byte == 0xcc), "the monitor's");
    (ram, plan, start)
}

#[test]
fn all_is_where_it_should_be() {
    let (ram, plan, start) = started(0x60_0800);
    // The next multiple of its alignment, for its file lies at the first.
    assert_eq!(plan.kernel.address, 18 * MIB);
    // As high as there is memory.
    assert_eq!(plan.initrd.unwrap().address, 32 * MIB - 0x2_0000 - 0x2_4000);
    let end = plan.command_line + COMMAND_LINE.len() as u64;
    assert_eq!(ram.at(plan.command_line, 22), COMMAND_LINE);
    assert_eq!(ram.at(end, 2), [0, 0xcc], "a zero behind it");
    assert_eq!(ram.at(start.descriptors, 16), [0; 16]);
    assert_eq!(ram.word(start.descriptors + 0x10), 0x00af_9b00_0000_ffff);
    assert_eq!(ram.word(start.descriptors + 0x18), 0x00cf_9300_0000_ffff);
}

#[test]
fn an_initrd_stays_where_it_is_if_it_can() {
    let (_, plan, _) = started(0x60_0000);
    assert_eq!(plan.initrd.unwrap().address, 0x60_0000);
}

#[test]
fn the_zero_page_is_as_the_protocol_has_it() {
    let (ram, plan, start) = started(0x60_0000);
    let page = start.rsi;
    assert_eq!(page, plan.zero_page);
    // Offsets are those of zero-page.rst and of the protocol's table of the header.
    assert_eq!(ram.word(page + 0x70), RSDP);
    assert_eq!(ram.at(page + 0x1e8, 1), [8]);
    assert_eq!(ram.at(page + 0x1ef, 1), [0], "the sentinel");
    assert_eq!(ram.at(page + 0x1f1, 1), [2]);
    assert_eq!(ram.at(page + 0x202, 6), b"HdrS\x0f\x02");
    assert_eq!(ram.at(page + 0x210, 2), [0xff, 1]);
    assert_eq!(ram.half(page + 0x218), 0x60_0000);
    assert_eq!(ram.half(page + 0x21c), 0x2_3456);
    assert_eq!(ram.at(page + 0x226, 2), [0, 0], "no longer number of the loader");
    assert_eq!(ram.half(page + 0x228), plan.command_line);
    assert_eq!(ram.word(page + 0x250), 0, "no list of more");
    assert_eq!(ram.word(page + 0x258), 16 * MIB);
    // The header ends at 202h + 6Ah, and what follows in the file is not the header's.
    assert_eq!(ram.at(page + 0x26c, 0x64), [0; 0x64]);
    assert_eq!(ram.at(page, 0x70), [0; 0x70]);
    assert_eq!(ram.at(page + 0x78, 0x170), [0; 0x170]);
    let entry = |at| (ram.word(at), ram.word(at + 8), ram.half(at + 16));
    let map: Vec<_> = (0..8).map(|index| entry(page + 0x2d0 + 20 * index)).collect();
    let expected = [
        (0, 0x9_fc00, 1),
        (0x9_fc00, 0x400, 2),
        (0xf_0000, 0x1_0000, 2),
        (MIB, MIB, 1),
        (2 * MIB, 0x28_0000, 2),
        (0x48_0000, 0x1b6_0000, 1),
        (0x1fe_0000, 0x2_0000, 3),
        (0xfffc_0000, 0x4_0000, 2),
    ];
    assert_eq!(map, expected);
    assert_eq!(ram.at(page + 0x2d0 + 160, 0xd30 - 160), vec![0; 0xd30 - 160]);
}

#[test]
fn the_page_tables_map_4_gib_to_themselves() {
    let (ram, _, start) = started(0x60_0000);
    let walk = |address: u64| {
        let mut table = start.cr3;
        for shift in [39, 30] {
            let entry = ram.word(table + (address >> shift & 511) * 8);
            if entry == 0 {
                return None;
            }
            assert_eq!(entry & 0xfff, 3, "there, writable, a table");
            table = entry & !0xfff;
        }
        let leaf = ram.word(table + (address >> 21 & 511) * 8);
        assert_eq!(leaf & 0x1f_ffff, 0x83, "there, writable, of 2 MiB");
        Some((leaf & !0x1f_ffff) + (address & 0x1f_ffff))
    };
    for page in 0..2048 {
        assert_eq!(walk(page << 21 | 0x12345), Some(page << 21 | 0x12345));
    }
    for beyond in [4 << 30, 511 << 30, 1 << 39, 511 << 39] {
        assert_eq!(walk(beyond), None);
    }
}

#[test]
fn the_cpu_begins_in_64_bit_mode() {
    let (_, plan, start) = started(0x60_0000);
    let mut vmcb = Vmcb::zeroed();
    start.fill(&mut vmcb.save);
    let save = &vmcb.save;
    assert_eq!(save.rip, plan.kernel.address + 0x200);
    assert_eq!((save.cr0, save.cr3, save.cr4), (0x8000_0011, plan.tables, 0x20));
    assert_eq!(save.efer, 0x1500, "SVME, LMA, LME; without SVME no VMRUN");
    assert_eq!((save.cs.selector, save.cs.attributes, save.cs.limit), (0x10, 0xa9b, u32::MAX));
    for data in [save.ds, save.es, save.ss] {
        assert_eq!((data.selector, data.attributes, data.limit), (0x18, 0xc93, u32::MAX));
    }
    assert_eq!((save.gdtr.base, save.gdtr.limit), (plan.descriptors, 31));
    assert_eq!((save.rflags, save.cpl), (2, 0), "interrupts off");
    assert_eq!(save.rsp, plan.descriptors + 0x1000);
    assert_eq!(save.g_pat, 0x0007_0406_0007_0406);
    assert_eq!((save.dr6, save.dr7), (0xffff_0ff0, 0x400));
}

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
    // Its last page reaches where the command line is.
    assert_ne!(with(21 * MIB - 0x1800, &[]), 21 * MIB - 0x1800);
    // The kernel takes none there.
    let limit = (0x5f_ffff_u32).to_le_bytes();
    let low = with(0x60_0000, &[(0x22c, &limit)]);
    assert!(low + 0x1800 <= 0x60_0000);
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
