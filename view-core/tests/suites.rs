//! What must hold of suites 1, 2 and 3 on every backend that this machine has.

mod common;

use std::io::Write;

use aes::{Aes256Dec, Aes256Enc};
use aes_siv::siv::{Aes256PmacSiv, Aes256Siv};
use cipher::{BlockCipherDecrypt, InnerIvInit, KeyInit, StreamCipher};
use cmac::{Cmac, Mac};
use common::{any_id, noise};
use proptest::prelude::*;
use view_core::key::SivKey;
use view_core::suite::ctr_cmac::CtrCmac;
use view_core::suite::pmac_siv_512::PmacSiv512;
use view_core::suite::sequence::Sequence;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Backend, Landing, OpenJob, PageCipher, PageId, SealJob, Stream, Tag};
use view_core::{Epoch, Gfn, MaskId, PAGE_SIZE, Page, PageKind, Perm, Version};
use zeroize::ZeroizeOnDrop;

/// Of a page whose other fields do not matter.
const ID: PageId = PageId {
    gfn: Gfn::MAX,
    version: Version::MAX,
    epoch: Epoch(u64::MAX),
    kind: PageKind::MEMORY,
    perm: Perm::Read,
    mask: MaskId::ALL,
    stream: Stream::Resident,
    excluded: false,
};

fn any_key() -> impl Strategy<Value = SivKey> {
    (any::<[u8; 32]>(), any::<[u8; 32]>())
        .prop_map(|(mac, ctr)| SivKey::new([mac, ctr].concat().try_into().expect("64 bytes")))
}

fn any_landing() -> impl Strategy<Value = Landing> {
    prop_oneof![Just(Landing::Hot), Just(Landing::Cold)]
}

/// A suite on one backend, under test.
trait Suite: PageCipher + Sized {
    /// Those that it has a path for.
    const BACKENDS: &[Backend];
    fn on(key: &SivKey, backend: Backend) -> Option<Self>;
    fn backend(&self) -> Backend;
    fn ids(ids: &[PageId]) -> Vec<Self::Id>;
    /// What other implementations make of the page.
    fn oracle(key: &SivKey, id: &PageId, page: &mut Page) -> Tag;
}

impl Suite for SivCmac512 {
    const BACKENDS: &[Backend] = &Backend::ALL;

    fn on(key: &SivKey, backend: Backend) -> Option<Self> {
        Self::with_backend(key, backend)
    }

    fn backend(&self) -> Backend {
        self.backend()
    }

    fn ids(ids: &[PageId]) -> Vec<PageId> {
        ids.to_vec()
    }

    /// The crate `aes-siv`.
    fn oracle(key: &SivKey, id: &PageId, page: &mut Page) -> Tag {
        let mut siv = Aes256Siv::new(key.expose().into());
        let ad = id.associated_data(Self::SUITE);
        let bytes = page.bytes_mut().as_mut_slice();
        siv.encrypt_inout_detached([ad], bytes.into()).expect("one string").into()
    }
}

impl Suite for PmacSiv512 {
    const BACKENDS: &[Backend] = &[Backend::Portable, Backend::Vaes512];

    fn on(key: &SivKey, backend: Backend) -> Option<Self> {
        Self::with_backend(key, backend)
    }

    fn backend(&self) -> Backend {
        self.backend()
    }

    fn ids(ids: &[PageId]) -> Vec<PageId> {
        ids.to_vec()
    }

    /// The crate `aes-siv`.
    fn oracle(key: &SivKey, id: &PageId, page: &mut Page) -> Tag {
        let mut siv = Aes256PmacSiv::new(key.expose().into());
        let ad = id.associated_data(Self::SUITE);
        let bytes = page.bytes_mut().as_mut_slice();
        siv.encrypt_inout_detached([ad], bytes.into()).expect("one string").into()
    }
}

impl Suite for CtrCmac {
    const BACKENDS: &[Backend] = &[Backend::Portable, Backend::Vaes512];

    fn on(key: &SivKey, backend: Backend) -> Option<Self> {
        Self::with_backend(key.clone(), backend).map(|(suite, _)| suite)
    }

    fn backend(&self) -> Backend {
        self.backend()
    }

    /// From a sequence of their own. It counts from 1, whatever versions the ids had.
    fn ids(ids: &[PageId]) -> Vec<Self::Id> {
        let mut sequence = sequence();
        ids.iter().map(|id| sequence.next(*id).expect("fresh").0).collect()
    }

    /// The crates `ctr` and `cmac`, straight from spec/suites.md.
    fn oracle(key: &SivKey, id: &PageId, page: &mut Page) -> Tag {
        let (mac, ctr) = key.expose().split_at(32);
        let (gfn, version) = (id.gfn.number().to_be_bytes(), id.version.number().to_be_bytes());
        let block: [u8; 16] =
            [&[2][..], &gfn[2..], &version, &[0]].concat().try_into().expect("16 bytes");
        let aes = Aes256Enc::new(ctr.try_into().expect("32 bytes"));
        let core = ctr::CtrCore::inner_iv_init(aes, &block.into());
        ctr::Ctr128BE::from_core(core).apply_keystream(page.bytes_mut());
        let mac = Cmac::<Aes256Enc>::new(mac.try_into().expect("32 bytes"));
        let mac = mac.chain_update(id.associated_data(Self::SUITE)).chain_update(page.bytes());
        mac.finalize().into_bytes().into()
    }
}

fn sequence() -> Sequence {
    CtrCmac::new(SivKey::new([0; 64])).1
}

/// The suite on every backend that it has and that runs here.
fn everywhere<S: Suite>(key: &SivKey) -> Vec<S> {
    Backend::ALL.into_iter().filter_map(|backend| S::on(key, backend)).collect()
}

/// Seals all pages in one list: the sealed pages, their tags, and the ids that they got.
fn sealed<S: Suite>(
    suite: &S,
    ids: &[PageId],
    plain: &[&Page],
    landing: Landing,
) -> (Vec<Page>, Vec<Tag>, Vec<PageId>) {
    let mut pages = vec![noise(7); plain.len() + 2];
    let mut jobs: Vec<_> = S::ids(ids)
        .into_iter()
        .zip(plain)
        .zip(&mut pages[1..])
        .map(|((id, plain), sealed)| SealJob::new(id, plain, sealed))
        .collect();
    suite.seal(&mut jobs, landing);
    let tags = jobs.iter().map(SealJob::tag).collect();
    let ids = jobs.iter().map(|job| *job.id()).collect();
    drop(jobs);
    (without_neighbours(pages, &noise(7)), tags, ids)
}

/// Opens all pages in one list, into what held noise before: verdicts and pages.
fn opened<S: Suite>(
    suite: &S,
    ids: &[PageId],
    sealed: &[Page],
    tags: &[Tag],
    landing: Landing,
) -> (Vec<bool>, Vec<Page>) {
    let mut pages = vec![noise(9); sealed.len() + 2];
    let mut jobs: Vec<_> = ids
        .iter()
        .zip(sealed.iter().zip(tags))
        .zip(&mut pages[1..])
        .map(|((id, (sealed, tag)), plain)| OpenJob::new(*id, sealed, *tag, plain))
        .collect();
    suite.open(&mut jobs, landing);
    let verdicts = jobs.iter().map(OpenJob::genuine).collect();
    drop(jobs);
    (verdicts, without_neighbours(pages, &noise(9)))
}

/// What a list was written to: every page but the first and the last, which nobody may touch.
fn without_neighbours(mut pages: Vec<Page>, before: &Page) -> Vec<Page> {
    let (first, last) = (pages.remove(0), pages.pop().expect("two more than the list"));
    assert!([first, last].iter().all(|page| page.bytes() == before.bytes()), "wrote past the list");
    pages
}

fn refused<S: Suite>(suite: &S, id: PageId, sealed: &Page, tag: Tag, landing: Landing) -> bool {
    let (verdicts, pages) = opened(suite, &[id], std::slice::from_ref(sealed), &[tag], landing);
    verdicts == [false] && pages[0].bytes().iter().all(|byte| *byte == 0)
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

/// Seals and opens a list from its `from`th page on, whatever that does to alignment.
fn is_the_oracle_s<S: Suite>(key: &SivKey, ids: &[PageId], seed: u64, from: usize, to: Landing) {
    let store: Vec<_> = (seed..).map(noise).take(ids.len() * 2 + 1).collect();
    // Plain pages lie a page apart, or two, or not in order.
    let plain: Vec<_> = (1..=ids.len()).map(|at| &store[(at * from) % store.len()]).collect();
    agree_on::<S>(key, ids, &plain, to);
}

/// Seals and opens pages on every backend.
fn agree_on<S: Suite>(key: &SivKey, ids: &[PageId], plain: &[&Page], to: Landing) {
    let mut expected: Option<(Vec<Page>, Vec<Tag>)> = None;
    for suite in everywhere::<S>(key) {
        let on = suite.backend();
        let (pages, tags, ids) = sealed(&suite, ids, plain, to);
        let (wanted, wanted_tags) = expected.get_or_insert_with(|| {
            let mut wanted: Vec<_> = plain.iter().copied().cloned().collect();
            let tags = ids.iter().zip(&mut wanted).map(|(id, page)| S::oracle(key, id, page));
            let tags = tags.collect();
            (wanted, tags)
        });
        assert_eq!(&tags, wanted_tags, "{on:?}");
        assert!(pages.iter().zip(wanted).all(|(a, b)| a.bytes() == b.bytes()), "{on:?}");
        let (verdicts, again) = opened(&suite, &ids, &pages, &tags, to);
        assert!(verdicts.iter().all(|genuine| *genuine), "{on:?}: {verdicts:?}");
        assert!(again.iter().zip(plain).all(|(a, b)| a.bytes() == b.bytes()), "{on:?}");
    }
}

fn refuses_one_bad_page<S: Suite>(
    key: &SivKey,
    ids: &[PageId],
    seed: u64,
    bad: usize,
    bit: usize,
    to: Landing,
) {
    let store: Vec<_> = (seed..).map(noise).take(ids.len()).collect();
    let plain: Vec<_> = store.iter().collect();
    for suite in everywhere::<S>(key) {
        let on = suite.backend();
        let (pages, tags, ids) = sealed(&suite, ids, &plain, to);
        let alone = |spoilt: &str, ids: &[PageId], pages: &[Page], tags: &[Tag]| {
            let (verdicts, opened) = opened(&suite, ids, pages, tags, to);
            for (at, (page, genuine)) in opened.iter().zip(verdicts).enumerate() {
                assert_eq!(genuine, at != bad, "{on:?}: {spoilt}, page {at} of {}", ids.len());
                let expected = if genuine { *plain[at].bytes() } else { [0; PAGE_SIZE] };
                assert!(*page.bytes() == expected, "{on:?}: {spoilt}, page {at}");
            }
        };
        let (mut other_ids, mut other_pages, mut other_tags) =
            (ids.clone(), pages.clone(), tags.clone());
        other_ids[bad] = neighbours(ids[bad])[bit % 8];
        alone("id", &other_ids, &pages, &tags);
        other_tags[bad][bit / 8 % 16] ^= 1 << (bit % 8);
        alone("tag", &ids, &pages, &other_tags);
        other_pages[bad].bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        alone("body", &ids, &other_pages, &tags);
        // And alone, with every field and every bit of the tag.
        let (id, page, tag) = (ids[bad], &pages[bad], tags[bad]);
        for id in neighbours(id) {
            assert!(refused(&suite, id, page, tag, to), "{on:?}: {id:?}");
        }
        for bit in 0..128 {
            let mut tag = tag;
            tag[bit / 8] ^= 1 << (bit % 8);
            assert!(refused(&suite, id, page, tag, to), "{on:?}: bit {bit} of the tag");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn suite_1_is_the_cmac_siv_of_another_crate_on_every_backend(
        key in any_key(),
        ids in prop::collection::vec(any_id(), 0..=130),
        seed: u64,
        from in 1..4_usize,
        landing in any_landing(),
    ) {
        is_the_oracle_s::<SivCmac512>(&key, &ids, seed, from, landing);
    }

    #[test]
    fn suite_3_is_the_pmac_siv_of_another_crate_on_every_backend(
        key in any_key(),
        ids in prop::collection::vec(any_id(), 0..=130),
        seed: u64,
        from in 1..4_usize,
        landing in any_landing(),
    ) {
        is_the_oracle_s::<PmacSiv512>(&key, &ids, seed, from, landing);
    }

    #[test]
    fn suite_2_is_ctr_and_cmac_of_other_crates_on_every_backend(
        key in any_key(),
        ids in prop::collection::vec(any_id(), 0..=130),
        seed: u64,
        from in 1..4_usize,
        landing in any_landing(),
    ) {
        is_the_oracle_s::<CtrCmac>(&key, &ids, seed, from, landing);
    }

    #[test]
    fn a_changed_bit_anywhere_is_refused_and_spoils_no_other_page(
        key in any_key(),
        ids in prop::collection::vec(any_id(), 1..=70),
        seed: u64,
        bad: prop::sample::Index,
        bit in 0..PAGE_SIZE * 8,
        landing in any_landing(),
    ) {
        let bad = bad.index(ids.len());
        refuses_one_bad_page::<SivCmac512>(&key, &ids, seed, bad, bit, landing);
        refuses_one_bad_page::<PmacSiv512>(&key, &ids, seed, bad, bit, landing);
        refuses_one_bad_page::<CtrCmac>(&key, &ids, seed, bad, bit, landing);
    }
}

/// Few pages, on each side of every place where a kernel takes another path.
#[test]
fn every_short_list_is_the_oracle_s() {
    let key = SivKey::new([0x5a; 64]);
    for pages in 0..=40 {
        for landing in [Landing::Hot, Landing::Cold] {
            is_the_oracle_s::<SivCmac512>(&key, &vec![ID; pages], 1, 1, landing);
            is_the_oracle_s::<PmacSiv512>(&key, &vec![ID; pages], 1, 1, landing);
            is_the_oracle_s::<CtrCmac>(&key, &vec![ID; pages], 1, 1, landing);
        }
    }
}

/// The tag of suite 1 is where it counts from, and whoever has the key may choose it: by the last
/// block of the page.
#[test]
fn a_counter_carries_as_far_as_it_has_to() {
    let key = SivKey::new(core::array::from_fn(|at| at as u8));
    let suite = SivCmac512::with_backend(&key, Backend::Portable).expect("runs everywhere");
    let (mac, _) = key.expose().split_at(32);
    let aes = Aes256Dec::new(mac.try_into().expect("32 bytes"));
    let decrypted = |tag: Tag| {
        let mut block = tag.into();
        aes.decrypt_block(&mut block);
        u128::from_be_bytes(block.into())
    };
    let words = [0, 1, 0xff, 0x100, 0xff01, 0xffff, 0x7f_ffff, 0xff_ff80, 0x7fff_ff01, 0x7fff_ffff];
    // A tag's bit 31 is not counted, so all words with it end where those without do.
    let tags = words.map(|word| [u128::MAX << 32 | word, u128::MAX << 31 | word]);
    let tags: Vec<Tag> = tags.as_flattened().iter().map(|tag| tag.to_be_bytes()).collect();
    let plain: Vec<_> = tags
        .iter()
        .zip(0..)
        .map(|(tag, seed)| {
            let mut page = noise(seed);
            let found = sealed(&suite, &[ID], &[&page], Landing::Hot).1[0];
            let last = page.bytes_mut().last_chunk_mut::<16>().expect("a page is longer");
            let wanted = u128::from_be_bytes(*last) ^ decrypted(found) ^ decrypted(*tag);
            *last = wanted.to_be_bytes();
            page
        })
        .collect();
    let plain: Vec<_> = plain.iter().collect();
    assert_eq!(sealed(&suite, &[ID; 20], &plain, Landing::Hot).1, tags);
    agree_on::<SivCmac512>(&key, &[ID; 20], &plain, Landing::Hot);
}

#[test]
fn every_backend_of_a_suite_that_this_machine_can_run_is_tried() {
    fn tried<S: Suite>(name: &str) {
        let key = SivKey::new([1; 64]);
        let mut report = format!("{name}: ");
        for backend in S::BACKENDS.iter().copied() {
            match S::on(&key, backend) {
                Some(suite) => {
                    assert_eq!(suite.backend(), backend);
                    report += &format!("{backend:?} ran; ");
                }
                None => {
                    assert!(!backend.runs_here(), "{name} has a path for {backend:?}");
                    report += &format!("\nskipped: this CPU lacks what {backend:?} needs\n");
                }
            }
        }
        // Past the harness, which keeps what a passing test prints.
        std::io::stderr().write_all(format!("{}\n", report.trim()).as_bytes()).expect("stderr");
    }
    tried::<SivCmac512>("suite 1");
    tried::<PmacSiv512>("suite 3");
    tried::<CtrCmac>("suite 2");
    let key = SivKey::new([1; 64]);
    assert_eq!(SivCmac512::new(&key).backend(), Backend::best());
    let best = PmacSiv512::new(&key).backend();
    assert_eq!(best == Backend::Vaes512, Backend::Vaes512.runs_here());
    assert_eq!(CtrCmac::new(key.clone()).0.backend(), best);
    assert_eq!(CtrCmac::opener(&key).backend(), best);
}

#[test]
fn a_sequence_of_one_key_does_not_repeat_a_page_s_keystream() {
    let suite = CtrCmac::on(&SivKey::new([3; 64]), Backend::best());
    let suite = suite.unwrap_or_else(|| CtrCmac::new(SivKey::new([3; 64])).0);
    let id = PageId {
        gfn: Gfn::MAX,
        version: Version::ZERO,
        epoch: Epoch(0),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream: Stream::Image,
        excluded: false,
    };
    let zeroes = Page::zeroed();
    let (pages, ..) = sealed(&suite, &[id; 64], &[&zeroes; 64], Landing::Hot);
    let mut blocks: Vec<_> =
        pages.iter().flat_map(|page| page.bytes().as_chunks::<16>().0).collect();
    let count = blocks.len();
    blocks.sort();
    blocks.dedup();
    assert_eq!(blocks.len(), count);
}

#[test]
fn suites_wipe_themselves_and_do_not_print() {
    fn wiped<T: ZeroizeOnDrop>() {}
    wiped::<PmacSiv512>();
    wiped::<CtrCmac>();
    let key = SivKey::new([0xa5; 64]);
    let printed = format!("{:?} {:?}", PmacSiv512::new(&key), CtrCmac::new(key).0);
    assert_eq!(printed, "PmacSiv512(..) CtrCmac(..)");
}
