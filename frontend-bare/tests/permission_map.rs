//! The maps of ports and MSRs: where a bit is, what an access touches, and whose wish wins.

use frontend_bare::memory::HostMemory;
use frontend_bare::permission_map::insisted::{Whom, why_msr, why_port};
use frontend_bare::permission_map::{IoAccess, IoMap, IoWidth, MsrAccess, MsrMap};
use proptest::prelude::*;
use view_core::{Frame, Page};

/// Frames that can only be read; those beyond the last are zeroes.
struct Memory(Vec<Page>);

impl HostMemory for Memory {
    fn entry(&self, table: Frame, index: usize) -> u64 {
        let page = usize::try_from(table.number()).ok().and_then(|at| self.0.get(at));
        let word = page.map_or([0; 8], |page| page.bytes().as_chunks().0[index]);
        u64::from_le_bytes(word)
    }
    fn set_entry(&mut self, _: Frame, _: usize, _: u64) {
        unreachable!("the hypervisor's maps are only read")
    }
    fn read(&self, frame: Frame, to: &mut Page) {
        let page = usize::try_from(frame.number()).ok().and_then(|at| self.0.get(at));
        *to = page.cloned().unwrap_or_else(Page::zeroed);
    }
    fn write(&mut self, _: Frame, _: &Page) {
        unreachable!("the hypervisor's maps are only read")
    }
    fn wipe(&mut self, _: Frame) {
        unreachable!("the hypervisor's maps are only read")
    }
}

fn frame(number: u64) -> Frame {
    Frame::new(number).unwrap()
}

/// The bits that are set, by their numbers.
fn bits(pages: &[Page]) -> Vec<usize> {
    let bytes: Vec<_> = pages.iter().flat_map(|page| *page.bytes()).collect();
    (0..bytes.len() * 8).filter(|bit| bytes[bit / 8] & 1 << (bit % 8) != 0).collect()
}

fn io(port: u16, width: IoWidth) -> IoAccess {
    IoAccess { port, width }
}

const fn msr(msr: u32, write: bool) -> MsrAccess {
    MsrAccess { msr, write }
}

#[test]
fn a_port_is_the_bit_of_its_number() {
    for port in [0, 7, 8, 0xcf9, 0x7fff, 0x8000, 0xffff] {
        let mut map = IoMap::empty();
        map.insist(port);
        assert_eq!(bits(map.pages()), [usize::from(port)]);
    }
}

#[test]
fn an_access_is_intercepted_if_any_port_of_it_is() {
    // Also across the pages of the map, and past the last port.
    for port in [0xcf9, 0x8000_u16, 0xffff] {
        let mut map = IoMap::empty();
        map.insist(port);
        for (width, reach) in [(IoWidth::One, 1), (IoWidth::Two, 2), (IoWidth::Four, 4)] {
            for first in port - 5..=port {
                let touched = port - first < reach;
                assert_eq!(map.intercepts(io(first, width)), touched, "{width:?} at {first:#x}");
            }
            let next = port.checked_add(1).map(|next| map.intercepts(io(next, width)));
            assert!(!next.unwrap_or(false), "{width:?} after {port:#x}");
        }
    }
}

#[test]
fn ports_do_not_wrap_around() {
    let mut map = IoMap::empty();
    map.insist(0);
    assert!(!map.intercepts(io(0xffff, IoWidth::Four)));
}

#[test]
fn an_exit_says_which_ports_were_touched() {
    // Port 71h, one byte, 16-bit addresses, a read; as QEMU and CPUs report it.
    let byte = IoAccess::from_exit_info(0x71_0091);
    assert_eq!(byte, Some(io(0x71, IoWidth::One)));
    assert_eq!(IoAccess::from_exit_info(0xcf8_0140), Some(io(0xcf8, IoWidth::Four)));
    assert_eq!(IoAccess::from_exit_info(0xcfc_0120), Some(io(0xcfc, IoWidth::Two)));
    assert_eq!(IoAccess::from_exit_info(0x71_0101), None);
    assert_eq!(IoAccess::from_exit_info(0x71_0171), None);
}

#[test]
fn an_msr_is_two_bits_in_one_of_three_ranges() {
    // The bytes are those that the manual's 15.11 names.
    for (number, byte) in [
        (0, 0),
        (0x1b, 0x6),
        (0x1fff, 0x7ff),
        (0xc000_0000, 0x800),
        (0xc000_0080, 0x820),
        (0xc000_1fff, 0xfff),
        (0xc001_0000, 0x1000),
        (0xc001_0117, 0x1045),
        (0xc001_1fff, 0x17ff),
    ] {
        for write in [false, true] {
            let mut map = MsrMap::empty();
            map.insist(msr(number, write));
            let bit = byte * 8 + (number % 4) as usize * 2 + usize::from(write);
            assert_eq!(bits(map.pages()), [bit], "{number:#x}");
            assert!(map.intercepts(msr(number, write)));
            assert!(!map.intercepts(msr(number, !write)));
        }
    }
}

#[test]
fn what_is_in_no_range_is_always_intercepted() {
    let mut map = MsrMap::empty();
    for number in [0x2000, 0xbfff_ffff, 0xc000_2000, 0xc000_ffff, 0xc001_2000, u32::MAX] {
        map.insist(msr(number, true));
        assert!(map.intercepts(msr(number, false)) && map.intercepts(msr(number, true)));
    }
    assert_eq!(bits(map.pages()), [0; 0]);
}

#[test]
fn the_table_is_in_the_map() {
    for whom in [Whom::Hypervisor, Whom::Guest] {
        let mut map = MsrMap::empty();
        map.insist_against(whom);
        let ranges = [0..0x2000, 0xc000_0000..0xc000_2000, 0xc001_0000..0xc001_2000];
        for number in ranges.into_iter().flatten() {
            for access in [msr(number, false), msr(number, true)] {
                let insisted = why_msr(access, whom).is_some();
                assert_eq!(map.intercepts(access), insisted, "{access:x?} {whom:?}");
            }
        }
    }
    let mut map = IoMap::empty();
    map.insist_all();
    for port in 0..=u16::MAX {
        let insisted = why_port(port).is_some();
        assert_eq!(map.intercepts(io(port, IoWidth::One)), insisted, "{port:#x}");
    }
}

#[test]
fn who_moves_the_monitor_is_seen() {
    use Whom::{Guest, Hypervisor};
    // VM_HSAVE_PA, EFER, VM_CR: reads, too, for the hypervisor is shown what it wrote.
    for number in [0xc001_0117, 0xc000_0080, 0xc001_0114] {
        for (whom, write) in
            [(Hypervisor, false), (Hypervisor, true), (Guest, false), (Guest, true)]
        {
            assert!(why_msr(msr(number, write), whom).is_some(), "{number:#x} {whom:?}");
        }
    }
    // The APIC: the hypervisor may use it, but not to start CPUs.
    assert!(why_msr(msr(0x80b, true), Hypervisor).is_none());
    assert!(why_msr(msr(0x80b, true), Guest).is_some());
    assert!(why_msr(msr(0x830, true), Hypervisor).is_some());
    assert!(why_msr(msr(0x830, false), Hypervisor).is_none());
    // What guests switch all the time is left alone.
    for number in [0xc000_0100, 0xc000_0101, 0xc000_0102, 0x10, 0x277] {
        assert!(why_msr(msr(number, true), Guest).is_none(), "{number:#x}");
    }
    assert!(why_port(0xcf9).is_some() && why_port(0xcf8).is_none());
}

#[test]
fn a_guest_is_held_to_all_that_its_hypervisor_is() {
    for number in (0..0x2000).chain(0xc000_0000..0xc000_2000).chain(0xc001_0000..0xc001_2000) {
        for access in [msr(number, false), msr(number, true)] {
            let held = why_msr(access, Whom::Hypervisor).is_some();
            assert!(!held || why_msr(access, Whom::Guest).is_some(), "{access:x?}");
        }
    }
}

#[test]
fn frames_without_a_number_intercept_everything() {
    let memory = Memory(vec![]);
    let mut map = IoMap::empty();
    map.join(&IoMap::empty(), &memory, Frame::MAX);
    // The first page is there, and empty; the others are not.
    assert!(!map.intercepts(io(0x7fff, IoWidth::One)));
    assert!(map.intercepts(io(0x8000, IoWidth::One)) && map.intercepts(io(0xffff, IoWidth::One)));
}

#[test]
fn what_the_hypervisor_wants_is_read_where_its_map_is() {
    let random = |page: u64| {
        let mut bytes = Page::zeroed();
        for (index, byte) in bytes.bytes_mut().iter_mut().enumerate() {
            let mixed = (index as u64 + page * 4096 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = (mixed >> 56) as u8 & (mixed >> 40) as u8;
        }
        bytes
    };
    let memory = Memory((0..4).map(random).collect());
    let (mut ports, mut msrs) = (IoMap::empty(), MsrMap::empty());
    ports.join(&IoMap::empty(), &memory, frame(1));
    msrs.join(&MsrMap::empty(), &memory, frame(1));
    for port in 0..=u16::MAX {
        for width in [IoWidth::One, IoWidth::Two, IoWidth::Four] {
            let access = io(port, width);
            assert_eq!(access.is_wanted(&memory, frame(1)), ports.intercepts(access));
        }
    }
    for range in [0_u32, 0xc000_0000, 0xc001_0000] {
        for number in range..range + 0x2010 {
            for access in [msr(number, false), msr(number, true)] {
                assert_eq!(access.is_wanted(&memory, frame(1)), msrs.intercepts(access));
            }
        }
    }
    assert!(io(0x8000, IoWidth::One).is_wanted(&memory, Frame::MAX));
    assert!(!io(0, IoWidth::One).is_wanted(&memory, Frame::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_joined_map_has_the_bits_of_both(
        bytes in prop::collection::vec(prop::num::u8::ANY, 5 * 4096),
        first in 0_u64..3,
        ours in prop::collection::vec(any::<u16>(), 0..20),
    ) {
        let page = |bytes: &[u8]| {
            let mut page = Page::zeroed();
            page.bytes_mut().copy_from_slice(bytes);
            page
        };
        let memory = Memory(bytes.chunks(4096).map(page).collect());
        let (mut ports, mut msrs) = (IoMap::empty(), MsrMap::empty());
        ours.iter().for_each(|port| ports.insist(*port));
        msrs.insist_against(Whom::Guest);
        let (mut io_map, mut msr_map) = (IoMap::empty(), MsrMap::empty());
        // What was there before does not stay.
        io_map.insist(1);
        io_map.join(&ports, &memory, frame(first));
        msr_map.join(&msrs, &memory, frame(first));
        let at = usize::try_from(first).unwrap();
        let either = |theirs: &[Page], insisted: &[Page]| {
            let mut both = bits(theirs);
            both.extend(bits(insisted));
            both.sort_unstable();
            both.dedup();
            both
        };
        prop_assert_eq!(bits(io_map.pages()), either(&memory.0[at..at + 3], ports.pages()));
        prop_assert_eq!(bits(msr_map.pages()), either(&memory.0[at..at + 2], msrs.pages()));
    }
}

/// Counters, records of branches and masks of breakpoints would go on while a guest runs.
#[test]
fn nothing_is_set_up_to_watch_a_guest_from_beneath() {
    let watching = [
        0xc000_010e..=0xc000_010f,
        0xc000_0300..=0xc000_0303,
        0xc001_0000..=0xc001_0007,
        0xc001_0200..=0xc001_020b,
        0xc001_0230..=0xc001_0247,
        0xc001_1019..=0xc001_101b,
        0xc001_1027..=0xc001_1027,
    ];
    for whom in [Whom::Hypervisor, Whom::Guest] {
        let mut map = MsrMap::empty();
        map.insist_against(whom);
        for msr in watching.iter().cloned().flatten() {
            assert!(map.intercepts(MsrAccess { msr, write: true }), "{msr:#x}");
        }
    }
}
