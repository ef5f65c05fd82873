//! What a keeper of an image may try, and what is said to it. The last tests hold the key: what
//! they forge is authenticated, and still not believed.

use aes::Aes256Enc;
use cipher::KeyInit;
use cmac::{Cmac, Mac};
use view_core::image::{
    HEADER_SIZE, Header, ImageError, ImageReader, ImageWriter, Record, TRAILER_SIZE,
};
use view_core::suite::siv::Siv512;
use view_core::{Epoch, VmId};

use super::sealed::{epoch_key, gfn, header, part, private, refusal, root_key, seal, tables, tiny};
use super::writing::receipt;

/// The tiny image: two bodies, one block of state, two records, a trailer.
const BODIES: usize = 4096;
const STATE: usize = 3 * 4096;
const RECORDS: usize = 4 * 4096;
const TRAILER: usize = RECORDS + 64;
const END: usize = TRAILER + TRAILER_SIZE;

/// The answer to one flipped bit of the tiny image.
fn answer(offset: usize, bit: u32) -> ImageError {
    match offset {
        0..8 => ImageError::NotAnImage,
        8..12 => ImageError::UnknownFormat(1 ^ 1 << (8 * (offset as u32 - 8) + bit)),
        12 => ImageError::UnknownSuite(1 ^ 1 << bit),
        16..40 | 48..96 => ImageError::WrongKey,
        13..BODIES => ImageError::HeaderForged,
        BODIES..STATE => ImageError::PageForged(gfn((offset as u64 - 4096) / 4096)),
        STATE..RECORDS => ImageError::StateForged,
        RECORDS..TRAILER => ImageError::RecordsForged,
        _ => ImageError::TrailerForged,
    }
}

fn flip(bytes: &mut [u8], offset: usize, bit: u32) {
    bytes[offset] ^= 1 << bit;
}

/// Flips bits one at a time and compares the answers.
fn every_flip_is_named(offsets: impl Iterator<Item = usize>, bits: &[u32]) {
    let mut bytes = tiny().bytes;
    for offset in offsets {
        for &bit in bits {
            flip(&mut bytes, offset, bit);
            assert_eq!(refusal(&bytes), Some(answer(offset, bit)), "bit {bit} of byte {offset}");
            flip(&mut bytes, offset, bit);
        }
    }
    assert_eq!(refusal(&bytes), None);
}

const ALL: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

#[test]
fn every_flipped_bit_of_a_header_is_refused_and_named() {
    every_flip_is_named(0..BODIES, &ALL);
}

#[test]
fn every_flipped_bit_of_records_and_trailer_is_refused_and_named() {
    every_flip_is_named(RECORDS..END, &ALL);
}

#[test]
fn flipped_bits_of_bodies_are_refused_with_the_page() {
    every_flip_is_named((BODIES..STATE).step_by(127), &[0, 7]);
    every_flip_is_named([BODIES, 2 * 4096 - 1, 2 * 4096, STATE - 1].into_iter(), &ALL);
}

#[test]
fn every_flipped_bit_of_the_state_is_refused_and_nothing_of_it_is_kept() {
    let image = tiny();
    let reader = ImageReader::open(&root_key(), &image.bytes, None).expect("genuine");
    let (records, trailer) = tables(&reader, &image.bytes);
    let manifest = reader.verify(&records, &trailer, None).expect("genuine");
    let sealed = part(&image.bytes, &reader.geometry().state());
    for offset in 0..sealed.len() {
        for bit in ALL {
            let mut state = sealed.clone();
            flip(&mut state, offset, bit);
            assert_eq!(manifest.open_state(&mut state), Err(ImageError::StateForged));
            assert!(state.iter().all(|&byte| byte == 0), "bit {bit} of byte {offset}");
        }
    }
}

#[test]
fn every_cut_and_every_addition_is_refused_with_both_lengths() {
    let mut bytes = tiny().bytes;
    let places = (0..=HEADER_SIZE).chain((HEADER_SIZE..RECORDS).step_by(61)).chain(RECORDS..END);
    for found in places {
        let expected = if found < HEADER_SIZE { HEADER_SIZE } else { END } as u64;
        let answer = ImageError::Truncated { expected, found: found as u64 };
        assert_eq!(refusal(&bytes[..found]), Some(answer));
    }
    bytes.push(0);
    let (expected, found) = (END as u64, END as u64 + 1);
    assert_eq!(refusal(&bytes), Some(ImageError::TooLong { expected, found }));
}

#[test]
fn buffers_of_another_length_than_their_part_are_refused() {
    let image = tiny();
    let reader = ImageReader::open(&root_key(), &image.bytes, None).expect("genuine");
    let (mut records, trailer) = tables(&reader, &image.bytes);
    let manifest = reader.verify(&records, &trailer, None).expect("genuine");
    for length in [0, 4, 4095, 4097, 8192] {
        let mut state = vec![7; length];
        let found = length as u64;
        let answer = Err(ImageError::WrongBuffer { expected: 4096, found });
        assert_eq!(manifest.open_state(&mut state), answer);
        assert!(state.iter().all(|&byte| byte == 7), "as it was");
    }
    records.push(Record::default());
    for (length, found) in [(3, 96), (1, 32), (0, 0)] {
        let refused = reader.verify(&records[..length], &trailer, None).err();
        assert_eq!(refused, Some(ImageError::WrongBuffer { expected: 64, found }));
    }
}

/// The tiny image with a part of another one put into its place.
fn with_part_of(other: &[u8], from: usize, to: usize) -> Option<ImageError> {
    let mut bytes = tiny().bytes;
    bytes[from..to].copy_from_slice(&other[from..to]);
    refusal(&bytes)
}

#[test]
fn pages_and_records_do_not_change_places() {
    let mut bytes = tiny().bytes;
    let (first, second) = bytes[BODIES..STATE].split_at_mut(4096);
    first.swap_with_slice(second);
    assert_eq!(refusal(&bytes), Some(ImageError::PageForged(gfn(0))));
    let (first, second) = bytes[RECORDS..TRAILER].split_at_mut(32);
    first.swap_with_slice(second);
    assert_eq!(refusal(&bytes), Some(ImageError::RecordsForged), "nor together");
}

#[test]
fn no_part_of_another_image_is_believed() {
    let ours = header(2, b"vcpu");
    let sequence = ours.sequence - 1;
    let others = [
        Header { sequence, ..ours },
        Header { epoch: Epoch(ours.epoch.0 - 1), ..ours },
        Header { epoch: Epoch(ours.epoch.0 ^ 1 << 40), ..ours },
        Header { vm: VmId([0; 16]), ..ours },
    ];
    for other in others {
        let other = seal(&other, private, b"vcpu").bytes;
        let body = with_part_of(&other, BODIES + 4096, STATE);
        assert_eq!(body, Some(ImageError::PageForged(gfn(1))));
        assert_eq!(with_part_of(&other, STATE, RECORDS), Some(ImageError::StateForged));
        assert_eq!(with_part_of(&other, RECORDS, TRAILER), Some(ImageError::RecordsForged));
        assert_eq!(with_part_of(&other, TRAILER, END), Some(ImageError::TrailerForged));
        assert_eq!(with_part_of(&other, RECORDS, END), Some(ImageError::TrailerForged));
        assert_eq!(with_part_of(&other, BODIES, END), Some(ImageError::TrailerForged));
        assert_eq!(with_part_of(&other, 0, HEADER_SIZE), Some(ImageError::TrailerForged));
        assert_eq!(with_part_of(&other, 0, END), None, "whole, it is genuine");
    }
    let other = seal(&Header { sequence, ..ours }, private, b"vcpu").bytes;
    assert_eq!(with_part_of(&other, 0, 4080), Some(ImageError::HeaderForged));
}

/// CMAC under the manifest key of the tiny image's epoch.
fn mac(parts: &[&[u8]]) -> [u8; 16] {
    let key = epoch_key(&root_key(), &header(2, b"vcpu")).manifest();
    let mut mac = Cmac::<Aes256Enc>::new(key.expose().into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().0
}

/// The manifest as at a blackboard: level by level, everything at hand.
fn manifest(mut nodes: Vec<Vec<u8>>) -> [u8; 16] {
    for level in 0.. {
        nodes = (0_u64..)
            .zip(nodes.chunks(64))
            .map(|(index, below)| {
                let head = [0x4d, level, below.len() as u8, 0, 0, 0, 0, 0];
                mac(&[&below.concat(), &head, &index.to_le_bytes()]).to_vec()
            })
            .collect();
        match &nodes[..] {
            [] => return [0; 16],
            [root] => return root[..].try_into().expect("16 bytes"),
            _ => {}
        }
    }
    unreachable!("each level is smaller");
}

#[test]
fn the_streamed_manifest_is_the_tree_as_at_a_blackboard() {
    for pages in (0..=130).chain([4095, 4096, 4097, 4160, 4161, 8191, 8192, 8193, 262_145]) {
        let header = header(pages, b"");
        let key = epoch_key(&root_key(), &header);
        let mut writer = ImageWriter::new(&key, &header, &mut [0; HEADER_SIZE]).expect("small");
        let records = (0..pages).map(|page| {
            let record = writer.record(&receipt(page, private(page))).expect("in order");
            Record::bytes(&[record]).to_vec()
        });
        let naive = manifest(records.collect());
        let (trailer, _) = writer.finish(&mut []).expect("complete");
        assert_eq!(trailer[16..32], naive, "{pages} pages");
    }
}

/// The tiny image with other records, authenticated by who has the key.
fn resealed(alter: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut bytes = tiny().bytes;
    alter(&mut bytes[RECORDS..TRAILER]);
    let root = manifest(bytes[RECORDS..TRAILER].chunks(32).map(<[u8]>::to_vec).collect());
    bytes[TRAILER + 16..TRAILER + 32].copy_from_slice(&root);
    let (head, tail) = ([0x52, 0, 0, 0, 0, 0, 0, 0], 2_u64.to_le_bytes());
    let root = mac(&[&bytes[4080..4096], &bytes[TRAILER..TRAILER + 32], &head, &tail]);
    bytes[TRAILER + 32..].copy_from_slice(&root);
    bytes
}

#[test]
fn a_genuine_record_that_says_the_impossible_is_refused_with_its_page() {
    assert_eq!(refusal(&resealed(|_| ())), None);
    let second = |offset: usize, byte: u8| resealed(move |records| records[32 + offset] = byte);
    let impossible = [
        ("version 0", second(16, 0)),
        ("a version of 57 bits", second(23, 1)),
        ("another epoch", second(24, 0)),
        ("no permission", second(29, 0)),
        ("to write only", second(29, 2)),
        ("a mask and to write", second(30, 1)),
        ("a mask past the last", second(30, 64)),
        ("an unknown flag", second(31, 5)),
        ("closed on terms", second(31, 0)),
    ];
    for (what, bytes) in impossible {
        assert_eq!(refusal(&bytes), Some(ImageError::BadRecord(gfn(1))), "{what}");
    }
}

#[test]
fn a_genuine_header_past_the_format_is_refused_by_name() {
    let refused = |offset: usize, byte: u8| {
        let mut bytes = tiny().bytes;
        bytes[offset] = byte;
        let siv = Siv512::new(epoch_key(&root_key(), &header(2, b"vcpu")).state().expose());
        let tag = siv.seal(&[&[0x48], &bytes[..4080]], &mut []);
        bytes[4080..4096].copy_from_slice(&tag);
        refusal(&bytes)
    };
    assert_eq!(refused(13, 1), Some(ImageError::Reserved(13)));
    assert_eq!(refused(112, 1), Some(ImageError::Reserved(112)));
    assert_eq!(refused(4079, 0x80), Some(ImageError::Reserved(4079)));
    assert_eq!(refused(103, 1), Some(ImageError::TooManyPages((1 << 56) + 2)));
    assert_eq!(refused(111, 1), Some(ImageError::StateTooLong((1 << 56) + 4)));
    let (expected, found) = (END as u64 + 4096 + 32, END as u64);
    assert_eq!(refused(96, 3), Some(ImageError::Truncated { expected, found }));
}
