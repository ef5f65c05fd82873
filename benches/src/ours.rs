//! Our suites as candidates, and with them the naive peer and the copies that all are held against.

use core::hint::black_box;

use view_core::key::{AegisKey, GcmKey};
use view_core::suite::aegis_128x4::Aegis128X4;
use view_core::suite::aes_256_gcm::Aes256Gcm;
use view_core::suite::ctr_cmac::CtrCmac;
use view_core::suite::measure::{copy_past_cache, encrypt_in_registers};
use view_core::suite::pmac_siv_512::PmacSiv512;
use view_core::suite::sequence::{Once, Sequence};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Backend, Landing, PageCipher, PageId, SealJob, Tag};
use view_core::{PAGE_SIZE, Page, Version};

use crate::candidate::{Candidate, Each, Outcome, PageByPage, Takes, Work, same};
use crate::lists::{open, open_one, seal};
use crate::naive::Naive;
use crate::{id, key};

/// The copies, every suite of ours, and the naive peer. Where the machine has no copy past the
/// cache, that one is left out.
pub fn ours() -> Vec<Box<dyn Candidate>> {
    let portable = SivCmac512::with_backend(&key(), Backend::Portable).expect("runs everywhere");
    let memcpy = Box::new(Each("memcpy", Memcpy)) as Box<dyn Candidate>;
    let nt_copy = copy_past_cache(&[], &mut []).map(|()| Box::new(NtCopy) as Box<dyn Candidate>);
    let suites = [
        forgiving("siv-cmac-512-seal", SivCmac512::new(&key())),
        Box::new(Opener { cipher: SivCmac512::new(&key()), genuine: false }),
        forgiving("siv-cmac-512-portable", portable),
        forgiving("pmac-siv-512", PmacSiv512::new(&key())),
        once("ctr-cmac", CtrCmac::new(key())),
        once("aes-256-gcm", Aes256Gcm::new(GcmKey::new([0x47; 32]))),
        once("aegis-128x4", Aegis128X4::new(AegisKey::new([0x41; 16]))),
        Box::new(Each("naive-ctr-cmac", Naive::new(&key()))),
    ];
    [memcpy].into_iter().chain(nt_copy).chain(suites).collect()
}

/// What no candidate can pass, for want of registers and not of memory: no pages are touched.
pub fn limits() -> Vec<Box<dyn Candidate>> {
    let here = encrypt_in_registers(0).is_some();
    here.then(|| Box::new(TwoPasses::default()) as Box<dyn Candidate>).into_iter().collect()
}

/// One call of libc's `memcpy` a page. The compiler is not told that pages follow each other, or
/// it would make one copy of the whole list.
struct Memcpy;

impl PageByPage for Memcpy {
    fn seal(&mut self, _: u64, plain: &Page, sealed: &mut Page) -> Tag {
        let (from, to) = (plain.bytes().as_slice(), sealed.bytes_mut().as_mut_slice());
        black_box(to).copy_from_slice(black_box(from));
        [0; 16]
    }

    fn open(&mut self, number: u64, sealed: &Page, _: &Tag, plain: &mut Page) -> bool {
        self.seal(number, sealed, plain);
        true
    }
}

/// A copy of the whole list that writes past the cache, and waits once.
struct NtCopy;

impl Candidate for NtCopy {
    fn name(&self) -> &'static str {
        "nt-copy"
    }

    fn takes(&self) -> Takes {
        Takes::Plain
    }

    fn run(&mut self, work: Work<'_>) {
        let done = copy_past_cache(work.from, work.to);
        done.expect("the machine has it, or this would not be in the field");
    }

    fn right(&mut self, page: Outcome<'_>) -> bool {
        same(page.from, page.to)
    }
}

/// Every block of the work through AES twice, in registers: what two passes cost at least.
#[derive(Default)]
struct TwoPasses {
    /// Of the last call: how many bytes two passes are, and how many were encrypted.
    bytes: usize,
    done: usize,
}

impl Candidate for TwoPasses {
    fn name(&self) -> &'static str {
        "two-pass-limit"
    }

    fn takes(&self) -> Takes {
        Takes::Plain
    }

    fn run(&mut self, work: Work<'_>) {
        const BYTES_A_TIME: usize = 1024;
        self.bytes = 2 * work.from.len() * PAGE_SIZE;
        self.done = encrypt_in_registers(self.bytes.div_ceil(BYTES_A_TIME)).unwrap_or(0);
    }

    fn right(&mut self, _: Outcome<'_>) -> bool {
        self.done >= self.bytes
    }
}

/// A suite that seals lists.
struct Sealer<C, N> {
    name: &'static str,
    cipher: C,
    /// Makes of an id what the suite wants of it.
    sealed_as: N,
    /// The first page of the last call, and its version.
    last: (u64, u64),
    /// From page to page, versions of a sequence count up by one and those of [`id`] by none.
    step: u64,
}

/// A suite that takes the versions of [`id`].
fn forgiving<C>(name: &'static str, cipher: C) -> Box<dyn Candidate>
where
    C: PageCipher<Id = PageId> + Send + 'static,
{
    Box::new(Sealer { name, cipher, sealed_as: |id| id, last: (0, 0), step: 0 })
}

/// A suite that takes versions of its own sequence.
fn once<C>(name: &'static str, (cipher, mut sequence): (C, Sequence)) -> Box<dyn Candidate>
where
    C: PageCipher<Id = Once> + Send + 'static,
{
    let sealed_as = move |id| sequence.next(id).expect("a key is good for 2^40 pages").0;
    Box::new(Sealer { name, cipher, sealed_as, last: (0, 0), step: 1 })
}

impl<C, N> Candidate for Sealer<C, N>
where
    C: PageCipher + Send,
    N: FnMut(PageId) -> C::Id + Send,
{
    fn name(&self) -> &'static str {
        self.name
    }

    fn takes(&self) -> Takes {
        Takes::Plain
    }

    fn run(&mut self, work: Work<'_>) {
        let first = work.first;
        let sealed_as = |number| (self.sealed_as)(id(number));
        if let Some(id) = seal(&self.cipher, sealed_as, work) {
            self.last = (first, id.version.number());
        }
    }

    fn right(&mut self, page: Outcome<'_>) -> bool {
        let (first, version) = self.last;
        let version = version + (page.number - first) * self.step;
        let id = PageId { version: Version::new(version).expect("small"), ..id(page.number) };
        let mut plain = Page::zeroed();
        open_one(&self.cipher, id, page.to, page.tag, &mut plain) && same(&plain, page.from)
    }
}

/// The default suite the other way.
struct Opener {
    cipher: SivCmac512,
    genuine: bool,
}

impl Candidate for Opener {
    fn name(&self) -> &'static str {
        "siv-cmac-512-open"
    }

    fn takes(&self) -> Takes {
        Takes::Sealed
    }

    fn run(&mut self, work: Work<'_>) {
        self.genuine = open(&self.cipher, work);
    }

    fn right(&mut self, page: Outcome<'_>) -> bool {
        let mut sealed = Page::zeroed();
        let mut job = [SealJob::new(id(page.number), page.to, &mut sealed)];
        self.cipher.seal(&mut job, Landing::Hot);
        let tag = job[0].tag();
        self.genuine && tag == *page.tag && same(&sealed, page.from)
    }
}

impl PageByPage for Naive {
    fn seal(&mut self, number: u64, plain: &Page, sealed: &mut Page) -> Tag {
        Self::seal(self, number, plain, sealed)
    }

    fn open(&mut self, number: u64, sealed: &Page, tag: &Tag, plain: &mut Page) -> bool {
        Self::open(self, number, sealed, tag, plain)
    }
}
