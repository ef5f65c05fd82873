//! What must hold of sealing and of keys for all inputs, tried on many.

mod common;

use aes::Aes256Enc;
use aes_siv::siv::Aes256Siv;
use cipher::KeyInit;
use cmac::{Cmac, Mac};
use common::{any_id, noise};
use proptest::prelude::*;
use view_core::key::{Advice, EpochKey, RootKey, Salt, SivKey, Spent, StateKey, StreamId};
use view_core::key::{ManifestKey, VmKey, Wear, WrongLength};
use view_core::suite::siv::{NotGenuine, Siv256, Siv512};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Stream, SuiteId, Tag};
use view_core::{Epoch, Gfn, MaskId, PAGE_SIZE, Page, PageKind, Perm, Version, VmId};
use zeroize::ZeroizeOnDrop;

fn any_key() -> impl Strategy<Value = SivKey> {
    (any::<[u8; 32]>(), any::<[u8; 32]>())
        .prop_map(|(mac, ctr)| SivKey::new([mac, ctr].concat().try_into().expect("64 bytes")))
}

/// Seals with the suite under test, all pages in one list.
fn sealed(key: &SivKey, ids: &[PageId], plain: &[Page]) -> (Vec<Page>, Vec<Tag>) {
    let mut pages = vec![Page::zeroed(); plain.len()];
    let mut jobs: Vec<_> = ids
        .iter()
        .zip(plain)
        .zip(&mut pages)
        .map(|((id, plain), sealed)| SealJob::new(*id, plain, sealed))
        .collect();
    SivCmac512::new(key).seal(&mut jobs, Landing::Hot);
    let tags = jobs.iter().map(SealJob::tag).collect();
    (pages, tags)
}

/// Opens one page into what held noise before.
fn opened(key: &SivKey, id: PageId, sealed: &Page, tag: Tag) -> (bool, Page) {
    let mut plain = noise(9);
    let mut jobs = [OpenJob::new(id, sealed, tag, &mut plain)];
    SivCmac512::new(key).open(&mut jobs, Landing::Hot);
    let genuine = jobs[0].genuine();
    (genuine, plain)
}

fn refused(key: &SivKey, id: PageId, sealed: &Page, tag: Tag) -> bool {
    let (genuine, plain) = opened(key, id, sealed, tag);
    !genuine && plain.bytes().iter().all(|byte| *byte == 0)
}

/// The `aes-siv` crate's word on the same bytes.
fn by_aes_siv(key: &[u8; 64], ad: &[&[u8]], plain: &[u8]) -> (Vec<u8>, Tag) {
    let mut buf = plain.to_vec();
    let mut siv = Aes256Siv::new(key.into());
    let tag = siv.encrypt_inout_detached(ad, buf.as_mut_slice().into()).expect("few strings");
    (buf, tag.into())
}

/// Every id that differs from this one in one field.
fn neighbours(id: PageId) -> [PageId; 8] {
    let gfn = Gfn::new(id.gfn.number() ^ 1).expect("in range");
    let version = Version::new(id.version.number() ^ (1 << 55)).expect("in range");
    let perm = if id.perm == Perm::Read { Perm::ReadWrite } else { Perm::Read };
    let mask = MaskId::new(id.mask.number() ^ 1).expect("in range");
    let stream = if id.stream == Stream::View { Stream::Image } else { Stream::View };
    [
        PageId { gfn, ..id },
        PageId { version, ..id },
        PageId { epoch: Epoch(id.epoch.0 ^ 1), ..id },
        PageId { kind: PageKind(id.kind.0 ^ 0x80), ..id },
        PageId { perm, ..id },
        PageId { mask, ..id },
        PageId { stream, ..id },
        PageId { excluded: !id.excluded, ..id },
    ]
}

proptest! {
    #[test]
    fn the_page_suite_is_siv_bit_for_bit_in_lists_of_any_length(
        key in any_key(),
        ids in prop::collection::vec(any_id(), 0..=130),
        seed: u64,
    ) {
        let plain: Vec<_> = (seed..).map(noise).take(ids.len()).collect();
        let (pages, tags) = sealed(&key, &ids, &plain);
        let siv = Siv512::new(key.expose());
        for (((id, plain), page), tag) in ids.iter().zip(&plain).zip(&pages).zip(&tags) {
            let ad = id.associated_data(SuiteId(1));
            let mut buf = *plain.bytes();
            prop_assert_eq!(*tag, siv.seal(&[&ad], &mut buf));
            prop_assert!(page.bytes() == &buf);
            prop_assert!((buf.to_vec(), *tag) == by_aes_siv(key.expose(), &[&ad], plain.bytes()));
        }
    }

    #[test]
    fn what_was_sealed_opens_and_a_bad_page_spoils_no_other(
        key in any_key(),
        ids in prop::collection::vec(any_id(), 1..=130),
        seed: u64,
        bad: prop::sample::Index,
    ) {
        let plain: Vec<_> = (seed..).map(noise).take(ids.len()).collect();
        let (pages, mut tags) = sealed(&key, &ids, &plain);
        let bad = bad.index(ids.len());
        tags[bad][15] ^= 1;
        let mut opened = vec![noise(9); ids.len()];
        let mut jobs: Vec<_> = ids
            .iter()
            .zip(pages.iter().zip(&tags))
            .zip(&mut opened)
            .map(|((id, (sealed, tag)), plain)| {
                OpenJob::new(*id, sealed, *tag, plain)
            })
            .collect();
        SivCmac512::new(&key).open(&mut jobs, Landing::Hot);
        let verdicts: Vec<_> = jobs.iter().map(OpenJob::genuine).collect();
        for (at, (page, genuine)) in opened.iter().zip(verdicts).enumerate() {
            prop_assert_eq!(genuine, at != bad);
            let expected = if genuine { *plain[at].bytes() } else { [0; PAGE_SIZE] };
            prop_assert!(*page.bytes() == expected);
        }
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused_and_leaves_zeroes(
        key in any_key(),
        id in any_id(),
        seed: u64,
        bit in 0..4096_usize * 8,
    ) {
        let (mut pages, tags) = sealed(&key, &[id], &[noise(seed)]);
        let (page, tag) = (&mut pages[0], tags[0]);
        for bit in 0..128 {
            let mut tag = tag;
            tag[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(refused(&key, id, page, tag), "bit {} of the tag", bit);
        }
        for other in neighbours(id) {
            prop_assert!(refused(&key, other, page, tag), "{:?}", other);
        }
        page.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(refused(&key, id, page, tag), "bit {} of the body", bit);
        page.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(opened(&key, id, page, tag).0);
    }

    #[test]
    fn a_page_of_another_suite_or_key_is_refused(
        key in any_key(),
        id in any_id(),
        seed: u64,
        bit in 0..64_usize * 8,
    ) {
        let mut page = noise(seed);
        let ad = id.associated_data(SuiteId(2));
        let tag = Siv512::new(key.expose()).seal(&[&ad], page.bytes_mut());
        prop_assert!(refused(&key, id, &page, tag));
        let mut other = *key.expose();
        other[bit / 8] ^= 1 << (bit % 8);
        let (pages, tags) = sealed(&key, &[id], &[noise(seed)]);
        prop_assert!(refused(&SivKey::new(other), id, &pages[0], tags[0]));
    }

    #[test]
    fn general_siv_is_that_of_aes_siv_for_any_length_and_strings(
        key in any_key(),
        a in prop::collection::vec(any::<u8>(), 0..70),
        b in prop::collection::vec(any::<u8>(), 0..70),
        text in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let siv = Siv512::new(key.expose());
        let mut bufs = [text.clone(), text.clone(), text.clone()];
        let [none, one, two] = &mut bufs;
        let tags = [siv.seal(&[], none), siv.seal(&[&a], one), siv.seal(&[&a, &b], two)];
        let lists: [&[&[u8]]; 3] = [&[], &[&a], &[&a, &b]];
        for ((buf, tag), ad) in bufs.iter().zip(tags).zip(lists) {
            prop_assert_eq!((buf.clone(), tag), by_aes_siv(key.expose(), ad, &text));
        }
        let [none, one, two] = &mut bufs;
        prop_assert_eq!(siv.open(&[], none, &tags[0]), Ok(()));
        prop_assert_eq!(siv.open(&[&b, &a], two, &tags[2]).is_ok(), a == b);
        prop_assert_eq!(siv.open(&[&a, &[]], one, &tags[1]), Err(NotGenuine));
        prop_assert_eq!(&*none, &text);
        prop_assert!(one.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn keys_are_what_the_sentence_of_sp_800_108_says(
        root: [u8; 32],
        vm: [u8; 16],
        epoch: u64,
        salt: [u8; 16],
        suite: u8,
        stream: [u8; 16],
    ) {
        let context = [&epoch.to_be_bytes()[..], &salt, &[suite]].concat();
        let vm_key = RootKey::new(root).vm(&VmId(vm));
        prop_assert_eq!(&vm_key.expose()[..], kdf(&root, "hv-page/vm/1", &vm, 256));
        let epoch_key = vm_key.epoch(Epoch(epoch), &Salt(salt), SuiteId(suite));
        let (vm_key, k) = (vm_key.expose(), epoch_key.expose());
        prop_assert_eq!(&k[..], kdf(vm_key, "hv-page/epoch/1", &context, 256));
        let siv = epoch_key.siv(StreamId(stream));
        prop_assert_eq!(&siv.expose()[..], kdf(k, "hv-page/siv/1", &stream, 512));
        let (manifest, state) = (epoch_key.manifest(), epoch_key.state());
        prop_assert_eq!(&manifest.expose()[..], kdf(k, "hv-page/manifest/1", &[], 256));
        prop_assert_eq!(&state.expose()[..], kdf(k, "hv-page/state/1", &[], 512));
    }

    #[test]
    fn a_commitment_fits_its_key_and_no_other(key: [u8; 32], bit in 0..256_usize) {
        let commitment = EpochKey::new(key).commitment();
        prop_assert!(EpochKey::new(key).commitment_matches(&commitment));
        let mut other = key;
        other[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!EpochKey::new(other).commitment_matches(&commitment));
        let mut wrong = commitment;
        wrong[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!EpochKey::new(key).commitment_matches(&wrong));
    }

    #[test]
    fn no_two_keys_of_the_hierarchy_share_a_half(key: [u8; 32], name: [u8; 16], salt: [u8; 16]) {
        let (vm, epoch) = (VmKey::new(key), EpochKey::new(key));
        let streams = [Stream::View, Stream::Resident, Stream::Image].map(Stream::id);
        let mut halves = vec![
            RootKey::new(key).vm(&VmId(name)).expose().to_vec(),
            vm.epoch(Epoch(1), &Salt(salt), SuiteId(1)).expose().to_vec(),
            vm.epoch(Epoch(2), &Salt(salt), SuiteId(1)).expose().to_vec(),
            vm.epoch(Epoch(1), &Salt(salt.map(|byte| !byte)), SuiteId(1)).expose().to_vec(),
            vm.epoch(Epoch(1), &Salt(salt), SuiteId(2)).expose().to_vec(),
            epoch.manifest().expose().to_vec(),
            epoch.commitment().to_vec(),
        ];
        let long = streams.map(|stream| *epoch.siv(stream).expose());
        for key in long.iter().chain([epoch.siv(StreamId(name)).expose(), epoch.state().expose()]) {
            halves.extend(key.chunks(32).map(<[u8]>::to_vec));
        }
        let count = halves.len();
        halves.sort();
        halves.dedup();
        prop_assert_eq!(halves.len(), count);
    }
}

/// The KDF once more, straight from the sentence.
fn kdf(key: &[u8; 32], label: &str, context: &[u8], bits: u32) -> Vec<u8> {
    let prf = |message: &[u8]| {
        let mac = Cmac::<Aes256Enc>::new(key.into());
        mac.chain_update(message).finalize().into_bytes().to_vec()
    };
    let fixed = [label.as_bytes(), &[0], context, &bits.to_be_bytes()].concat();
    let k0 = prf(&fixed);
    (1..=bits / 128).flat_map(|i| prf(&[&i.to_be_bytes()[..], &fixed, &k0].concat())).collect()
}

#[test]
fn a_root_key_has_32_bytes() {
    for length in [0, 16, 31, 33, 64] {
        let answer = RootKey::try_from(&vec![7; length][..]);
        assert_eq!(answer.err(), Some(WrongLength(length)));
    }
    assert!(RootKey::try_from(&[7; 32][..]).is_ok());
}

#[test]
fn whatever_holds_a_secret_wipes_it_when_dropped() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<RootKey>();
    wiped::<VmKey>();
    wiped::<EpochKey>();
    wiped::<SivKey>();
    wiped::<ManifestKey>();
    wiped::<StateKey>();
    wiped::<Siv256>();
    wiped::<Siv512>();
    wiped::<SivCmac512>();
}

#[test]
fn nothing_secret_prints() {
    let key = SivKey::new([0xa5; 64]);
    let printed = format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        RootKey::new([0xa5; 32]),
        VmKey::new([0xa5; 32]),
        EpochKey::new([0xa5; 32]),
        ManifestKey::new([0xa5; 32]),
        StateKey::new([0xa5; 64]),
        Siv512::new(key.expose()),
        SivCmac512::new(&key),
        key,
    );
    let names = "RootKey(..) VmKey(..) EpochKey(..) ManifestKey(..) StateKey(..) Siv(..) \
                 SivCmac512(..) SivKey(..)";
    assert_eq!(printed, names);
}

#[test]
fn a_key_asks_to_be_replaced_and_then_stops() {
    let fresh = Wear::default();
    assert_eq!(fresh.add(Wear::REKEY - 1).map(|(_, advice)| advice), Ok(Advice::Fresh));
    let (worn, advice) = fresh.add(Wear::REKEY).expect("far from the end");
    assert_eq!(advice, Advice::Rekey);
    let (last, advice) = worn.add(Wear::STOP - Wear::REKEY).expect("exactly the end");
    assert_eq!(advice, Advice::Rekey);
    assert_eq!(last.add(0).map(|(_, advice)| advice), Ok(Advice::Rekey));
    assert_eq!(last.add(1), Err(Spent));
    assert_eq!(last.add(u64::MAX), Err(Spent));
}
