//! What must not tell secrets by its time: comparing tags, expanding keys, sealing, and refusing.

use core::hint::black_box;

use view_core::key::{AegisKey, GcmKey, SivKey};
use view_core::suite::aegis_128x4::Aegis128X4;
use view_core::suite::aes_256_gcm::Aes256Gcm;
use view_core::suite::ctr_cmac::CtrCmac;
use view_core::suite::pmac_siv_512::PmacSiv512;
use view_core::suite::sequence::{Once, Sequence};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Backend, Landing, OpenJob, PageCipher, PageId, SealJob, Tag};
use view_core::{PAGE_SIZE, Page};
use zeroize::Zeroize;

use super::{Batch, Check, Class};
use crate::measure::Dice;
use crate::{id, key, pages};

/// Inputs that are made ready before the first of them is timed: few enough for a cache of 1 MiB.
const SLOTS: usize = 64;

/// What takes less than a look at the clock is done so often between two looks.
const TIMES: usize = 16;

/// All checks: first the one that must be noticed, then those of this machine's backends.
pub fn checks() -> Vec<Check> {
    let control = Check { leaks: true, ..tags("control: a comparison that stops early", leaky) };
    let mut checks = vec![control, tags("comparing tags", |job, found| job.settle(found))];
    for backend in Backend::ALL {
        let name = |suite: &str| format!("{suite}/{backend:?}").to_lowercase();
        let (siv, gcm, aegis) = (key, || GcmKey::new([0x47; 32]), || AegisKey::new([0x41; 16]));
        if let Some(cipher) = SivCmac512::with_backend(&siv(), backend) {
            let name = name("siv-cmac-512");
            checks.push(expanding(&name, backend));
            checks.push(keys(&name, backend));
            checks.extend(suite(&name, (cipher, |id| id)));
        }
        if let Some(cipher) = PmacSiv512::with_backend(&siv(), backend) {
            checks.extend(suite(&name("pmac-siv-512"), (cipher, |id| id)));
        }
        if let Some(cipher) = CtrCmac::with_backend(siv(), backend) {
            checks.extend(suite(&name("ctr-cmac"), once(cipher)));
        }
        if let Some(cipher) = Aes256Gcm::with_backend(gcm(), backend) {
            checks.extend(suite(&name("aes-256-gcm"), once(cipher)));
        }
        if let Some(cipher) = Aegis128X4::with_backend(aegis(), backend) {
            checks.extend(suite(&name("aegis-128x4"), once(cipher)));
        }
    }
    checks
}

fn once<C>((cipher, mut sequence): (C, Sequence)) -> (C, impl FnMut(PageId) -> Once) {
    (cipher, move |id| sequence.next(id).expect("a key is good for 2^40 pages").0)
}

/// Ids that do not come twice. With one id, whatever is the same again gives the same sealed bytes
/// again, and to store what is there already takes some machines a little less: a thing that no
/// table of versions lets happen.
fn fresh() -> impl FnMut() -> PageId {
    let mut number = 0;
    move || {
        number += 1;
        id(number)
    }
}

/// A bit of the first byte or of the last but one. SIV counts from its tag on, and the last byte of
/// a counter says where its table is read, so in which lines of the cache, and how near to what was
/// just stored. That takes more time or less, and tells the last byte of a tag, which is on the
/// wire for all to see.
fn change(bytes: &mut [u8], class: Class) {
    let at = match class {
        Class::One => 0,
        Class::Other => bytes.len() - 2,
    };
    bytes[at] ^= 1;
}

/// A tag that is wrong in its first byte against one that is wrong in its last but one.
fn tags(name: &str, settle: fn(&mut OpenJob<'_>, &Tag)) -> Check {
    let expected: Tag = core::array::from_fn(|i| i as u8 ^ 0x5a);
    let (sealed, mut plain) = (Page::zeroed(), Page::zeroed());
    Check::new(name.to_owned(), move |batch| {
        let inputs: [_; SLOTS] = core::array::from_fn(|_| {
            let (class, mut found) = (batch.class(), expected);
            change(&mut found, class);
            (class, found)
        });
        let mut job = OpenJob::new(id(1), &sealed, expected, &mut plain);
        for (class, found) in &inputs {
            batch.time(*class, || (0..TIMES).for_each(|_| settle(&mut job, black_box(found))));
        }
        assert!(!job.genuine(), "all of them are wrong");
    })
}

/// What [`OpenJob::settle`] must not be: it looks at no byte behind the first wrong one.
fn leaky(job: &mut OpenJob<'_>, found: &Tag) {
    let same = found.iter().zip(job.tag()).all(|(a, b)| black_box(*a) == black_box(*b));
    if !same {
        job.zeroize();
    }
}

/// One key against others, where each class has each place equally often.
fn some_keys(batch: &mut Batch<'_>) -> [(Class, SivKey); SLOTS] {
    core::array::from_fn(|_| {
        let class = batch.class();
        let random = random(batch.dice);
        (class, SivKey::new(if class == Class::One { [0x5a; 64] } else { random }))
    })
}

fn random(dice: &mut Dice) -> [u8; 64] {
    core::array::from_fn(|_| dice.below(256) as u8)
}

/// Expanding one key against expanding others.
fn expanding(name: &str, backend: Backend) -> Check {
    Check::new(format!("{name}: expanding keys"), move |batch| {
        for (class, key) in &some_keys(batch) {
            let mut made = None;
            batch.time(*class, || made = SivCmac512::with_backend(black_box(key), backend));
            black_box(&made);
        }
    })
}

/// Sealing under one key against sealing under others.
fn keys(name: &str, backend: Backend) -> Check {
    let (plain, mut sealed) = (Page::zeroed(), Page::zeroed());
    let mut fresh = fresh();
    Check::new(format!("{name}: sealing under keys"), move |batch| {
        let ciphers: Vec<_> = some_keys(batch)
            .iter()
            .filter_map(|(class, key)| Some((*class, SivCmac512::with_backend(key, backend)?)))
            .collect();
        for (class, cipher) in &ciphers {
            let mut job = [SealJob::new(fresh(), &plain, &mut sealed)];
            batch.time(*class, || cipher.seal(black_box(&mut job), Landing::Hot));
        }
    })
}

/// Sealing and refusing.
fn suite<C>(
    name: &str,
    (cipher, sealed_as): (C, impl FnMut(PageId) -> C::Id + 'static),
) -> [Check; 3]
where
    C: PageCipher + 'static,
{
    let cipher = std::rc::Rc::new(cipher);
    let mut sealed_as = sealed_as;
    let plain = pages(1).remove(0);
    let mut genuine = Page::zeroed();
    let mut job = [SealJob::new(sealed_as(id(1)), &plain, &mut genuine)];
    cipher.seal(&mut job, Landing::Hot);
    let (id, tag) = (*job[0].id(), job[0].tag());
    let forged = |what: &str, change: fn(&mut Page, &mut Tag, Class)| {
        let (cipher, sealed) = (std::rc::Rc::clone(&cipher), genuine.clone());
        forged(format!("{name}: refusing a changed {what}"), cipher, (id, sealed, tag), change)
    };
    let refusing = [
        forged("tag", |_, tag, class| change(tag, class)),
        forged("page", |page, _, class| change(page.bytes_mut(), class)),
    ];
    let [tag, page] = refusing;
    [sealing(name, cipher, sealed_as), tag, page]
}

/// Sealing zeroes against sealing all sorts of bytes.
fn sealing<C: PageCipher + 'static>(
    name: &str,
    cipher: std::rc::Rc<C>,
    mut sealed_as: impl FnMut(PageId) -> C::Id + 'static,
) -> Check {
    let sorts = pages(SLOTS + 1);
    let (mut plain, mut sealed) = (sorts.clone(), Page::zeroed());
    let mut fresh = fresh();
    Check::new(format!("{name}: sealing"), move |batch| {
        let mut inputs = vec![];
        for plain in plain.iter_mut().take(SLOTS) {
            let class = batch.class();
            let mut bytes = *sorts[batch.dice.below(sorts.len())].bytes();
            let keep = if class == Class::One { 0 } else { 0xff };
            bytes.iter_mut().for_each(|byte| *byte &= black_box(keep));
            *plain.bytes_mut() = bytes;
            inputs.push((class, sealed_as(fresh())));
        }
        for (plain, (class, id)) in plain.iter().zip(inputs) {
            let mut job = [SealJob::new(id, plain, &mut sealed)];
            batch.time(class, || cipher.seal(black_box(&mut job), Landing::Hot));
        }
    })
}

/// Refusing what is wrong from the first byte on against what is wrong near its end alone.
fn forged<C: PageCipher + 'static>(
    name: String,
    cipher: std::rc::Rc<C>,
    (id, genuine, tag): (PageId, Page, Tag),
    change: fn(&mut Page, &mut Tag, Class),
) -> Check {
    let mut pages = vec![genuine.clone(); SLOTS];
    let mut plain = Page::zeroed();
    Check::new(name, move |batch| {
        let mut inputs = [(Class::One, tag); SLOTS];
        for (page, (class, tag)) in pages.iter_mut().zip(&mut inputs) {
            *class = batch.class();
            page.bytes_mut().copy_from_slice(genuine.bytes());
            change(page, tag, *class);
        }
        for (page, (class, tag)) in pages.iter().zip(&inputs) {
            let mut job = [OpenJob::new(id, page, *tag, &mut plain)];
            batch.time(*class, || cipher.open(black_box(&mut job), Landing::Hot));
            assert!(!job[0].genuine(), "all of them are forged");
        }
    })
}

const _: () = assert!(SLOTS * PAGE_SIZE <= 1 << 19);
