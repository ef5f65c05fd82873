//! Sealing and opening need no heap: not in the suites, and not in the frontend's own step.
//!
//! Counted is everything between handing pages over and having them back. What a frontend does
//! before (its staging pages, kept from call to call) and after (a page that leaves the process is
//! boxed, since it belongs to who takes it) is not sealing.

use std::hint::black_box;
use std::sync::Arc;

use allocation_counter::measure;
use frontend_kvm::GuestMemory;
use frontend_kvm::harden::SecretBox;
use frontend_kvm::trusted::{Ciphers, Incarnation, KvmPlatform, Shared, Views};
use view_core::key::{AegisKey, GcmKey, RootKey, Salt, SivKey};
use view_core::suite::aegis_128x4::Aegis128X4;
use view_core::suite::aes_256_gcm::Aes256Gcm;
use view_core::suite::ctr_cmac::CtrCmac;
use view_core::suite::pmac_siv_512::PmacSiv512;
use view_core::suite::sequence::{Once, Sequence};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Backend, Landing, OpenJob, PageCipher, PageId, SealJob, Stream, Tag};
use view_core::{
    Epoch, Frame, Gfn, MaskId, OpenStep, Page, PageKind, Perm, Place, Platform, SealStep, Source,
    Target, Version, VmId, VmNumber,
};

/// Longer than any list that a suite works on at once.
const PAGES: usize = 130;

fn id(number: usize, stream: Stream) -> PageId {
    PageId {
        gfn: Gfn::new(number as u64).unwrap(),
        version: Version::new(1).unwrap(),
        epoch: Epoch(1),
        kind: PageKind::MEMORY,
        perm: Perm::Read,
        mask: MaskId::ALL,
        stream,
        excluded: false,
    }
}

/// How often memory was asked for by this thread.
fn allocations(of: impl FnOnce()) -> u64 {
    measure(of).count_total
}

/// Seals lists of many lengths and opens them again.
fn goes_through<C: PageCipher>(
    (cipher, mut sealed_as): (C, impl FnMut(PageId) -> C::Id),
    what: &str,
) {
    let plain = vec![Page::zeroed(); PAGES];
    let (mut sealed, mut opened) = (plain.clone(), plain.clone());
    for pages in [0, 1, 2, 7, 8, 63, 64, 65, PAGES] {
        for landing in [Landing::Hot, Landing::Cold] {
            let counted = allocations(|| {
                let lists = plain.iter().zip(&mut sealed).take(pages).enumerate();
                let job = |(number, (plain, sealed)): (_, (_, _))| {
                    SealJob::new(sealed_as(id(number, Stream::Image)), plain, sealed)
                };
                let mut jobs: heapless::Vec<SealJob<'_, C::Id>, PAGES> = lists.map(job).collect();
                cipher.seal(&mut jobs, landing);
                let told: heapless::Vec<(PageId, Tag), PAGES> =
                    jobs.iter().map(|job| (*job.id(), job.tag())).collect();
                drop(jobs);
                let lists = sealed.iter().zip(&mut opened).zip(&told);
                let job = |((sealed, plain), (id, tag)): ((_, _), &(PageId, Tag))| {
                    OpenJob::new(*id, sealed, *tag, plain)
                };
                let mut jobs: heapless::Vec<OpenJob<'_>, PAGES> = lists.map(job).collect();
                cipher.open(&mut jobs, landing);
                assert!(jobs.iter().all(OpenJob::genuine));
            });
            assert_eq!(counted, 0, "{what}, {pages} pages, {landing:?}");
        }
    }
}

fn once<C>((cipher, mut sequence): (C, Sequence)) -> (C, impl FnMut(PageId) -> Once) {
    (cipher, move |id| sequence.next(id).unwrap().0)
}

#[test]
fn no_suite_needs_a_heap_on_any_backend() {
    let siv = || SivKey::new([3; 64]);
    for backend in Backend::ALL {
        let of = |suite: &str| format!("{suite} on {backend:?}");
        if let Some(cipher) = SivCmac512::with_backend(&siv(), backend) {
            goes_through((cipher, |id| id), &of("SIV-CMAC-512"));
        }
        if let Some(cipher) = PmacSiv512::with_backend(&siv(), backend) {
            goes_through((cipher, |id| id), &of("PMAC-SIV-512"));
        }
        if let Some(suite) = CtrCmac::with_backend(siv(), backend) {
            goes_through(once(suite), &of("CTR with CMAC"));
        }
        if let Some(suite) = Aes256Gcm::with_backend(GcmKey::new([4; 32]), backend) {
            goes_through(once(suite), &of("AES-256-GCM"));
        }
        if let Some(suite) = Aegis128X4::with_backend(AegisKey::new([5; 16]), backend) {
            goes_through(once(suite), &of("AEGIS-128X4"));
        }
    }
}

#[test]
fn the_frontend_seals_and_opens_in_place_without_a_heap() {
    let memory = Arc::new(GuestMemory::new(PAGES).unwrap());
    let incarnation = Incarnation { vm: VmId([1; 16]), epoch: Epoch(1), salt: Salt([2; 16]) };
    let root = RootKey::new([6; 32]);
    let ciphers = SecretBox::make(|| Ciphers::new(&root, &incarnation)).unwrap();
    let shared = Shared::new(Views::new(Arc::clone(&memory)).unwrap(), ciphers, &[]);
    let mut platform = KvmPlatform::new(Arc::new(shared));
    let target = |number| Target {
        vm: VmNumber(1),
        gfn: Gfn::new(number as u64).unwrap(),
        frame: Frame::new(number as u64).unwrap(),
    };
    let seal = |number| SealStep {
        target: target(number),
        id: id(number, Stream::Resident),
        from: Source::Frame,
        to: Place::InPlace,
    };
    let seals: Vec<_> = (0..PAGES).map(seal).collect();
    let (mut tags, mut genuine) = ([[0; 16]; PAGES], [false; PAGES]);
    let mut turn = |counts: bool| {
        let counted = allocations(|| platform.seal(&seals, &mut tags).unwrap());
        assert!(!counts || counted == 0, "{counted} allocations to seal");
        let open = |(seal, tag): (&SealStep, &Tag)| OpenStep {
            target: seal.target,
            id: seal.id,
            tag: *tag,
        };
        let opens: Vec<_> = seals.iter().zip(&tags).map(open).collect();
        let counted = allocations(|| platform.open(&opens, &mut genuine).unwrap());
        assert!(!counts || counted == 0, "{counted} allocations to open");
        assert_eq!(genuine, [true; PAGES]);
    };
    turn(false); // makes the staging pages
    turn(true);
    turn(true);
}

#[test]
fn a_single_box_is_noticed() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1_u64)))), 1);
}
