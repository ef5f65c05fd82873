//! What must hold of the suites that seal each version once, on every backend of this machine.

mod common;

use std::io::Write;

use aes_gcm::{AeadInOut, KeyInit};
use cmac::{Cmac, Mac};
use common::{any_id, noise};
use proptest::prelude::*;
use view_core::key::{AegisKey, EpochKey, GcmKey, StreamId};
use view_core::suite::aegis::AegisX4;
use view_core::suite::aegis_128x4::Aegis128X4;
use view_core::suite::aes_256_gcm::Aes256Gcm;
use view_core::suite::gcm::Gcm256;
use view_core::suite::sequence::{Once, Sequence};
use view_core::suite::{Backend, Landing, OpenJob, PageCipher, PageId, SealJob, Stream, Tag};
use view_core::{Epoch, Gfn, MaskId, PAGE_SIZE, Page, PageKind, Perm, Version};
use zeroize::ZeroizeOnDrop;

/// A suite under test, and somebody else's word on what it should do.
trait Bulk: PageCipher<Id = Once> + Sized + ZeroizeOnDrop + std::fmt::Debug {
    fn on(key: [u8; 32], backend: Backend) -> Option<(Self, Sequence)>;
    fn best(key: [u8; 32]) -> (Self, Sequence);
    fn opener(key: [u8; 32]) -> Self;
    fn backend(&self) -> Backend;
    /// By a crate that is not ours.
    fn oracle(key: [u8; 32], id: &PageId, plain: &Page) -> (Page, Tag);
    /// By our own code for bytes of any length.
    fn general(key: [u8; 32], id: &PageId, plain: &Page) -> (Page, Tag);
}

/// Number and version as GCM is given them: 40 bits and 56.
fn gcm_nonce(id: &PageId) -> [u8; 12] {
    let (gfn, version) = (id.gfn.number().to_be_bytes(), id.version.number().to_be_bytes());
    [&gfn[3..], &version[1..]].concat().try_into().expect("12 bytes")
}

impl Bulk for Aes256Gcm {
    fn on(key: [u8; 32], backend: Backend) -> Option<(Self, Sequence)> {
        Self::with_backend(GcmKey::new(key), backend)
    }

    fn best(key: [u8; 32]) -> (Self, Sequence) {
        Self::new(GcmKey::new(key))
    }

    fn opener(key: [u8; 32]) -> Self {
        Self::opener(&GcmKey::new(key))
    }

    fn backend(&self) -> Backend {
        self.backend()
    }

    fn oracle(key: [u8; 32], id: &PageId, plain: &Page) -> (Page, Tag) {
        let (mut page, ad) = (plain.clone(), id.associated_data(Self::SUITE));
        let gcm = aes_gcm::Aes256Gcm::new(&key.into());
        let buf = page.bytes_mut().as_mut_slice().into();
        let tag = gcm.encrypt_inout_detached(&gcm_nonce(id).into(), &ad, buf).expect("short");
        (page, tag.into())
    }

    fn general(key: [u8; 32], id: &PageId, plain: &Page) -> (Page, Tag) {
        let (mut page, ad) = (plain.clone(), id.associated_data(Self::SUITE));
        let tag = Gcm256::new(&key).seal(&gcm_nonce(id), &ad, page.bytes_mut()).expect("short");
        (page, tag)
    }
}

/// Number and version as AEGIS is given them: 64 bits each.
fn aegis_nonce(id: &PageId) -> [u8; 16] {
    let words = [id.gfn.number().to_be_bytes(), id.version.number().to_be_bytes()];
    words.concat().try_into().expect("16 bytes")
}

fn half(key: [u8; 32]) -> [u8; 16] {
    key[..16].try_into().expect("16 bytes")
}

impl Bulk for Aegis128X4 {
    fn on(key: [u8; 32], backend: Backend) -> Option<(Self, Sequence)> {
        Self::with_backend(AegisKey::new(half(key)), backend)
    }

    fn best(key: [u8; 32]) -> (Self, Sequence) {
        Self::new(AegisKey::new(half(key)))
    }

    fn opener(key: [u8; 32]) -> Self {
        Self::opener(&AegisKey::new(half(key)))
    }

    fn backend(&self) -> Backend {
        self.backend()
    }

    fn oracle(key: [u8; 32], id: &PageId, plain: &Page) -> (Page, Tag) {
        let (mut page, ad) = (plain.clone(), id.associated_data(Self::SUITE));
        let aegis = aegis::aegis128x4::Aegis128X4::<16>::new(&half(key), &aegis_nonce(id));
        let tag = aegis.encrypt_in_place(page.bytes_mut(), &ad);
        (page, tag)
    }

    fn general(key: [u8; 32], id: &PageId, plain: &Page) -> (Page, Tag) {
        let (mut page, ad) = (plain.clone(), id.associated_data(Self::SUITE));
        let tag = AegisX4::new(&half(key)).seal(&aegis_nonce(id), &ad, page.bytes_mut());
        (page, tag)
    }
}

const LANDINGS: [Landing; 2] = [Landing::Hot, Landing::Cold];

/// The backends of both suites that this machine can run.
fn backends() -> Vec<Backend> {
    let all = [Backend::Portable, Backend::Vaes512];
    all.into_iter().filter(|backend| backend.runs_here()).collect()
}

/// What a suite makes of a list: the ids with their versions, the sealed pages, the tags.
type Sealed = (Vec<PageId>, Vec<Page>, Vec<Tag>);

fn sealed<C: Bulk>(
    (cipher, sequence): &mut (C, Sequence),
    ids: &[PageId],
    plain: &[Page],
    landing: Landing,
) -> Sealed {
    let mut pages = vec![noise(9); plain.len()];
    let jobs = ids.iter().zip(plain).zip(&mut pages).map(|((id, plain), sealed)| {
        let (once, _) = sequence.next(*id).expect("a fresh key");
        SealJob::new(once, plain, sealed)
    });
    let mut jobs: Vec<_> = jobs.collect();
    cipher.seal(&mut jobs, landing);
    let (ids, tags) = jobs.iter().map(|job| (*job.id(), job.tag())).unzip();
    (ids, pages, tags)
}

/// Opens a list into pages that held noise before.
fn opened<C: Bulk>(cipher: &C, (ids, pages, tags): &Sealed, landing: Landing) -> Vec<(bool, Page)> {
    let mut plain = vec![noise(9); pages.len()];
    let jobs = ids.iter().zip(pages).zip(tags).zip(&mut plain);
    let jobs = jobs.map(|(((id, sealed), tag), plain)| OpenJob::new(*id, sealed, *tag, plain));
    let mut jobs: Vec<_> = jobs.collect();
    cipher.open(&mut jobs, landing);
    let verdicts: Vec<_> = jobs.iter().map(OpenJob::genuine).collect();
    verdicts.into_iter().zip(plain).collect()
}

fn wiped(page: &Page) -> bool {
    page.bytes().iter().all(|byte| *byte == 0)
}

/// Lists of any length, from any place of a larger one: what is sealed is the oracle's.
fn seals_as_the_oracle<C: Bulk>(key: [u8; 32], ids: &[PageId], skip: usize, seed: u64) {
    let plain: Vec<_> = (seed..).map(noise).take(ids.len()).collect();
    let (ids, plain) = (&ids[skip.min(ids.len())..], &plain[skip.min(ids.len())..]);
    for backend in backends() {
        let mut made = C::on(key, backend).expect("it runs here");
        assert_eq!(made.0.backend(), backend);
        for (landing, start) in LANDINGS.into_iter().zip([0, ids.len()]) {
            let (ids, pages, tags) = sealed(&mut made, ids, plain, landing);
            for (at, (id, plain)) in ids.iter().zip(plain).enumerate() {
                let version = u64::try_from(start + at + 1).expect("few");
                assert_eq!(id.version.number(), version, "not the next version");
                for (page, tag) in [C::oracle(key, id, plain), C::general(key, id, plain)] {
                    assert!(pages[at].bytes() == page.bytes(), "{backend:?} {landing:?}: {at}");
                    assert_eq!(tags[at], tag, "{backend:?} {landing:?}: {at}");
                }
            }
        }
    }
}

/// Pages that somebody else sealed, under any version: they open, but for one that was changed.
fn opens_what_the_oracle_sealed<C: Bulk>(key: [u8; 32], ids: &[PageId], bad: usize, seed: u64) {
    let plain: Vec<_> = (seed..).map(noise).take(ids.len()).collect();
    let (pages, mut tags): (Vec<_>, Vec<_>) =
        ids.iter().zip(&plain).map(|(id, plain)| C::oracle(key, id, plain)).unzip();
    tags[bad][15] ^= 1;
    let list = (ids.to_vec(), pages, tags);
    for backend in backends() {
        let (cipher, _) = C::on(key, backend).expect("it runs here");
        for landing in LANDINGS {
            for (at, (genuine, page)) in opened(&cipher, &list, landing).iter().enumerate() {
                assert_eq!(*genuine, at != bad, "{backend:?} {landing:?}: {at}");
                let expected = if at == bad { [0; PAGE_SIZE] } else { *plain[at].bytes() };
                assert!(*page.bytes() == expected, "{backend:?} {landing:?}: {at}");
            }
        }
    }
}

/// Every id that differs from this one in one field.
fn neighbours(id: PageId) -> [PageId; 8] {
    let gfn = Gfn::new(id.gfn.number() ^ (1 << 39)).expect("in range");
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

/// One changed bit of a list of three, in the one in the middle.
fn refuses_one_flipped_bit<C: Bulk>(key: [u8; 32], ids: &[PageId], seed: u64, bit: usize) {
    let plain = [noise(seed), noise(seed ^ 2), noise(seed ^ 4)];
    for (backend, landing) in backends().into_iter().flat_map(|b| LANDINGS.map(|l| (b, l))) {
        let mut made = C::on(key, backend).expect("it runs here");
        let good = sealed(&mut made, ids, &plain, landing);
        let refused = |list: &Sealed, what: &str| {
            let answer = opened(&made.0, list, landing);
            let [(first, one), (second, two), (third, three)] = &answer[..] else { unreachable!() };
            assert!(!second && wiped(two), "{backend:?} {landing:?}: {what} {bit}");
            assert!(*first && one.bytes() == plain[0].bytes(), "{what} {bit}");
            assert!(*third && three.bytes() == plain[2].bytes(), "{what} {bit}");
        };
        for bit in 0..128 {
            let mut list = good.clone();
            list.2[1][bit / 8] ^= 1 << (bit % 8);
            refused(&list, "the tag");
        }
        for other in neighbours(good.0[1]) {
            let mut list = good.clone();
            list.0[1] = other;
            refused(&list, "the id");
        }
        let mut list = good.clone();
        list.1[1].bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        refused(&list, "the body");
        let mut other = key;
        other[bit % 128 / 8] ^= 1 << (bit % 8);
        let (stranger, _) = C::on(other, backend).expect("it runs here");
        for (genuine, page) in opened(&stranger, &good, landing) {
            assert!(!genuine && wiped(&page), "another key");
        }
        assert!(opened(&made.0, &good, landing).iter().all(|(genuine, _)| *genuine));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_backend_seals_bit_for_bit_what_others_seal(
        key: [u8; 32],
        ids in prop::collection::vec(any_id(), 0..=130),
        skip in 0..4_usize,
        seed: u64,
    ) {
        seals_as_the_oracle::<Aes256Gcm>(key, &ids, skip, seed);
        seals_as_the_oracle::<Aegis128X4>(key, &ids, skip, seed);
    }

    #[test]
    fn every_backend_opens_what_others_sealed_and_a_bad_page_spoils_no_other(
        key: [u8; 32],
        ids in prop::collection::vec(any_id(), 1..=130),
        bad: prop::sample::Index,
        seed: u64,
    ) {
        opens_what_the_oracle_sealed::<Aes256Gcm>(key, &ids, bad.index(ids.len()), seed);
        opens_what_the_oracle_sealed::<Aegis128X4>(key, &ids, bad.index(ids.len()), seed);
    }

    #[test]
    fn one_flipped_bit_anywhere_is_refused_and_leaves_zeroes(
        key: [u8; 32],
        ids in prop::collection::vec(any_id(), 3),
        seed: u64,
        bit in 0..PAGE_SIZE * 8,
    ) {
        refuses_one_flipped_bit::<Aes256Gcm>(key, &ids, seed, bit);
        refuses_one_flipped_bit::<Aegis128X4>(key, &ids, seed, bit);
    }

    #[test]
    fn texts_of_any_length_are_sealed_as_others_seal_them(
        key: [u8; 32],
        nonce: [u8; 16],
        ad in prop::collection::vec(any::<u8>(), 0..300),
        text in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let (mut ours, mut theirs) = (text.clone(), text.clone());
        let short: [u8; 12] = nonce[..12].try_into().expect("12 bytes");
        let tag = Gcm256::new(&key).seal(&short, &ad, &mut ours).expect("short");
        let gcm = aes_gcm::Aes256Gcm::new(&key.into());
        let buf = theirs.as_mut_slice().into();
        let their_tag = gcm.encrypt_inout_detached(&short.into(), &ad, buf).expect("short");
        prop_assert_eq!((&ours, tag), (&theirs, their_tag.into()));
        prop_assert_eq!(Gcm256::new(&key).open(&short, &ad, &mut ours, &tag), Ok(()));
        prop_assert_eq!(&ours, &text);

        let key = half(key);
        let tag = AegisX4::new(&key).seal(&nonce, &ad, &mut ours);
        let aegis = aegis::aegis128x4::Aegis128X4::<16>::new(&key, &nonce);
        theirs.clone_from(&text);
        let their_tag = aegis.encrypt_in_place(&mut theirs, &ad);
        prop_assert_eq!((&ours, tag), (&theirs, their_tag));
        prop_assert_eq!(AegisX4::new(&key).open(&nonce, &ad, &mut ours, &tag), Ok(()));
        prop_assert_eq!(&ours, &text);
    }

    #[test]
    fn the_keys_are_what_the_sentence_of_sp_800_108_says(key: [u8; 32], stream: [u8; 16]) {
        let epoch = EpochKey::new(key);
        let (gcm, aegis) = (epoch.gcm(StreamId(stream)), epoch.aegis(StreamId(stream)));
        prop_assert_eq!(&gcm.expose()[..], kdf(&key, "hv-page/gcm/1", &stream, 256));
        prop_assert_eq!(&aegis.expose()[..], kdf(&key, "hv-page/aegis/1", &stream, 128));
    }
}

/// The KDF once more, straight from the sentence.
fn kdf(key: &[u8; 32], label: &str, context: &[u8], bits: u32) -> Vec<u8> {
    let prf = |message: &[u8]| {
        let mac = <Cmac<aes::Aes256Enc> as KeyInit>::new(key.into());
        mac.chain_update(message).finalize().into_bytes().to_vec()
    };
    let fixed = [label.as_bytes(), &[0], context, &bits.to_be_bytes()].concat();
    let k0 = prf(&fixed);
    (1..=bits / 128).flat_map(|i| prf(&[&i.to_be_bytes()[..], &fixed, &k0].concat())).collect()
}

#[test]
fn the_fastest_backend_is_taken_and_there_are_two() {
    fn judged<C: Bulk>() {
        let key = [7; 32];
        let best = *backends().last().expect("the portable one");
        assert_eq!(C::best(key).0.backend(), best);
        assert_eq!(C::opener(key).backend(), best);
        for backend in Backend::ALL {
            assert_eq!(C::on(key, backend).is_some(), backends().contains(&backend));
        }
    }
    judged::<Aes256Gcm>();
    judged::<Aegis128X4>();
    // Past the harness, which keeps what a passing test prints.
    let mut report = format!("suites 4 and 5 ran on {:?}\n", backends());
    if !Backend::Vaes512.runs_here() {
        report.push_str("skipped: kernels of suites 4 and 5: this CPU has no VAES at 512 bits\n");
    }
    std::io::stderr().write_all(report.as_bytes()).expect("stderr");
}

#[test]
fn who_only_opens_opens() {
    fn judged<C: Bulk>(id: PageId) {
        let plain = noise(3);
        let list = sealed(&mut C::best([7; 32]), &[id], std::slice::from_ref(&plain), Landing::Hot);
        let [(genuine, page)] = &opened(&C::opener([7; 32]), &list, Landing::Hot)[..] else {
            panic!("one page")
        };
        assert!(*genuine && page.bytes() == plain.bytes());
    }
    let id = PageId {
        gfn: Gfn::MAX,
        version: Version::ZERO,
        epoch: Epoch(3),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream: Stream::Image,
        excluded: false,
    };
    judged::<Aes256Gcm>(id);
    judged::<Aegis128X4>(id);
}

#[test]
fn secrets_neither_print_nor_linger() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<GcmKey>();
    wiped::<AegisKey>();
    wiped::<Gcm256>();
    wiped::<AegisX4>();
    wiped::<Aes256Gcm>();
    wiped::<Aegis128X4>();
    let (gcm, aegis) = (GcmKey::new([0xa5; 32]), AegisKey::new([0xa5; 16]));
    let keys = format!("{gcm:?} {aegis:?}");
    assert_eq!(keys, "GcmKey(..) AegisKey(..)");
    let general = (Gcm256::new(gcm.expose()), AegisX4::new(aegis.expose()));
    assert_eq!(format!("{general:?}"), "(Gcm256(..), AegisX4(..))");
    let suites = (Aes256Gcm::new(gcm).0, Aegis128X4::new(aegis).0);
    assert_eq!(format!("{suites:?}"), "(Aes256Gcm(..), Aegis128X4(..))");
}
