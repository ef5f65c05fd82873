//! The golden images: another program's, from the specification alone.

use std::collections::BTreeMap;

use view_core::image::Header;
use view_core::key::Salt;
use view_core::suite::PageCipher;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::{Epoch, VmId};

use super::sealed::{mixed, private, restore, root_key, seal};

/// The values of each record under their names, in order; `+` carries a line on.
fn records(text: &str) -> Vec<BTreeMap<&str, Vec<Vec<u8>>>> {
    let (mut all, mut last) = (vec![BTreeMap::<_, Vec<Vec<u8>>>::new()], "");
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let record = all.last_mut().expect("never empty");
        if line.is_empty() {
            all.push(BTreeMap::new());
        } else if let Some(more) = line.strip_prefix('+') {
            let values = record.get_mut(last).expect("a line to carry on");
            values.last_mut().expect("a value to carry on").extend(hex(more));
        } else {
            let (name, value) = line.split_once('=').expect("name = hex");
            last = name.trim();
            record.entry(last).or_default().push(hex(value));
        }
    }
    all.retain(|record| !record.is_empty());
    all
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

/// The ends of each of these pages.
fn ends(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    bytes.chunks(4096).map(|page| (page[..16].to_vec(), page[4080..].to_vec())).unzip()
}

#[test]
fn images_are_bit_for_bit_those_of_the_specification() {
    let vectors = records(include_str!("../../vectors/image.txt"));
    assert_eq!(vectors.len(), 3);
    for vector in vectors {
        let one = |name: &str| vector[name][0].clone();
        let number = |name: &str| u64::from_be_bytes(one(name).try_into().expect("8 bytes"));
        let header = Header {
            vm: VmId(one("vm_id").try_into().expect("16 bytes")),
            epoch: Epoch(number("epoch")),
            salt: Salt(one("salt").try_into().expect("16 bytes")),
            suite: SivCmac512::SUITE,
            sequence: number("sequence"),
            pages: number("pages"),
            state_len: number("state_len"),
        };
        assert_eq!(one("root"), root_key().expose());
        let state: Vec<u8> = (0..=255).take(header.state_len as usize).collect();
        let terms = if header.pages == 4 { mixed } else { private };
        let image = seal(&header, terms, &state);
        assert_eq!(image.bytes[image.bytes.len() - 48..], one("trailer"));
        assert_eq!(image.root.0[..], one("trailer")[32..]);
        if let Some(records) = vector.get("record") {
            assert_eq!(image.bytes[..112], one("header"));
            assert_eq!(image.bytes[112..4080], [0; 3968]);
            assert_eq!(image.bytes[4080..4096], one("header_tag"));
            let (heads, tails) = ends(&image.bytes[4096..6 * 4096]);
            assert_eq!(heads, [&vector["body_head"][..], &vector["state_head"]].concat());
            assert_eq!(tails, [&vector["body_tail"][..], &vector["state_tail"]].concat());
            assert_eq!(image.bytes[6 * 4096..][..128], records.concat());
        }
        restore(&root_key(), &image.bytes, Some(image.root)).expect("genuine");
    }
}
