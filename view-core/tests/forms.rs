//! What must hold of masks, registers and page tables for all inputs, tried on many.
#![cfg(not(loom))]

use proptest::prelude::*;
use view_core::mask::{XEN_SHARED_INFO, XEN_START_INFO};
use view_core::page_table::{BadEntry, Flaw, Level, PageNumbers, canonicalise, decanonicalise};
use view_core::registers::{Exit, Gprs, Operand, Part, PortSize, Registers, accept, masks, show};
use view_core::{Field, Frame, Gfn, Mask, MaskId, NoSuchMask, Page, PastPage, show_fields};

fn filled(byte: u8) -> Box<Page> {
    let mut page = Box::new(Page::zeroed());
    page.bytes_mut().fill(byte);
    page
}

/// The runs of bytes of `mask` that show.
fn runs(mask: &Mask<'_>) -> Vec<(usize, usize)> {
    let mut shown = filled(0);
    mask.apply(&filled(1), &mut shown);
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, _) in shown.bytes().iter().enumerate().filter(|(_, byte)| **byte == 1) {
        match runs.last_mut() {
            Some((_, end)) if *end == at => *end += 1,
            Some(_) | None => runs.push((at, at + 1)),
        }
    }
    runs
}

#[test]
fn the_masks_of_xen_have_the_fields_that_a_toolstack_needs() {
    assert_eq!(runs(&XEN_START_INFO), [(32, 52), (56, 68), (72, 84)]);
    assert_eq!(runs(&XEN_SHARED_INFO), [(3088, 3104), (3112, 3136)]);
}

#[test]
fn a_field_ends_within_its_page() {
    assert_eq!(Field::new(4096, 0), Ok(Field::fixed::<4096, 0>()));
    assert_eq!(Field::new(4096, 1), Err(PastPage(4097)));
    assert_eq!(Field::new(u16::MAX, u16::MAX), Err(PastPage(131_070)));
}

proptest! {
    #[test]
    fn a_byte_shows_if_a_field_has_it(
        fields in prop::collection::vec((0_u16..4096, 0_u16..300), 0..6),
        number in 1_u8..4,
    ) {
        let made: Vec<Field> =
            fields.iter().filter_map(|(start, len)| Field::new(*start, *len).ok()).collect();
        let (page, mut shown) = (filled(0xa5), filled(0x5a));
        let mask = MaskId::new(number).expect("below 64");
        let masks = [Mask(&[]), Mask(&made)];
        let found = show_fields(&masks, mask, &page, &mut shown);
        prop_assert_eq!(found, if number <= 2 { Ok(()) } else { Err(NoSuchMask(mask)) });
        for (at, byte) in shown.bytes().iter().enumerate() {
            let has = |&(start, len): &(u16, u16)| {
                let end = usize::from(start) + usize::from(len);
                end <= 4096 && (usize::from(start)..end).contains(&at)
            };
            let shows = number == 2 && fields.iter().any(has);
            prop_assert_eq!(*byte, if shows { 0xa5 } else { 0 }, "byte {}", at);
        }
    }
}

fn any_operand() -> impl Strategy<Value = Operand> {
    let parts = [Part::LowByte, Part::HighByte, Part::Word, Part::Half, Part::Whole];
    (0_u8..16, prop::sample::select(parts.to_vec()))
        .prop_filter_map("no such part", |(number, part)| Operand::new(number, part))
}

fn any_exit() -> impl Strategy<Value = Exit> {
    let ports = [PortSize::Byte, PortSize::Word, PortSize::Double];
    let port = || prop::sample::select(ports.to_vec());
    let address = || any::<u16>().prop_map(Gprs);
    prop_oneof![
        Just(Exit::Cpuid),
        Just(Exit::ReadMsr),
        Just(Exit::WriteMsr),
        port().prop_map(Exit::PortIn),
        port().prop_map(Exit::PortOut),
        (any_operand(), address()).prop_map(|(into, address)| Exit::MmioRead { into, address }),
        (prop::option::of(any_operand()), address())
            .prop_map(|(from, address)| Exit::MmioWrite { from, address }),
        Just(Exit::Halt),
        Just(Exit::Interrupt),
        Just(Exit::PageFault),
        Just(Exit::Hypercall),
        Just(Exit::Shutdown),
    ]
}

const COUNT: usize = Registers::NAMES.len();
const RIP: usize = 16;
const LOW_HALF: u64 = 0xffff_ffff;

fn any_registers() -> impl Strategy<Value = Registers> {
    prop::collection::vec(any::<u64>(), COUNT).prop_map(|words| {
        let mut registers = Registers::ZERO;
        registers.words_mut().copy_from_slice(&words);
        registers
    })
}

/// Whether an instruction stopped there.
fn is_instruction(exit: Exit) -> bool {
    !matches!(exit, Exit::Interrupt | Exit::PageFault | Exit::Shutdown)
}

proptest! {
    #[test]
    fn a_bit_shows_if_the_mask_has_it(exit in any_exit(), kept in any_registers()) {
        let shown = show(exit, &kept);
        for ((shown, kept), mask) in
            shown.words().iter().zip(kept.words()).zip(masks(exit).shown.words())
        {
            prop_assert_eq!(*shown, kept & mask);
        }
    }

    #[test]
    fn what_comes_back_as_it_went_changes_nothing(
        exit in any_exit(), kept in any_registers(), next in 1_u64..,
    ) {
        let entered = accept(exit, next, &kept, &show(exit, &kept)).expect("nothing was changed");
        prop_assert_eq!(entered.words(), kept.words());
    }

    #[test]
    fn only_results_are_taken_and_only_with_the_next_instruction(
        exit in any_exit(), kept in any_registers(), noise in any_registers(), next in 1_u64..,
    ) {
        let (mut returned, results) = (show(exit, &kept), masks(exit).result);
        let words = returned.words_mut().iter_mut().zip(noise.words()).zip(results.words());
        words.for_each(|((word, noise), result)| *word ^= noise & result);
        let moved = accept(exit, next, &kept, &returned);
        prop_assert_eq!(moved.is_ok(), returned.words() == show(exit, &kept).words());
        returned.rip = next;
        match accept(exit, next, &kept, &returned) {
            Err(changed) => {
                prop_assert!(!is_instruction(exit));
                prop_assert_eq!(changed.0, "rip");
            }
            Ok(entered) => {
                prop_assert!(is_instruction(exit));
                prop_assert_eq!(entered.rip, next);
                for (index, word) in entered.words().iter().enumerate().filter(|(i, _)| *i != RIP) {
                    let result = results.words()[index];
                    let above = if result == LOW_HALF { !LOW_HALF } else { 0 };
                    let stays = kept.words()[index] & !result & !above;
                    prop_assert_eq!(*word, stays | returned.words()[index] & result);
                }
            }
        }
    }

    #[test]
    fn one_bit_beside_the_results_is_refused(
        exit in any_exit(), kept in any_registers(), index in 0..COUNT, bit in 0_u32..64,
        moves in any::<bool>(), next in 1_u64..,
    ) {
        prop_assume!(index != RIP);
        let (bit, mut returned) = (1_u64 << bit, show(exit, &kept));
        returned.words_mut()[index] ^= bit;
        let moves = moves && is_instruction(exit);
        if moves {
            returned.rip = next;
        }
        let is_result = moves && masks(exit).result.words()[index] & bit != 0;
        match accept(exit, next, &kept, &returned) {
            Ok(_) => prop_assert!(is_result),
            Err(changed) => {
                prop_assert!(!is_result);
                prop_assert_eq!(changed.0, Registers::NAMES[index]);
            }
        }
    }

    #[test]
    fn no_instruction_is_skipped_and_none_is_jumped_to(
        exit in any_exit(), kept in any_registers(), rip in 1_u64.., next in 1_u64..,
    ) {
        let mut returned = show(exit, &kept);
        returned.rip = rip;
        let refused = accept(exit, next, &kept, &returned).err().map(|changed| changed.0);
        let fine = is_instruction(exit) && rip == next;
        prop_assert_eq!(refused, if fine { None } else { Some("rip") });
    }
}

#[test]
fn no_exit_shows_or_takes_what_stands_for_extended_state() {
    let operand = Operand::new(15, Part::Whole).expect("r15");
    let all = Gprs(u16::MAX);
    for exit in [
        Exit::Hypercall,
        Exit::MmioRead { into: operand, address: all },
        Exit::MmioWrite { from: Some(operand), address: all },
    ] {
        let masks = masks(exit);
        assert_eq!((masks.shown.extended, masks.result.extended), (0, 0));
        assert_eq!((masks.shown.rip, masks.result.rip), (0, u64::MAX));
    }
}

#[test]
fn a_refusal_names_the_register_that_was_changed() {
    let mut returned = show(Exit::Halt, &Registers::ZERO);
    returned.r15 = 1;
    let refused = accept(Exit::Halt, 2, &Registers::ZERO, &returned).expect_err("not asked for");
    assert!(refused.to_string().contains(" r15 "), "{refused}");
}

#[test]
fn registers_neither_print_nor_stay() {
    fn wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
    let mut kept = Registers::ZERO;
    kept.rax = 0x5ec2e7;
    assert_eq!(format!("{kept:?}"), "Registers(..)");
    assert_eq!(kept.words()[0], 0x5ec2e7);
    wiped(&kept);
}

/// Page `n` is in frame `n ^ key`; there are sixteen of both.
struct Numbers(u64);

impl PageNumbers for Numbers {
    fn gfn(&self, frame: Frame) -> Option<Gfn> {
        Gfn::new(frame.number() ^ self.0).ok().filter(|gfn| gfn.number() < 16)
    }

    fn frame(&self, gfn: Gfn) -> Option<Frame> {
        Frame::new(gfn.number() ^ self.0).ok().filter(|_| gfn.number() < 16)
    }
}

const LEVELS: [Level; 4] = [Level::One, Level::Two, Level::Three, Level::Four];
const NUMBER: u64 = 0x000f_ffff_ffff_f000;

/// An entry of a canonical table: of one of sixteen pages, or anything that is not present.
fn any_entry(level: Level) -> impl Strategy<Value = u64> {
    let flags = if level == Level::One { !NUMBER } else { !NUMBER & !0x80 };
    prop_oneof![
        any::<u64>().prop_map(|entry| entry & !1),
        (0_u64..16, any::<u64>()).prop_map(move |(gfn, any)| gfn << 12 | any & flags | 1),
    ]
}

fn any_table() -> impl Strategy<Value = (Level, Vec<u64>)> {
    prop::sample::select(LEVELS.to_vec())
        .prop_flat_map(|level| (Just(level), prop::collection::vec(any_entry(level), 512)))
}

fn table(entries: &[u64]) -> Box<Page> {
    let mut page = filled(0);
    let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
    page.bytes_mut().copy_from_slice(&bytes);
    page
}

fn entries(page: &Page) -> Vec<u64> {
    page.bytes().as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()
}

proptest! {
    #[test]
    fn a_page_table_survives_both_ways(
        (level, mut canonical) in any_table(), key in 0_u64..1 << 40,
    ) {
        if level == Level::Four {
            canonical[256..272].fill(0);
        }
        let (mut local, mut again) = (filled(1), filled(2));
        let page = table(&canonical);
        decanonicalise(&Numbers(key), level, &page, &mut local).expect("all its own");
        for (entry, local) in canonical.iter().zip(entries(&local)) {
            prop_assert_eq!(entry & !NUMBER, local & !NUMBER, "flags");
            let moved = if entry & 1 == 0 { 0 } else { key << 12 };
            prop_assert_eq!(entry & NUMBER, local & NUMBER ^ moved);
        }
        canonicalise(&Numbers(key), level, &local, &mut again).expect("all its own");
        prop_assert_eq!(entries(&again), canonical);
    }

    #[test]
    fn what_is_not_the_vms_is_in_no_form(
        (level, mut canonical) in any_table(), at in 0_usize..512, number in 16_u64..1 << 40,
    ) {
        canonical[256..272].fill(0);
        prop_assume!(level != Level::Four || !(256..272).contains(&at));
        canonical[at] = number << 12 | 1;
        let mut out = filled(3);
        let bad = Err(BadEntry { index: at, flaw: Flaw::NotTheVms(number) });
        prop_assert_eq!(decanonicalise(&Numbers(0), level, &table(&canonical), &mut out), bad);
        prop_assert_eq!(entries(&out), [0; 512]);
        let mut out = filled(3);
        prop_assert_eq!(canonicalise(&Numbers(0), level, &table(&canonical), &mut out), bad);
        prop_assert_eq!(entries(&out), [0; 512]);
    }
}

#[test]
fn entries_that_map_more_than_a_page_and_xens_own_are_in_no_form() {
    let mut out = filled(3);
    for level in LEVELS {
        let large = table(&[&[0x1081], [0; 511].as_slice()].concat());
        let bad = Err(BadEntry { index: 0, flaw: Flaw::Superpage });
        let expected = if level == Level::One { Ok(()) } else { bad };
        assert_eq!(canonicalise(&Numbers(0), level, &large, &mut out), expected);
        assert_eq!(decanonicalise(&Numbers(0), level, &large, &mut out), expected);
    }
    let (mut xens, mut dropped) = ([0; 512], [0; 512]);
    (xens[255], xens[256], xens[271], xens[272]) = (0x1001, 0xdead_b001, 2, 0x1001);
    (dropped[255], dropped[272]) = (0x1001, 0x1001);
    assert_eq!(canonicalise(&Numbers(0), Level::Four, &table(&xens), &mut out), Ok(()));
    assert_eq!(entries(&out), dropped);
    let bad = Err(BadEntry { index: 256, flaw: Flaw::Reserved });
    assert_eq!(decanonicalise(&Numbers(0), Level::Four, &table(&xens), &mut out), bad);
}

/// Two pages in one frame: whoever asks the other way round finds one of them out.
struct Aliased;

impl PageNumbers for Aliased {
    fn gfn(&self, _: Frame) -> Option<Gfn> {
        Gfn::new(1).ok()
    }

    fn frame(&self, _: Gfn) -> Option<Frame> {
        Frame::new(7).ok()
    }
}

#[test]
fn numbers_that_do_not_agree_are_not_believed() {
    let mut out = filled(3);
    let both = |entry: u64| table(&[&[entry], [0; 511].as_slice()].concat());
    assert_eq!(canonicalise(&Aliased, Level::One, &both(0x7001), &mut out), Ok(()));
    let bad = |number| Err(BadEntry { index: 0, flaw: Flaw::NotTheVms(number) });
    assert_eq!(canonicalise(&Aliased, Level::One, &both(0x8001), &mut out), bad(8));
    assert_eq!(decanonicalise(&Aliased, Level::One, &both(0x1001), &mut out), Ok(()));
    assert_eq!(decanonicalise(&Aliased, Level::One, &both(0x2001), &mut out), bad(2));
}
