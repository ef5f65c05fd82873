//! The core with its suites, its keys, and an image written and read back.
#![no_std]
#![no_main]

mod spine;
mod sys;

use core::hint::black_box;

use view_core::image::{HEADER_SIZE, Header, ImageReader, ImageWriter, Record};
use view_core::key::{EpochKey, RootKey, Salt, SivKey};
use view_core::suite::aegis::AegisX4;
use view_core::suite::aegis_128x4::Aegis128X4;
use view_core::suite::aes_256_gcm::Aes256Gcm;
use view_core::suite::ctr_cmac::CtrCmac;
use view_core::suite::gcm::Gcm256;
use view_core::suite::pmac_siv_512::PmacSiv512;
use view_core::suite::siv::Siv512;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, OpenJob, PageCipher, PageId, SealJob, Stream};
use view_core::whitelist::{Leases, RestoredImage, RestoredPage, Rule};
use view_core::{
    Epoch, Frames, Gfn, MaskId, Page, PageKind, PageState, Perm, Receipt, Slot, Version, Vm,
    VmConfig, VmId, VmNumber,
};

static SLOTS: [Slot; 2] = [const { Slot::new() }; 2];

fn main() -> Option<()> {
    let root = RootKey::try_from(black_box(&[5; 32][..])).ok()?;
    let (vm, epoch, salt) = (VmId(black_box([6; 16])), Epoch(1), Salt([7; 16]));
    let key = root.vm(&vm).epoch(epoch, &salt, SivCmac512::SUITE);
    let cipher = SivCmac512::new(&key.siv(Stream::Image.id()));
    let receipts = spine::drive(&cipher)?;
    let (suite, sequence, pages, state_len) = (SivCmac512::SUITE, 1, black_box(2), 5);
    let header = Header { vm, epoch, salt, suite, sequence, pages, state_len };

    let (mut block, mut state) = ([0; HEADER_SIZE], [9; 4096]);
    let mut writer = ImageWriter::new(&key, &header, &mut block).ok()?;
    let mut records = [Record::default(); 2];
    for ((record, receipt), number) in records.iter_mut().zip(receipts).zip(0..) {
        // The image has two pages; they were the second and the third of the guest.
        let gfn = Gfn::new(number).ok()?;
        let sealed = receipt.sealed.map(|(id, tag)| (view_core::suite::PageId { gfn, ..id }, tag));
        *record = writer.record(&Receipt { gfn, sealed, ..receipt }).ok()?;
    }
    let (trailer, pinned) = writer.finish(black_box(&mut state)).ok()?;

    let reader = ImageReader::open(&root, black_box(&block), None).ok()?;
    let manifest = reader.verify(black_box(&records), &trailer, Some(pinned)).ok()?;
    (manifest.open_state(&mut state).ok()? == [9; 5]).then_some(())?;
    restore(manifest.records().last()?)?;

    let siv = Siv512::new(black_box(key.state().expose()));
    let mut text = black_box([1; 33]);
    let tag = siv.seal(&[b"bare"], &mut text);
    siv.open(&[b"bare"], &mut text, &tag).ok()?;
    (text == [1; 33]).then_some(())?;
    others(&key.siv(Stream::View.id()))?;
    bulk(&key, &mut text)
}

/// The other suites of the same key, a list sealed and opened again.
fn others(key: &SivKey) -> Option<()> {
    round_trip(&PmacSiv512::new(key), Some)?;
    let (ctr_cmac, mut sequence) = CtrCmac::new(key.clone());
    round_trip(&ctr_cmac, |id| sequence.next(id).ok().map(|(once, _)| once))
}

/// The suites that seal each version once and in one pass, and what they are made of.
fn bulk(key: &EpochKey, text: &mut [u8; 33]) -> Option<()> {
    let (gcm, mut sequence) = Aes256Gcm::new(key.gcm(Stream::View.id()));
    round_trip(&gcm, |id| sequence.next(id).ok().map(|(once, _)| once))?;
    let (aegis, mut sequence) = Aegis128X4::new(key.aegis(Stream::View.id()));
    round_trip(&aegis, |id| sequence.next(id).ok().map(|(once, _)| once))?;
    let plain = *text;
    let general = Gcm256::new(black_box(&[8; 32]));
    let tag = general.seal(&[9; 12], black_box(&b"bare"[..]), black_box(&mut text[..])).ok()?;
    general.open(&[9; 12], b"bare", text, &tag).ok()?;
    let general = AegisX4::new(black_box(&[8; 16]));
    let tag = general.seal(&[9; 16], black_box(&b"bare"[..]), black_box(&mut text[..]));
    general.open(&[9; 16], b"bare", text, &tag).ok()?;
    (*text == plain).then_some(())
}

fn round_trip<C: PageCipher>(
    cipher: &C,
    mut id: impl FnMut(PageId) -> Option<C::Id>,
) -> Option<()> {
    let (plain, mut sealed, mut opened) = (Page::zeroed(), Page::zeroed(), Page::zeroed());
    let (gfn, version) = (Gfn::new(black_box(3)).ok()?, Version::ZERO);
    let (kind, perm, mask) = (PageKind::MEMORY, Perm::Read, MaskId::ALL);
    let (epoch, stream, excluded) = (Epoch(1), Stream::View, false);
    let id = id(PageId { gfn, version, epoch, kind, perm, mask, stream, excluded })?;
    let mut jobs = [SealJob::new(id, black_box(&plain), &mut sealed)];
    cipher.seal(black_box(&mut jobs[..]), black_box(Landing::Cold));
    let [(id, tag)] = jobs.map(|job| (*job.id(), job.tag()));
    let mut jobs = [OpenJob::new(id, black_box(&sealed), tag, &mut opened)];
    cipher.open(black_box(&mut jobs[..]), black_box(Landing::Hot));
    let [job] = jobs;
    (job.genuine() && job.plain().bytes() == plain.bytes()).then_some(())
}

/// The page that was open when it was sealed may be opened again.
fn restore(record: view_core::image::GenuineRecord) -> Option<()> {
    let vm = Vm::new(VmConfig {
        number: VmNumber(8),
        epoch: Epoch(2),
        pages: 2,
        slots: &SLOTS,
        frames: Frames::new(&[]),
        leases: Leases::new(&[]),
        masks: &[],
        replicas_max: 0,
    })
    .ok()?;
    let proposal = RestoredImage.infer(&vm, &RestoredPage { record: black_box(record) }).ok()?;
    black_box(proposal.act());
    matches!(record.state(), PageState::Open { .. }).then_some(())
}
