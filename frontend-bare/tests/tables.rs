//! Nested tables against a plain map, and what they do when frames run out.

use std::collections::BTreeMap;

use frontend_bare::memory::{ENTRIES, HostMemory};
use frontend_bare::pool::{Pool, PoolEmpty};
use frontend_bare::table::{Levels, MapError, NestedTable};
use proptest::prelude::*;
use view_core::{Frame, Gfn, Page, Perm};

/// Tables alone, by their frames.
#[derive(Default)]
struct Memory(BTreeMap<Frame, Vec<u64>>);

impl HostMemory for Memory {
    fn entry(&self, table: Frame, index: usize) -> u64 {
        self.0.get(&table).map_or(0, |entries| entries[index])
    }

    fn set_entry(&mut self, table: Frame, index: usize, entry: u64) {
        self.0.entry(table).or_insert_with(|| vec![0; ENTRIES])[index] = entry;
    }

    fn read(&self, _: Frame, _: &mut Page) {
        unreachable!("tables are read by entries")
    }

    fn write(&mut self, _: Frame, _: &Page) {
        unreachable!("tables are written by entries")
    }

    fn wipe(&mut self, frame: Frame) {
        self.0.insert(frame, vec![0; ENTRIES]);
    }
}

fn frame(number: u64) -> Frame {
    Frame::new(number).unwrap()
}

fn gfn(number: u64) -> Gfn {
    Gfn::new(number).unwrap()
}

/// Tables of so many frames; the pool's are full of what looks like entries.
fn tables<const N: usize>(levels: Levels) -> (Memory, Pool<N>, NestedTable) {
    let mut memory = Memory::default();
    let frames = (0..N as u64).map(|number| frame(0x1000 + number));
    for frame in frames.clone() {
        (0..ENTRIES).for_each(|index| memory.set_entry(frame, index, u64::MAX));
    }
    let mut pool = Pool::new(frames);
    let table = NestedTable::new(&mut memory, &mut pool, levels).unwrap();
    (memory, pool, table)
}

const RW: Perm = Perm::ReadWrite;

#[test]
fn a_page_is_where_it_was_mapped_and_nowhere_else() {
    for levels in [Levels::Four, Levels::Five] {
        let (mut memory, mut pool, mut table) = tables::<8>(levels);
        table.map(&mut memory, &mut pool, (gfn(0x12345), frame(7), Perm::Read)).unwrap();
        assert_eq!(table.find(&memory, gfn(0x12345)), Some((frame(7), Perm::Read)));
        for other in [0, 0x12344, 0x12346, 0x12345 ^ 1 << 9, 0x12345 ^ 1 << 18, 0x12345 ^ 1 << 27] {
            assert_eq!(table.find(&memory, gfn(other)), None, "{other:#x}");
        }
        table.unmap(&mut memory, &mut pool, gfn(0x12345));
        assert_eq!(table.find(&memory, gfn(0x12345)), None);
    }
}

/// The form that the CPU wants: volume 2, figures 5-19 to 5-24, and 15.25.5 for the user bit.
#[test]
fn entries_are_those_of_long_mode() {
    let (mut memory, mut pool, mut table) = tables::<8>(Levels::Four);
    table.map(&mut memory, &mut pool, (gfn(5), frame(0xabcde), RW)).unwrap();
    table.map_large(&mut memory, &mut pool, (gfn(512), frame(0x3ff), Perm::Read)).unwrap();
    let mut entry = memory.entry(table.root(), 0);
    for _ in 0..2 {
        assert_eq!(entry & 0xfff, 7, "present, writable, user");
        entry = memory.entry(frame(entry >> 12), 0);
    }
    assert_eq!(entry & 0xfff, 7);
    assert_eq!(memory.entry(frame(entry >> 12), 5), 0xabcd_e007);
    let directory = memory.entry(frame(memory.entry(table.root(), 0) >> 12), 0) >> 12;
    assert_eq!(memory.entry(frame(directory), 1), 0x20_0085, "large, aligned, to read");
}

#[test]
fn a_large_page_is_split_where_one_page_of_it_changes() {
    let (mut memory, mut pool, mut table) = tables::<8>(Levels::Four);
    table.map_large(&mut memory, &mut pool, (gfn(0), frame(0x400), RW)).unwrap();
    assert_eq!(table.find(&memory, gfn(511)), Some((frame(0x5ff), RW)));
    table.unmap(&mut memory, &mut pool, gfn(3));
    table.map(&mut memory, &mut pool, (gfn(4), frame(9), Perm::Read)).unwrap();
    let expected = |page| match page {
        3 => None,
        4 => Some((frame(9), Perm::Read)),
        page => Some((frame(0x400 + page), RW)),
    };
    for page in 0..512 {
        assert_eq!(table.find(&memory, gfn(page)), expected(page), "{page}");
    }
    let again = table.map_large(&mut memory, &mut pool, (gfn(0), frame(0), RW));
    assert_eq!(again, Err(MapError::Divided));
}

#[test]
fn without_a_frame_to_split_it_all_of_a_large_page_goes() {
    let (mut memory, mut pool, mut table) = tables::<3>(Levels::Four);
    table.map_large(&mut memory, &mut pool, (gfn(0), frame(0x400), RW)).unwrap();
    assert_eq!(pool.left(), 0);
    let one = table.map(&mut memory, &mut pool, (gfn(4), frame(9), RW));
    assert_eq!(one, Err(MapError::PoolEmpty));
    assert_eq!(table.find(&memory, gfn(4)), Some((frame(0x404), RW)), "as before");
    table.unmap(&mut memory, &mut pool, gfn(4));
    assert!((0..512).all(|page| table.find(&memory, gfn(page)).is_none()));
}

#[test]
fn what_is_cleared_gives_every_table_back() {
    let (mut memory, mut pool, mut table) = tables::<16>(Levels::Four);
    for page in [0, 1 << 9, 1 << 18, 1 << 27] {
        table.map(&mut memory, &mut pool, (gfn(page), frame(1), RW)).unwrap();
    }
    assert!(pool.left() < 8);
    table.clear(&mut memory, &mut pool);
    assert_eq!(pool.left(), 15);
    assert_eq!(table.find(&memory, gfn(0)), None);
    table.map(&mut memory, &mut pool, (gfn(0), frame(1), RW)).unwrap();
    assert_eq!(table.find(&memory, gfn(1)), None, "a table that comes back is empty");
}

#[test]
fn pages_beyond_the_root_and_roots_without_a_frame_are_refused() {
    let (mut memory, mut pool, mut table) = tables::<8>(Levels::Four);
    let far = gfn(1 << 36);
    let mapped = table.map(&mut memory, &mut pool, (far, frame(1), RW));
    assert_eq!(mapped, Err(MapError::OutOfReach(far)));
    table.map(&mut memory, &mut pool, (gfn(0), frame(1), RW)).unwrap();
    assert_eq!(table.find(&memory, far), None, "it is not the page that its low bits name");
    table.unmap(&mut memory, &mut pool, far);
    assert_eq!(table.find(&memory, gfn(0)), Some((frame(1), RW)));
    let (mut memory, mut pool, mut table) = tables::<8>(Levels::Five);
    table.map(&mut memory, &mut pool, (Gfn::MAX, frame(1), RW)).unwrap();
    let none = NestedTable::new(&mut Memory::default(), &mut Pool::<0>::new([]), Levels::Four);
    assert_eq!(none.unwrap_err(), PoolEmpty);
}

/// Something that is done to a table.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Map(u64, u64, bool),
    Large(u64, u64),
    Unmap(u64),
    Clear,
}

/// Few pages, so that deeds meet: neighbours, and some in other tables of every level.
fn page() -> impl Strategy<Value = u64> {
    (0_u64..4, 0_usize..3).prop_map(|(low, high)| low | [0, 1 << 9, 1 << 18][high])
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        6 => (page(), 0_u64..1 << 30, any::<bool>()).prop_map(|(p, f, w)| Deed::Map(p, f, w)),
        2 => (page(), 0_u64..1 << 20).prop_map(|(p, f)| Deed::Large(p, f << 9)),
        4 => page().prop_map(Deed::Unmap),
        1 => Just(Deed::Clear),
    ]
}

proptest! {
    /// With frames enough, a table is a map from pages to frames.
    #[test]
    fn a_table_is_a_map(deeds in prop::collection::vec(deed(), 1..60)) {
        let (mut memory, mut pool, mut table) = tables::<64>(Levels::Four);
        let mut map: BTreeMap<u64, (u64, Perm)> = BTreeMap::new();
        for deed in deeds {
            match deed {
                Deed::Map(page, to, writable) => {
                    let perm = if writable { RW } else { Perm::Read };
                    table.map(&mut memory, &mut pool, (gfn(page), frame(to), perm)).unwrap();
                    map.insert(page, (to, perm));
                }
                Deed::Large(page, to) => {
                    if table.map_large(&mut memory, &mut pool, (gfn(page), frame(to), RW)).is_ok() {
                        let first = page & !511;
                        map.extend((0..512).map(|on| (first + on, (to + on, RW))));
                    }
                }
                Deed::Unmap(page) => {
                    table.unmap(&mut memory, &mut pool, gfn(page));
                    map.remove(&page);
                }
                Deed::Clear => {
                    table.clear(&mut memory, &mut pool);
                    map.clear();
                }
            }
            let near = |first: u64| (first..first + 6).chain([first + 511]);
            for page in [0, 1 << 9, 1 << 10, 1 << 18, (1 << 18) + 512].into_iter().flat_map(near) {
                let expected = map.get(&page).map(|(to, perm)| (frame(*to), *perm));
                prop_assert_eq!(table.find(&memory, gfn(page)), expected, "{:#x}", page);
            }
        }
    }
}
