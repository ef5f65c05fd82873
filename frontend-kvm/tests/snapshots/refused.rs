//! Images that are not what they were: cut, longer, or with one bit flipped. Each is refused by
//! name, and nothing comes of it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use frontend_kvm::image_file::ImageFileError;
use frontend_kvm::trusted::{TrustedVm, VerifyError, verify};
use frontend_kvm::{Kvm, Mode};
use view_core::Gfn;
use view_core::image::{Geometry, ImageError, ImageRoot, UnverifiedHeader};

use crate::common::{PAGES, kvm};
use crate::{Running, file, key};

/// An image, the places in it, and a die that always falls the same way.
struct Victim {
    kvm: Kvm,
    image: File,
    geometry: Geometry,
    root: ImageRoot,
    dice: u64,
}

impl Victim {
    fn new(kvm: Kvm) -> Self {
        let guest = Running::boot(&kvm, PAGES, Mode::Counter, |_| {});
        let (bytes, told) = guest.snapshot();
        let header = UnverifiedHeader::parse(&bytes).unwrap().claims;
        let this = Self {
            kvm,
            image: file(&bytes),
            geometry: header.geometry().unwrap(),
            root: told.root,
            dice: 0x5eed,
        };
        this.is_accepted();
        this
    }

    fn is_accepted(&self) {
        verify(&key(), &self.image, Some(self.root), |_| ()).unwrap();
        TrustedVm::restore(&self.kvm, &key(), &self.image, Some(self.root)).unwrap();
    }

    /// Why `verify` refuses the image as it is now. Pinned or not, the answer is the same.
    fn verify_refuses(&self) -> (ImageError, String) {
        let refused = verify(&key(), &self.image, None, |_| ()).unwrap_err();
        let words = refused.to_string();
        let VerifyError::Image(ImageFileError::Image(why)) = refused else {
            panic!("refused for another reason: {words}")
        };
        (why, words)
    }

    /// Why both refuse it: no VM comes of it.
    fn both_refuse(&self) -> (ImageError, String) {
        let (why, words) = self.verify_refuses();
        match TrustedVm::restore(&self.kvm, &key(), &self.image, None) {
            Ok(_) => panic!("restored what verify refused: {words}"),
            Err(refused) => {
                assert_eq!(refused.to_string(), format!("{words}; nothing was restored"));
            }
        }
        (why, words)
    }

    fn flip(&self, bit: u64) {
        let mut byte = [0];
        self.image.read_exact_at(&mut byte, bit / 8).unwrap();
        byte[0] ^= 1 << (bit % 8);
        self.image.write_all_at(&byte, bit / 8).unwrap();
    }

    /// xorshift64*: below `limit`.
    fn roll(&mut self, limit: u64) -> u64 {
        self.dice ^= self.dice >> 12;
        self.dice ^= self.dice << 25;
        self.dice ^= self.dice >> 27;
        self.dice.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

/// What a flipped bit of the header leads to, by the table in the image's specification.
fn of_header(byte: u64, why: ImageError) -> bool {
    match byte {
        0..8 => why == ImageError::NotAnImage,
        8..12 => matches!(why, ImageError::UnknownFormat(_)),
        12 => matches!(why, ImageError::UnknownSuite(_)),
        16..40 | 48..96 => why == ImageError::WrongKey,
        _ => why == ImageError::HeaderForged,
    }
}

#[test]
fn an_image_cut_anywhere_is_refused_as_cut() {
    let Some(kvm) = kvm("an_image_cut_anywhere_is_refused_as_cut") else { return };
    let mut victim = Victim::new(kvm);
    let whole = victim.geometry.bytes();
    let mut cuts: Vec<u64> = (0..200).map(|_| 4096 + victim.roll(whole - 4096)).collect();
    cuts.extend([whole - 1, victim.geometry.trailer().start, victim.geometry.records().start]);
    cuts.extend([victim.geometry.state().start, victim.geometry.bodies().start]);
    cuts.extend(0..4096);
    cuts.sort_unstable();
    // From behind, so that each cut is one more cut.
    for cut in cuts.into_iter().rev() {
        victim.image.set_len(cut).unwrap();
        let (why, words) = victim.both_refuse();
        let expected = if cut < 4096 { 4096 } else { whole };
        assert_eq!(why, ImageError::Truncated { expected, found: cut }, "cut at {cut}");
        assert!(words.contains(&format!("cut short: {cut} bytes of {expected}")), "{words}");
    }
}

#[test]
fn an_image_with_bytes_behind_it_is_refused_as_too_long() {
    let Some(kvm) = kvm("an_image_with_bytes_behind_it_is_refused_as_too_long") else { return };
    let victim = Victim::new(kvm);
    let whole = victim.geometry.bytes();
    for found in [whole + 1, whole + 4096, whole * 2] {
        victim.image.set_len(found).unwrap();
        let (why, words) = victim.both_refuse();
        assert_eq!(why, ImageError::TooLong { expected: whole, found });
        assert!(words.contains(&format!("{found} bytes, but the image ends after")), "{words}");
    }
    victim.image.set_len(whole).unwrap();
    victim.is_accepted();
}

#[test]
fn every_flipped_bit_of_header_and_trailer_is_refused_by_its_name() {
    let Some(kvm) = kvm("every_flipped_bit_of_header_and_trailer_is_refused_by_its_name") else {
        return;
    };
    let victim = Victim::new(kvm);
    for bit in 0..4096 * 8 {
        victim.flip(bit);
        let (why, words) = victim.both_refuse();
        assert!(of_header(bit / 8, why), "bit {bit}: {words}");
        victim.flip(bit);
    }
    let trailer = victim.geometry.trailer();
    for bit in trailer.start * 8..trailer.end * 8 {
        victim.flip(bit);
        let (why, words) = victim.both_refuse();
        assert_eq!(why, ImageError::TrailerForged, "bit {bit}: {words}");
        victim.flip(bit);
    }
    victim.is_accepted();
}

#[test]
fn any_flipped_bit_of_records_state_and_pages_is_refused_by_its_name() {
    let Some(kvm) = kvm("any_flipped_bit_of_records_state_and_pages_is_refused_by_its_name") else {
        return;
    };
    let mut victim = Victim::new(kvm);
    let geometry = victim.geometry;
    for part in [geometry.records(), geometry.state(), geometry.bodies()] {
        for round in 0..150 {
            let bit = part.start * 8 + victim.roll((part.end - part.start) * 8);
            victim.flip(bit);
            // A restore that comes as far as the pages makes a whole machine first.
            let far = part == geometry.bodies() && round % 8 != 0;
            let (why, words) = if far { victim.verify_refuses() } else { victim.both_refuse() };
            let page = Gfn::new((bit / 8).saturating_sub(4096) / 4096).unwrap();
            let (expected, name) = if part == geometry.records() {
                (ImageError::RecordsForged, "the records were changed".to_owned())
            } else if part == geometry.state() {
                (ImageError::StateForged, "the state of CPUs and devices was changed".to_owned())
            } else {
                let name = format!("page {:#x} was changed", page.number());
                (ImageError::PageForged(page), name)
            };
            assert_eq!(why, expected, "bit {bit}");
            assert!(words.contains(&name), "{words}");
            victim.flip(bit);
        }
    }
    victim.is_accepted();
}

#[test]
fn two_pages_of_one_image_swapped_with_their_records_are_refused() {
    let Some(kvm) = kvm("two_pages_of_one_image_swapped_with_their_records_are_refused") else {
        return;
    };
    let victim = Victim::new(kvm);
    let swap = |a: u64, b: u64, bytes: usize| {
        let (mut one, mut two) = (vec![0; bytes], vec![0; bytes]);
        victim.image.read_exact_at(&mut one, a).unwrap();
        victim.image.read_exact_at(&mut two, b).unwrap();
        victim.image.write_all_at(&one, b).unwrap();
        victim.image.write_all_at(&two, a).unwrap();
    };
    let body = |page: u64| 4096 * (page + 1);
    swap(body(0x500), body(0x501), 4096);
    let gfn = Gfn::new(0x500).unwrap();
    assert_eq!(victim.both_refuse().0, ImageError::PageForged(gfn));
    let record = |page: u64| victim.geometry.records().start + 32 * page;
    swap(record(0x500), record(0x501), 32);
    assert_eq!(victim.both_refuse().0, ImageError::RecordsForged);
}

#[test]
fn an_older_image_and_a_vm_of_another_key_are_refused_where_a_root_is_pinned() {
    let name = "an_older_image_and_a_vm_of_another_key_are_refused_where_a_root_is_pinned";
    let Some(kvm) = kvm(name) else { return };
    let guest = Running::boot(&kvm, PAGES, Mode::Counter, |_| {});
    let (older, newer) = (guest.snapshot(), guest.snapshot());
    let older = file(&older.0);
    let restored = |root| TrustedVm::restore(&kvm, &key(), &older, root);
    let refused = restored(Some(newer.1.root)).unwrap_err().to_string();
    assert!(refused.contains("genuine, but not the pinned image"), "{refused}");
    assert!(restored(None).is_ok(), "unpinned, an old image is an image");
    let other = view_core::key::RootKey::new([8; 32]);
    let refused = TrustedVm::restore(&kvm, &other, &older, None).unwrap_err().to_string();
    assert!(refused.contains("another key's image"), "{refused}");
}
