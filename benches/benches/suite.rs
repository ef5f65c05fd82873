//! What it costs to seal and to open a page, suite by suite, by the length of the list it is in.
//!
//! One AES call is a chain of 14 rounds, each waiting for the last, and a CBC-MAC is a chain of
//! calls; pages in flight side by side fill the wait. A list of one shows the chain, a list of 64
//! the machine's width. Hot pages are in the cache and stay there; cold ones come from memory that
//! was last touched 128 MiB ago, and go back past the cache where a suite can do that.

use std::time::Duration;

use benches::measure::{Area, Dice, LISTS, Rotation};
use benches::ours;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use view_core::PAGE_SIZE;
use view_core::suite::Landing;

/// Of a cold area: 64 MiB to read and 64 MiB to write.
const COLD_PAGES: usize = 1 << 14;

fn suites(criterion: &mut Criterion) {
    for (name, landing, pages) in
        [("hot", Landing::Hot, None), ("cold", Landing::Cold, Some(COLD_PAGES))]
    {
        let mut group = criterion.benchmark_group(name);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for list in LISTS {
            let mut area = Area::new(pages.unwrap_or(list));
            let mut parts = Rotation::new(&area, list, &mut Dice::new(1));
            group.throughput(Throughput::Bytes((list * PAGE_SIZE) as u64));
            for mut candidate in ours() {
                let mut done = None;
                group.bench_function(format!("{}/{list}", candidate.name()), |bencher| {
                    bencher.iter(|| {
                        let part = parts.part();
                        area.run(&mut *candidate, part.clone(), list, landing);
                        done = Some(part);
                    });
                });
                // Nothing, if this one was not asked for.
                done.into_iter().flatten().for_each(|at| area.check(&mut *candidate, at));
            }
        }
        group.finish();
    }
}

criterion_group!(benches, suites);
criterion_main!(benches);
