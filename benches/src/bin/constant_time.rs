//! Looks for secrets in the time that suites take, and fails if it finds one.
//!
//! `constant-time [--seconds N] [--only PART-OF-A-NAME] [--json]`. It also fails if it does not
//! find the one that is there on purpose: a check that cannot fail is none.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use benches::measure::Dice;
use benches::timing::{T_MAX, TRIES, checks};

struct Options {
    json: bool,
    seconds: f64,
    only: String,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: constant-time [--seconds N] [--only PART-OF-A-NAME] [--json]");
        return ExitCode::from(2);
    };
    let (mut checks, mut dice) = (checks(), Dice::new(0x5eed_0002));
    checks.retain(|check| check.leaks || check.name.contains(&options.only));
    let budget = Duration::from_secs_f64(options.seconds / checks.len() as f64);
    let mut told = serde_json::Map::new();
    let mut failed = vec![];
    for check in &mut checks {
        if std::io::stderr().is_terminal() {
            eprintln!("{}", check.name);
        }
        let found = check.run(budget, &mut dice);
        let passes = check.passes(&found);
        if !passes {
            failed.push(check.name.clone());
        }
        if !options.json {
            let verdict = if passes { "ok" } else { "FAILED" };
            let (t, samples, name) = (found.t, found.samples, &check.name);
            println!("{verdict:7} |t| {t:9.2}  {samples:8} samples  {name}");
        }
        told.insert(check.name.clone(), ((found.t * 100.0).round() / 100.0).into());
    }
    if options.json {
        let line = serde_json::json!({ "t": told, "t_max": T_MAX, "failed": failed });
        println!("{line}");
    } else {
        println!("time differs from |t| {T_MAX} on, {TRIES} times in a row; {} do", failed.len());
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn options() -> Option<Options> {
    let mut options = Options { json: false, seconds: 60.0, only: String::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.json = true,
            "--only" => options.only = words.next()?,
            "--seconds" => options.seconds = words.next()?.parse().ok()?,
            _ => return None,
        }
    }
    (0.0..=86_400.0).contains(&options.seconds).then_some(options)
}
