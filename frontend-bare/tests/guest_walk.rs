//! Walks through a guest's tables: what is mapped is found, what the CPU would not take is not, and
//! no table makes a walk long or leads it out.

#[path = "stopped/guest.rs"]
mod guest;

use frontend_bare::guest_walk::GuestMemory;
use frontend_bare::vmcb::{cr0, efer};
use guest::{ADDRESS_BITS, Guest, LARGE, PRESENT, canonical};
use proptest::prelude::*;

const NO_EXECUTE: u64 = 1 << 63;

impl Guest {
    fn physical(&self, linear: u64) -> Option<u64> {
        self.memory().physical(&self.save, linear)
    }

    fn fetch(&self) -> Vec<u8> {
        self.memory().fetch(&self.save).bytes().to_vec()
    }
}

proptest! {
    #[test]
    fn what_is_mapped_is_found(
        levels in 4..=5_u32,
        pages in prop::collection::vec((any::<u64>(), 0..1_u64 << ADDRESS_BITS, 0..3_u32), 1..20),
        offset in any::<u64>(),
    ) {
        let mut guest = Guest::new(levels);
        let mut mapped = vec![];
        for (linear, physical, leaf) in pages {
            let size = 1_u64 << (12 + 9 * leaf);
            let linear = canonical(linear, levels) & !(size - 1);
            let physical = physical & !(size - 1);
            let overlaps = |&(other, _, others): &(u64, u64, u64)| {
                let wide = !(size.max(others) - 1);
                linear & wide == other & wide
            };
            if !mapped.iter().any(overlaps) {
                guest.map(linear, physical, leaf, PRESENT);
                mapped.push((linear, physical, size));
            }
        }
        for (linear, physical, size) in mapped {
            let offset = offset & (size - 1);
            prop_assert_eq!(guest.physical(linear + offset), Some(physical + offset));
        }
    }

    #[test]
    fn hostile_memory_makes_no_walk_long(
        levels in 4..=5_u32,
        linear in any::<u64>(),
        rip in any::<u64>(),
        seed in any::<u64>(),
        holes in 0..4_u64,
    ) {
        let mut guest = Guest::new(levels);
        guest.save.rip = canonical(rip, levels);
        let mut reads = vec![];
        let read = |at: u64| {
            reads.push(at);
            let word = (at ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            // Mostly an entry that the CPU takes, on to anywhere.
            (word % 8 >= holes).then_some(word & ((1 << ADDRESS_BITS) - 1) & !LARGE | PRESENT)
        };
        let mut memory = GuestMemory { address_bits: ADDRESS_BITS, read };
        let found = memory.physical(&guest.save, linear);
        let fetched = memory.fetch(&guest.save);
        prop_assert!(found.is_none_or(|physical| physical >> ADDRESS_BITS == 0));
        prop_assert!(fetched.bytes().len() <= 15);
        prop_assert!(reads.len() <= levels as usize * 3 + 3, "{} reads", reads.len());
        prop_assert!(reads.iter().all(|at| at % 8 == 0 && at >> ADDRESS_BITS == 0));
    }
}

#[test]
fn entries_that_the_cpu_does_not_take_lead_nowhere() {
    let linear = 0x7fff_1234_5678;
    for levels in [4, 5] {
        for (leaf, bits, taken) in [
            (0, PRESENT, true),
            (0, 0, false),
            (0, PRESENT | LARGE, true), // of a small page, a kind of memory
            (0, PRESENT | NO_EXECUTE, true),
            (0, PRESENT | 1 << ADDRESS_BITS, false),
            (0, PRESENT | 1 << 51, false),
            (0, PRESENT | 0x7ff << 52, true), // for software, and keys
            (1, PRESENT, true),
            (1, PRESENT | 1 << 12, true), // of a large page, a kind of memory
            (1, PRESENT | 1 << 13, false),
            (1, PRESENT | 1 << 20, false),
            (2, PRESENT, true),
            (2, PRESENT | 1 << 29, false),
            (3, PRESENT, false), // there are no pages as large as that
            (4, PRESENT, false),
        ] {
            if leaf < levels {
                let mut guest = Guest::new(levels);
                guest.map(linear, 0, leaf, bits);
                let found = guest.physical(linear).is_some();
                assert_eq!(found, taken, "level {leaf} of {levels}, bits {bits:x}");
            }
        }
        let mut guest = Guest::new(levels);
        let at = guest.map(linear, 0x7000, 0, PRESENT | NO_EXECUTE);
        guest.save.efer &= !efer::NXE;
        assert_eq!(guest.physical(linear), None, "a reserved bit");
        guest.words.insert(at, 0x7000 | PRESENT);
        assert_eq!(guest.physical(linear), Some(0x7678));
        assert_eq!(guest.physical(linear | 1 << 63), None, "not canonical");
        let above = 1 << (12 + 9 * levels - 1);
        assert_eq!(guest.physical(linear | above), None, "not canonical");
        assert!(Guest::new(levels).physical(linear).is_none(), "nothing is mapped");
    }
}

#[test]
fn without_paging_addresses_are_physical_and_other_tables_are_refused() {
    let mut guest = Guest::new(4);
    guest.save.cr0 = cr0::PE;
    guest.save.efer = efer::SVME;
    assert_eq!(guest.physical(0xdead_beef), Some(0xdead_beef));
    assert_eq!(guest.physical(0x1_dead_beef), Some(0xdead_beef));
    let mut guest = Guest::new(4);
    guest.map(0xdead_b000, 0x7000, 0, PRESENT);
    assert_eq!(guest.physical(0xdead_beef), Some(0x7eef));
    guest.save.efer &= !efer::LMA;
    assert_eq!(guest.physical(0xdead_beef), None, "tables of another kind");
}

#[test]
fn code_is_fetched_across_pages_and_as_far_as_it_goes() {
    let mut guest = Guest::new(4);
    guest.map(0xffff_ffff_8100_0000, 0x9_0000, 0, PRESENT);
    guest.map(0xffff_ffff_8100_1000, 0x7_0000, 0, PRESENT);
    guest.put(0x9_0ff0, 1..=16);
    guest.put(0x7_0000, 17..=32);
    for offset in 0xff0..=0xfff {
        guest.save.rip = 0xffff_ffff_8100_0000 + offset;
        let expected: Vec<u8> = (1..).skip(offset as usize - 0xff0).take(15).collect();
        assert_eq!(guest.fetch(), expected, "{offset:x}");
    }
    guest.save.rip = 0xffff_ffff_8100_1ff8;
    assert_eq!(guest.fetch(), [0; 0], "no memory");
    guest.put(0x7_0ff8, [9; 8]);
    assert_eq!(guest.fetch(), [9; 8], "the next page is not mapped");
    guest.save.rip = 0xffff_ffff_8200_0000;
    assert_eq!(guest.fetch(), [0; 0], "nor is this one");
}

#[test]
fn code_of_32_bits_begins_at_its_segment() {
    let mut guest = Guest::new(4);
    guest.save.cr0 = cr0::PE;
    guest.save.efer = efer::SVME;
    guest.save.cs.attributes = 0xc9b;
    guest.save.rip = 0x123;
    guest.put(0x5123, 1..=15);
    assert_eq!(guest.fetch(), (1..=15).collect::<Vec<u8>>());
    guest.save.cs.base = 0xffff_f000;
    guest.save.rip = 0x6123;
    assert_eq!(guest.fetch(), (1..=15).collect::<Vec<u8>>(), "addresses have 32 bits");
    let mut compatible = Guest::new(4);
    compatible.save.cs = guest.save.cs;
    (compatible.save.cs.base, compatible.save.rip) = (0xffff_f000, 0x6123);
    compatible.map(0x5000, 0x5000, 0, PRESENT);
    compatible.put(0x5123, 1..=15);
    assert_eq!(compatible.fetch(), (1..=15).collect::<Vec<u8>>(), "also in long mode");
}
