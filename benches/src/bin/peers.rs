//! Our suites and everybody else's ciphers on the same pages, in one interleaved run.
//!
//! `--json` prints one object on the last line of standard output, else tables are printed.
//! Everyone's result is checked before anything is timed and after every turn.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use benches::candidate::Candidate;
use benches::measure::{Area, Dice, Field, by_batch, cold, l2, prove, single_page, two_cores};
use benches::report::Report;
use benches::{TWINS, facts, limits, ours, peers};
use clap::Parser;

/// Measures our suites and their peers side by side.
#[derive(Debug, Parser)]
struct Options {
    /// One line of JSON instead of tables
    #[arg(long)]
    json: bool,
    /// For how long to measure; making the pages ready comes on top of it
    #[arg(long, value_name = "N", default_value_t = 30.0, value_parser = seconds)]
    seconds: f64,
    /// Writes the JSON, the machine, the compiler and the commit to a file too
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// Of the cold area: 256 MiB to read, 256 MiB to write, and as much that is sealed.
const PAGES: usize = 1 << 16;

/// How often each kind of memory has its turn, so that no quarter of a minute decides about one.
const PASSES: u32 = 3;

/// The peers that have a line in the plot.
const PLOTTED: [&str; 2] = ["aws-lc-aes-256-gcm", "aws-lc-aes-256-gcm-siv"];

fn main() -> ExitCode {
    let options = Options::parse();
    let report = measure(options.seconds);
    let json = report.json();
    if let Some(path) = &options.record {
        let mut record = json.clone();
        record["machine"] = facts();
        record["seconds"] = options.seconds.into();
        if let Err(error) = std::fs::write(path, format!("{record:#}\n")) {
            eprintln!("{} can't be written: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if options.json {
        println!("{json}");
    } else {
        print!("{report}");
    }
    ExitCode::SUCCESS
}

fn seconds(word: &str) -> Result<f64, String> {
    let number: f64 = word.parse().map_err(|error| format!("{error}"))?;
    let fine = (0.0..=86_400.0).contains(&number);
    fine.then_some(number).ok_or_else(|| "at most a day".to_owned())
}

fn measure(seconds: f64) -> Report {
    let share = |of: f64| Duration::from_secs_f64(seconds * of / f64::from(PASSES));
    let mut dice = Dice::new(0x5eed_0001);
    let (mut all, mut plotted, mut cached) = (everyone(), plotted(), cached());
    said("checking everyone");
    prove(&mut all, TWINS);
    said("making pages");
    let mut area = Area::new(PAGES);
    let pass = |pass| {
        said(&format!("measuring, {} of {PASSES}", pass + 1));
        [
            cold(&mut all, &mut area, share(0.35), &mut dice),
            single_page(&mut all, &mut area, share(0.1), &mut dice),
            by_batch(&mut plotted, &mut area, share(0.25), &mut dice),
            l2(&mut cached, share(0.1), &mut dice),
        ]
    };
    let [cold, single_page, by_batch, l2] = (0..PASSES)
        .map(pass)
        .reduce(|[a, b, c, d], [e, f, g, h]| [a.join(e), b.join(f), c.join(g), d.join(h)])
        .expect("there is a pass");
    drop(area);
    said("measuring, two cores");
    let two_cores = two_cores(ours, PAGES / 2, share(0.2) * PASSES);
    Report { cold, l2, single_page, two_cores, by_batch, pages: PAGES }
}

fn everyone() -> Vec<Box<dyn Candidate>> {
    ours().into_iter().chain(peers()).collect()
}

fn plotted() -> Box<Field> {
    let peers = peers().into_iter().filter(|peer| PLOTTED.contains(&peer.name()));
    ours().into_iter().chain(peers).collect()
}

/// A copy past the cache has nothing to say about the cache; what registers allow has.
fn cached() -> Box<Field> {
    let inside = everyone().into_iter().filter(|candidate| candidate.name() != "nt-copy");
    inside.chain(limits()).collect()
}

/// Tells who is waiting what is going on.
fn said(what: &str) {
    if std::io::stderr().is_terminal() {
        eprintln!("{what}");
    }
}
