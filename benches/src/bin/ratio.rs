//! How many times faster the default suite is than the naive peer, here and now.
//!
//! Machines and neighbours differ, so both run in turn, round by round, and what counts is the
//! median of the rounds' ratios. `ratio [--json] [--batch PAGES] [--pages PAGES] [--rounds N]`.

use std::process::ExitCode;

use benches::candidate::{LIST_MAX, Work, same};
use benches::measure::{median, thread_time};
use benches::{Naive, id, key, lists, pages};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Landing, Tag};
use view_core::{PAGE_SIZE, Page};

struct Options {
    json: bool,
    batch: usize,
    pages: usize,
    rounds: usize,
}

/// Seconds of each step of one round.
struct Round {
    seal: f64,
    open: f64,
    naive_seal: f64,
    naive_open: f64,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: ratio [--json] [--batch PAGES] [--pages PAGES] [--rounds N]");
        eprintln!("a batch has at most {LIST_MAX} pages");
        return ExitCode::from(2);
    };
    let rounds = measure(&options);
    let of = |pick: fn(&Round) -> f64| median(rounds.iter().map(pick).collect());
    let x_naive_seal = of(|r| r.naive_seal / r.seal);
    let x_naive_open = of(|r| r.naive_open / r.open);
    let bytes = (options.pages * PAGE_SIZE) as f64 / 1e9;
    let (seal, open) = (bytes / of(|r| r.seal), bytes / of(|r| r.open));
    if options.json {
        let line = serde_json::json!({
            "batch": options.batch,
            "pages": options.pages,
            "x_naive_seal": x_naive_seal,
            "x_naive_open": x_naive_open,
            "seal_gbps": seal,
            "open_gbps": open,
        });
        println!("{line}");
    } else {
        println!("{} pages in lists of {}", options.pages, options.batch);
        println!("seal {x_naive_seal:5.2} x naive   {seal:5.2} GB/s");
        println!("open {x_naive_open:5.2} x naive   {open:5.2} GB/s");
    }
    ExitCode::SUCCESS
}

fn options() -> Option<Options> {
    let mut options = Options { json: false, batch: 64, pages: 64, rounds: 301 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse().ok().filter(|&number: &usize| number > 0);
        match word.as_str() {
            "--json" => options.json = true,
            "--batch" => options.batch = number().filter(|&batch| batch <= LIST_MAX)?,
            "--pages" => options.pages = number()?,
            "--rounds" => options.rounds = number()?,
            _ => return None,
        }
    }
    Some(options)
}

fn measure(options: &Options) -> Vec<Round> {
    let (suite, naive) = (SivCmac512::new(&key()), Naive::new(&key()));
    let plain = pages(options.pages);
    let mut sealed = vec![Page::zeroed(); options.pages];
    let mut opened = sealed.clone();
    let mut tags = vec![[0; 16]; options.pages];
    let mut round = || {
        let seal = time(|| {
            each_list(options.batch, &plain, &mut sealed, &mut tags, |work| {
                lists::seal(&suite, id, work);
            });
        });
        let mut genuine = true;
        let open = time(|| {
            each_list(options.batch, &sealed, &mut opened, &mut tags, |work| {
                genuine &= lists::open(&suite, work);
            });
        });
        assert!(genuine && all_same(&plain, &opened), "what was sealed opens");
        let naive_seal = time(|| {
            for (number, ((plain, sealed), tag)) in
                (0..).zip(plain.iter().zip(&mut sealed).zip(&mut tags))
            {
                *tag = naive.seal(number, plain, sealed);
            }
        });
        let naive_open = time(|| {
            for (number, ((sealed, opened), tag)) in
                (0..).zip(sealed.iter().zip(&mut opened).zip(&tags))
            {
                genuine &= naive.open(number, sealed, tag, opened);
            }
        });
        assert!(genuine && all_same(&plain, &opened), "what the peer sealed opens");
        Round { seal, open, naive_seal, naive_open }
    };
    round(); // warm
    (0..options.rounds).map(|_| round()).collect()
}

/// Hands over the pages list by list.
fn each_list(
    batch: usize,
    from: &[Page],
    to: &mut [Page],
    tags: &mut [Tag],
    mut call: impl FnMut(Work<'_>),
) {
    let lists = from.chunks(batch).zip(to.chunks_mut(batch)).zip(tags.chunks_mut(batch));
    for (first, ((from, to), tags)) in (0..).step_by(batch).zip(lists) {
        call(Work { first, from, to, tags, landing: Landing::Hot });
    }
}

fn time(work: impl FnOnce()) -> f64 {
    let start = thread_time();
    work();
    thread_time() - start
}

fn all_same(a: &[Page], b: &[Page]) -> bool {
    a.iter().zip(b).all(|(a, b)| same(a, b))
}
