//! What must hold of sealed images (spec/sealed-image.md).

mod forged;
mod sealed;
mod vectors;
mod writing;

use proptest::prelude::*;
use sealed::{content, gfn, header, mixed, private, restore, root_key, seal, tiny};
use view_core::image::{
    Geometry, Header, ImageError, ImageReader, ImageRoot, NotARoot, UnverifiedHeader,
};
use view_core::key::RootKey;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::whitelist::{
    EvidenceSource, Expiry, Leases, NoEvidence, Proposal, RestoredImage, RestoredPage, Rule,
};
use view_core::{Epoch, Frames, Page, PageState, Slot, Vm, VmConfig, VmId, VmNumber};

#[test]
fn what_was_sealed_comes_back_on_the_terms_it_had() {
    for (pages, state_len) in [(0, 0), (1, 1), (63, 4095), (64, 4096), (65, 4097), (4097, 70_000)] {
        let state = vec![0xa5; state_len];
        let image = seal(&header(pages, &state), mixed, &state);
        let restored = restore(&root_key(), &image.bytes, Some(image.root)).expect("genuine");
        assert_eq!(restored.header, header(pages, &state));
        assert_eq!(restored.state, state);
        assert_eq!(restored.root, image.root);
        assert_eq!(restored.pages.len() as u64, pages);
        for (page, (record, plain)) in (0..).zip(&restored.pages) {
            let terms = mixed(page);
            assert_eq!(record.gfn(), gfn(page));
            assert_eq!(record.state(), terms.state);
            assert_eq!(record.version().number(), terms.version);
            assert_eq!(record.excluded(), terms.excluded);
            assert_eq!(plain.bytes(), content(page, terms).bytes(), "page {page} of {pages}");
        }
    }
}

#[test]
fn one_page_is_opened_without_the_bodies_of_the_others() {
    let mut image = seal(&header(70, b""), private, b"");
    let reader = ImageReader::open(&root_key(), &image.bytes, None).expect("genuine");
    let kept = sealed::part(&image.bytes, &reader.geometry().body(gfn(66)).expect("there"));
    let bodies = reader.geometry().bodies();
    image.bytes[bodies.start as usize..bodies.end as usize].fill(0);
    let (records, trailer) = sealed::tables(&reader, &image.bytes);
    let manifest = reader.verify(&records, &trailer, None).expect("genuine");
    let record = manifest.record(gfn(66)).expect("there");
    assert_eq!(manifest.record(gfn(70)), None);
    let (mut body, mut plain) = (Page::zeroed(), Page::zeroed());
    body.bytes_mut().copy_from_slice(&kept);
    let cipher = SivCmac512::new(&reader.page_key());
    assert_eq!(record.open(&cipher, &body, &mut plain), Ok(()));
    assert_eq!(plain.bytes(), content(66, private(66)).bytes());
    let another = manifest.record(gfn(65)).expect("there");
    assert_eq!(another.open(&cipher, &body, &mut plain), Err(ImageError::PageForged(gfn(65))));
    assert_eq!(plain.bytes(), Page::zeroed().bytes(), "nothing of it was kept");
}

#[test]
fn an_image_shows_nothing_of_its_pages_and_state() {
    let state = [0xa5; 5000];
    let image = seal(&header(9, &state), private, &state);
    let shows = |secret: &[u8]| image.bytes.windows(secret.len()).any(|bytes| bytes == secret);
    assert!(!shows(&state[..16]));
    for page in 0..9 {
        assert!(!shows(&content(page, private(page)).bytes()[..16]));
    }
}

#[test]
fn another_key_opens_nothing_and_a_header_is_readable_without_one() {
    let image = tiny();
    let stranger = RootKey::new([0xff; 32]);
    assert_eq!(restore(&stranger, &image.bytes, None).err(), Some(ImageError::WrongKey));
    let seen = UnverifiedHeader::parse(&image.bytes).expect("readable");
    assert_eq!(seen.claims, header(2, b"vcpu"));
    let key = sealed::epoch_key(&root_key(), &seen.claims);
    assert!(key.commitment_matches(&seen.commitment));
}

#[test]
fn a_pinned_root_refuses_every_other_image_of_the_same_vm() {
    let old = tiny();
    let mut later = header(2, b"vcpu");
    later.sequence += 1;
    let new = seal(&later, mixed, b"vcpu");
    assert_ne!(old.root, new.root, "even if nothing but the sequence differs");
    assert!(restore(&root_key(), &new.bytes, Some(new.root)).is_ok());
    let refused = restore(&root_key(), &old.bytes, Some(new.root)).err();
    assert_eq!(refused, Some(ImageError::NotPinned));
}

#[test]
fn equal_pages_of_two_epochs_or_vms_look_different() {
    let first = header(2, b"");
    let second = Header { epoch: Epoch(9), ..first };
    let third = Header { vm: VmId([1; 16]), ..first };
    let bodies = [first, second, third].map(|header| {
        let image = seal(&header, private, b"");
        sealed::part(&image.bytes, &Geometry::new(2, 0).expect("small").bodies())
    });
    let [a, b, c] = &bodies;
    assert!(a != b && b != c && a != c);
}

#[test]
fn a_root_is_printed_and_read_as_hex() {
    let root = ImageRoot(std::array::from_fn(|index| index as u8));
    assert_eq!(root.to_string(), "000102030405060708090a0b0c0d0e0f");
    assert_eq!(root.to_string().parse(), Ok(root));
    for text in ["", "00", "+00102030405060708090a0b0c0d0e0f", "0x0102030405060708090a0b0c0d0e0f"] {
        assert_eq!(text.parse::<ImageRoot>(), Err(NotARoot), "{text}");
    }
}

#[test]
fn places_follow_from_the_header_and_never_overflow() {
    let geometry = Geometry::new(3, 4097).expect("small");
    assert_eq!(geometry.body(gfn(2)), Some(3 * 4096..4 * 4096));
    assert_eq!(geometry.body(gfn(3)), None);
    assert_eq!(geometry.state(), 4 * 4096..6 * 4096);
    assert_eq!(geometry.records(), 6 * 4096..6 * 4096 + 96);
    assert_eq!(geometry.trailer(), 6 * 4096 + 96..6 * 4096 + 144);
    let largest = Geometry::new(Geometry::PAGES_MAX, Geometry::STATE_MAX).expect("allowed");
    let exact = 4096 + (1_u128 << 40) * (4096 + 32) + (1 << 32) + 48;
    assert_eq!(u128::from(largest.bytes()), exact);
    let pages = Geometry::PAGES_MAX + 1;
    assert_eq!(Geometry::new(pages, 0), Err(ImageError::TooManyPages(pages)));
    let bytes = Geometry::STATE_MAX + 1;
    assert_eq!(Geometry::new(0, bytes), Err(ImageError::StateTooLong(bytes)));
}

#[test]
fn a_page_that_was_open_is_evidence_and_a_private_one_is_not() {
    let image = seal(&header(5, b""), mixed, b"");
    let restored = restore(&root_key(), &image.bytes, None).expect("genuine");
    let slots = [const { Slot::new() }; 4];
    let config = VmConfig {
        number: VmNumber(3),
        epoch: Epoch(restored.header.epoch.0 + 1),
        pages: 4,
        slots: &slots,
        frames: Frames::new(&[]),
        leases: Leases::new(&[]),
        masks: &[],
        replicas_max: 0,
    };
    let vm = Vm::new(config).expect("large enough");
    for (record, _) in restored.pages {
        let page = record.gfn();
        let inferred = RestoredImage.infer(&vm, &RestoredPage { record });
        assert_eq!(inferred.is_ok(), page.number() < 4, "{page:?}");
        match (inferred, record.state()) {
            (
                Ok(Proposal::Share { evidence, gfn, perm, mask, expiry }),
                PageState::Open { kind, perm: had_perm, mask: had_mask },
            ) => {
                assert!(evidence.is_about(&vm, page));
                assert_eq!((evidence.source(), expiry), (EvidenceSource::Image, Expiry::Never));
                assert_eq!((gfn, evidence.kind(), perm, mask), (page, kind, had_perm, had_mask));
            }
            (Ok(Proposal::Unshare { gfn }), PageState::Private) => assert_eq!(gfn, page),
            (Err(NoEvidence::NoSuchPage(4)), _) => assert_eq!(page.number(), 4),
            (inferred, state) => panic!("{inferred:?} from {state:?}"),
        }
    }
}

#[test]
fn every_refusal_says_what_is_wrong_and_where() {
    let (expected, found) = (4096, 17);
    let refusals = [
        (ImageError::NotAnImage, "not a sealed image"),
        (ImageError::UnknownFormat(9), "format 9"),
        (ImageError::UnknownSuite(9), "suite 9"),
        (ImageError::WrongKey, "key"),
        (ImageError::HeaderForged, "the header was changed"),
        (ImageError::Reserved(112), "byte 112"),
        (ImageError::TooManyPages(5), "5 pages"),
        (ImageError::StateTooLong(5), "5 bytes of state"),
        (ImageError::Truncated { expected, found }, "cut short: 17 bytes of 4096"),
        (ImageError::TooLong { expected: 17, found: 4096 }, "ends after 17"),
        (ImageError::WrongBuffer { expected, found }, "17 bytes for a part of 4096"),
        (ImageError::TrailerForged, "the trailer was changed"),
        (ImageError::NotPinned, "not the pinned image"),
        (ImageError::RecordsForged, "the records were changed"),
        (ImageError::BadRecord(gfn(0x2a)), "page 0x2a"),
        (ImageError::StateForged, "the state of CPUs and devices was changed"),
        (ImageError::PageForged(gfn(0x2a)), "page 0x2a was changed"),
        (ImageError::OutOfOrder(gfn(0x2a)), "page 0x2a is not the next"),
        (ImageError::NotForThisImage(gfn(0x2a)), "page 0x2a was not sealed for"),
        (ImageError::Unfinished { recorded: 1, pages: 3 }, "only 1 of 3 pages"),
    ];
    for (refusal, said) in refusals {
        let text = refusal.to_string();
        assert!(text.contains(said), "{text}");
        assert!(!text.contains("  ") && !text.contains('\n'), "{text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..6000),
        like_an_image: bool,
        length: Option<u64>,
    ) {
        let mut bytes = bytes;
        if like_an_image {
            for (byte, magic) in bytes.iter_mut().zip(b"PAGEVEIL\x01\0\0\0\x01") {
                *byte = *magic;
            }
        }
        let _ = UnverifiedHeader::parse(&bytes).map(|seen| seen.claims.geometry());
        prop_assert!(ImageReader::open(&root_key(), &bytes, length).is_err());
    }

    #[test]
    fn bytes_of_two_images_mixed_are_refused(
        start in 0_usize..16_496,
        length in 1_usize..9000,
    ) {
        let mut later = header(2, b"vcpu");
        later.sequence += 1;
        let (ours, theirs) = (tiny().bytes, seal(&later, private, b"vcpu").bytes);
        let end = (start + length).min(ours.len());
        let mut mixed = ours.clone();
        mixed[start..end].copy_from_slice(&theirs[start..end]);
        prop_assume!(mixed != ours && mixed != theirs);
        prop_assert!(sealed::refusal(&mixed).is_some());
    }
}
