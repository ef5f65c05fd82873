//! What an image costs beside the sealing: its records, its manifest, and all of it as a file.
//!
//! A record is what is written of a page whenever it is sealed; a manifest is made of all records
//! in one go, when an image ends and when it is read. The file is in memory: no disk is measured.

use std::fs::File;
use std::hint::black_box;
use std::io::{Seek, SeekFrom};

use benches::{id, pages};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use frontend_kvm::image_file::{self, ImageFile, ImageFileError, SealedPages};
use rustix::fs::{MemfdFlags, memfd_create};
use view_core::image::{HEADER_SIZE, Header, ImageReader, ImageRoot, ImageWriter, Record};
use view_core::key::{EpochKey, RootKey, Salt};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, PageCipher, SealJob, Stream, Tag};
use view_core::{Gfn, PAGE_SIZE, Page, PageState, Receipt, VmId};

/// Of which records and manifests are made: a VM of 256 MiB.
const RECORDS: usize = 1 << 16;

/// Of an image as a file: 16 MiB.
const PAGES: usize = 1 << 12;

/// Pages that are sealed together.
const LIST: usize = 64;

const STATE: &[u8] = b"the registers of a CPU";

fn root_key() -> RootKey {
    RootKey::new([0x42; 32])
}

fn header(pages: usize) -> Header {
    Header {
        vm: VmId([1; 16]),
        epoch: id(0).epoch,
        salt: Salt([2; 16]),
        suite: SivCmac512::SUITE,
        sequence: 1,
        pages: pages as u64,
        state_len: STATE.len() as u64,
    }
}

fn epoch_key(header: &Header) -> EpochKey {
    root_key().vm(&header.vm).epoch(header.epoch, &header.salt, header.suite)
}

fn receipt(gfn: Gfn, tag: Tag) -> Receipt {
    let private = PageState::Private;
    let sealed = Some((id(gfn.number()), tag));
    Receipt { gfn, state: private, sealed_as: private, sealed }
}

fn records(criterion: &mut Criterion) {
    let header = header(RECORDS);
    let key = epoch_key(&header);
    let mut block = [0; HEADER_SIZE];
    let receipts: Vec<_> = (0..RECORDS as u64)
        .map(|number| receipt(id(number).gfn, u128::from(number).to_le_bytes()))
        .collect();
    let mut group = criterion.benchmark_group("image");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);

    group.bench_function("record update", |bencher| {
        bencher.iter(|| {
            let mut writer = ImageWriter::new(&key, &header, &mut block).expect("a fine header");
            receipts.iter().for_each(|receipt| {
                black_box(writer.record(receipt).expect("in order"));
            });
            writer
        });
    });

    let mut writer = ImageWriter::new(&key, &header, &mut block).expect("a fine header");
    let records: Vec<Record> =
        receipts.iter().map(|receipt| writer.record(receipt).expect("in order")).collect();
    let state = writer.geometry().state();
    let mut state = vec![0; (state.end - state.start) as usize];
    let (trailer, root) = writer.finish(&mut state).expect("whole");
    let reader = ImageReader::open(&root_key(), &block, None).expect("genuine");
    group.bench_function("manifest rebuild", |bencher| {
        bencher.iter(|| {
            let manifest = reader.verify(black_box(&records), &trailer, Some(root));
            assert_eq!(manifest.expect("genuine").root(), root);
        });
    });
    let mut forged = records.clone();
    forged.swap(1, 2);
    assert!(reader.verify(&forged, &trailer, None).is_err(), "records are looked at");
    group.finish();
}

/// Writes an image of these pages as the KVM frontend does.
fn write(file: &mut File, plain: &[Page]) -> ImageRoot {
    let header = header(plain.len());
    let key = epoch_key(&header);
    let cipher = SivCmac512::new(&key.siv(Stream::Image.id()));
    file.seek(SeekFrom::Start(0)).expect("a file in memory");
    let sealed = |from: usize| {
        let plain = &plain[from..plain.len().min(from + LIST)];
        let mut pages: Vec<_> = plain.iter().map(|_| Box::new(Page::zeroed())).collect();
        let numbers = from as u64..;
        let mut jobs: Vec<_> = (numbers.zip(plain).zip(&mut pages))
            .map(|((number, plain), sealed)| SealJob::new(id(number), plain, sealed))
            .collect();
        cipher.seal(&mut jobs, Landing::Cold);
        let receipts: Vec<_> = jobs.iter().map(|job| receipt(job.id().gfn, job.tag())).collect();
        let pages = pages.into_iter().map(Some);
        Ok::<SealedPages, ImageFileError>(receipts.into_iter().zip(pages).collect())
    };
    image_file::write(file, &key, &header, STATE, sealed).expect("room in memory")
}

/// Reads and checks all of an image; how many of its pages are those.
fn read(file: &File, plain: &[Page], root: ImageRoot) -> usize {
    let image = ImageFile::open(&root_key(), file).expect("genuine");
    let manifest = image.verify(Some(root)).expect("genuine");
    assert_eq!(image.state(&manifest).expect("genuine").as_slice(), STATE);
    let mut same = 0;
    let count = image.bodies(&manifest, |record, page| {
        let number = usize::try_from(record.gfn().number()).expect("small");
        // The first bytes tell pages apart; to compare all of them is not what is measured.
        same += usize::from(page.bytes()[..64] == plain[number].bytes()[..64]);
        Ok::<_, ImageFileError>(())
    });
    count.expect("genuine");
    same
}

fn files(criterion: &mut Criterion) {
    let plain = pages(PAGES);
    let memory = memfd_create("image", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(memory);
    let root = write(&mut file, &plain);
    let mut group = criterion.benchmark_group("image");
    group.throughput(Throughput::Bytes((PAGES * PAGE_SIZE) as u64)).sample_size(20);
    group.bench_function("write", |bencher| {
        bencher.iter(|| assert_eq!(write(&mut file, &plain), root, "one image, one root"));
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| assert_eq!(read(&file, &plain, root), PAGES));
    });
    group.finish();
}

criterion_group!(benches, records, files);
criterion_main!(benches);
