//! What it costs to seal and to open a page, by the length of the list it is in.
//!
//! One AES call is a chain of 14 rounds, each waiting for the last, and a CBC-MAC is a chain of
//! calls; pages in flight side by side fill the wait. A list of one shows the chain, a list of 64
//! the machine's width. The naive peer chains too, so its pages never overlap.

use benches::{Naive, key, open, pages, seal};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::{PAGE_SIZE, Page};

const BATCHES: [usize; 5] = [1, 8, 16, 64, 512];

fn seals(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    let (suite, naive) = (SivCmac512::new(&key()), Naive::new(&key()));
    for batch in BATCHES {
        let plain = pages(batch);
        let (mut sealed, mut tags) = (plain.clone(), vec![[0; 16]; batch]);
        group.throughput(Throughput::Bytes((batch * PAGE_SIZE) as u64));
        group.bench_function(format!("siv-cmac-512/{batch}"), |bencher| {
            bencher.iter(|| seal(&suite, batch, &plain, &mut sealed, &mut tags));
        });
        assert!(same(&plain, |opened| open(&suite, 1, &sealed, &tags, opened)));
        group.bench_function(format!("naive/{batch}"), |bencher| {
            bencher.iter(|| naive.seal(&plain, &mut sealed, &mut tags));
        });
        assert!(same(&plain, |opened| naive.open(&sealed, &tags, opened)));
    }
    group.finish();
}

fn opens(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    let (suite, naive) = (SivCmac512::new(&key()), Naive::new(&key()));
    for batch in BATCHES {
        let plain = pages(batch);
        let (mut sealed, mut tags) = (plain.clone(), vec![[0; 16]; batch]);
        group.throughput(Throughput::Bytes((batch * PAGE_SIZE) as u64));
        seal(&suite, 1, &plain, &mut sealed, &mut tags);
        group.bench_function(format!("siv-cmac-512/{batch}"), |bencher| {
            let mut opened = plain.clone();
            bencher.iter(|| assert!(open(&suite, batch, &sealed, &tags, &mut opened)));
        });
        assert!(same(&plain, |opened| open(&suite, batch, &sealed, &tags, opened)));
        naive.seal(&plain, &mut sealed, &mut tags);
        group.bench_function(format!("naive/{batch}"), |bencher| {
            let mut opened = plain.clone();
            bencher.iter(|| assert!(naive.open(&sealed, &tags, &mut opened)));
        });
        assert!(same(&plain, |opened| naive.open(&sealed, &tags, opened)));
    }
    group.finish();
}

/// Whether `open` says that all is genuine and brings the plain pages back.
fn same(plain: &[Page], open: impl FnOnce(&mut [Page]) -> bool) -> bool {
    let mut opened = vec![Page::zeroed(); plain.len()];
    open(&mut opened) && plain.iter().zip(&opened).all(|(a, b)| a.bytes() == b.bytes())
}

criterion_group!(suite, seals, opens);
criterion_main!(suite);
