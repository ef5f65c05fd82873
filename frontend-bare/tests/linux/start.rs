//! What is in memory, and in the CPU, when Linux begins.

use frontend_bare::linux::{Bytes, Files, Header, Machine, Memory, Plan, Start};
use frontend_bare::vmcb::Vmcb;

use super::{MIB, kernel, ranges};

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
