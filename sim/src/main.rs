//! The model checker's door for people: check configurations, hunt mutants, replay traces.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
#[expect(clippy::disallowed_types, reason = "times a whole run; nothing in the model sees it")]
use std::time::Instant;

use sim::config::{CONFIGS, Config};
use sim::explain;
use sim::explore::{Hunt, Outcome, explore};
use sim::mutant::{Entry, HAS_CORES, MUTANTS};
use sim::report::{self, Row};
use sim::shrink::shrink;
use sim::study::{STUDIES, Study, Wanted};
use sim::swarm::{self, LONG, Run, real, roomy};
use sim::trace::Trace;

const USAGE: &str = "\
Explores the shipped core between any two steps, on a simulated machine, under attack.

usage: sim check [--config NAME] [--no-symmetry] [--every-order] [--json]
                                             every reachable state; all configurations, or one
       sim mutants [--json]                  machines that are wrong on purpose; all must be caught
       sim run --seed S --steps N [--config NAME] [--mutant NAME] [--record DIR] [--json]
                                             a long run from a seed, also with the real cipher
       sim replay FILE                       one trace, and what does not hold after it
       sim explain FILE --html OUT           the same as a page for a browser, step by step
       sim list                              configurations and their bounds

exit code: 0 fine, 1 something does not hold, 2 usage";

/// What is left out because something else stands for it.
#[derive(Clone, Copy)]
struct Less {
    symmetry: bool,
    one_order: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let json = words.iter().any(|word| word == "--json");
    let asked = |flag: &str| words.iter().any(|word| word == flag);
    let less = Less { symmetry: !asked("--no-symmetry"), one_order: !asked("--every-order") };
    let flags = ["--json", "--no-symmetry", "--every-order"];
    let words: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| !flags.contains(word)).collect();
    match words.as_slice() {
        ["check"] => check_all(less, json),
        ["check", "--config", name] => match (Config::named(name), Study::named(name)) {
            (Some(config), _) => checked(&[explored(config, less)], json),
            (None, Some(study)) => checked(&[studied(study)], json),
            (None, None) => usage(&format!("no configuration is called {name:?}; see `sim list`")),
        },
        ["mutants"] => mutants(json),
        ["run", options @ ..] => match run_options(options) {
            Ok((wanted, record)) => run(&wanted, record, json),
            Err(message) => usage(&message),
        },
        ["replay", file] => replay(file),
        ["explain", file, "--html", out] => explain(file, out),
        ["list"] => {
            for config in CONFIGS {
                println!("{:8} {}\n         {}", config.name, config.purpose, config.bounds());
            }
            for study in STUDIES {
                println!("{:8} {}\n         {}", study.name, study.purpose, study.bounds);
            }
            ExitCode::SUCCESS
        }
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => usage(USAGE),
    }
}

fn usage(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(2)
}

/// Runs one hunt, with progress on a terminal.
fn timed(hunt: &Hunt<'_>) -> (Outcome, f64) {
    #[expect(clippy::disallowed_types, reason = "times a whole run; nothing in the model sees it")]
    let begun = Instant::now();
    let shows = std::io::stderr().is_terminal();
    let outcome = explore(hunt, |states, transitions| {
        if shows {
            let rate = transitions as f64 / begun.elapsed().as_secs_f64();
            eprint!("\r{}: {states} states, {rate:.0} transitions/s ", hunt.config.name);
        }
    });
    if shows {
        eprint!("\r\x1b[K");
    }
    (outcome, begun.elapsed().as_secs_f64())
}

/// Every configuration and every study.
fn check_all(less: Less, json: bool) -> ExitCode {
    let mut rows: Vec<Row> = CONFIGS.iter().map(|config| explored(config, less)).collect();
    rows.extend(STUDIES.iter().map(|study| studied(study)));
    checked(&rows, json)
}

fn explored(config: &Config, less: Less) -> Row {
    let Less { symmetry, one_order } = less;
    let (outcome, seconds) = timed(&Hunt { symmetry, one_order, ..Hunt::sound(config) });
    let row = Row::of(config, &outcome, seconds);
    println!("{row}");
    if let Some(violation) = &outcome.violation {
        println!("{}", Trace::new(config, None, violation));
    }
    row
}

fn studied(study: &Study) -> Row {
    #[expect(clippy::disallowed_types, reason = "times a whole run; nothing in the model sees it")]
    let begun = Instant::now();
    let found = (study.explore)(Wanted::default());
    let row = Row::of_study(study, found, begun.elapsed().as_secs_f64());
    println!("{row}");
    row
}

fn checked(rows: &[Row], json: bool) -> ExitCode {
    if json {
        println!("{}", report::check_json(rows));
    }
    if rows.iter().all(Row::is_fine) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Hunts everything that is wrong on purpose, by each claim that must catch it.
fn mutants(json: bool) -> ExitCode {
    let mut survivors = Vec::new();
    let mut caught_by = BTreeSet::new();
    for Entry { mutant, name, sentence, config, caught_by: ids } in MUTANTS {
        let Some(config) = Config::named(config) else { continue };
        println!("{name}: {sentence}");
        for id in *ids {
            let (outcome, _) = timed(&Hunt::wrong(config, *mutant, Some(id)));
            let trace = outcome
                .violation
                .map(|found| found.trace.iter().map(ToString::to_string).collect::<Vec<_>>());
            let caught = told(id, trace, outcome.distinct_states);
            if caught { _ = caught_by.insert(*id) } else { survivors.push(*name) }
        }
    }
    for (study, wrong) in
        STUDIES.iter().flat_map(|study| study.wrongs.iter().map(move |wrong| (study, wrong)))
    {
        println!("{}: {}", wrong.name, wrong.sentence);
        for id in wrong.caught_by {
            let found = (study.explore)(Wanted { wrong: Some(wrong.name), only: Some(id) });
            let trace = found.violation.map(|(_, trace)| trace);
            let caught = told(id, trace, found.distinct_states);
            if caught { _ = caught_by.insert(*id) } else { survivors.push(wrong.name) }
        }
    }
    if !HAS_CORES {
        println!("wrong cores are not compiled in: --features wrong-cores");
    }
    let unproven = report::without_mutant(&caught_by);
    if json {
        println!("{}", report::mutants_json(&survivors, &unproven));
    }
    if survivors.is_empty() && unproven.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Says how a claim caught something wrong; false if it did not.
fn told(id: &str, trace: Option<Vec<String>>, states: u64) -> bool {
    match &trace {
        None => println!("  NOT caught by {id}"),
        Some(events) => {
            let (length, events) = (events.len(), events.join("; "));
            println!("  {id} after {length} events, {states} states: {events}");
        }
    }
    trace.is_some()
}

/// The run that was asked for, and where to write it down.
fn run_options<'a>(mut words: &[&'a str]) -> Result<(Run, Option<&'a str>), String> {
    let mut wanted = Run { seed: 0, steps: 1000, config: &LONG, mutant: None };
    let mut record = None;
    while let [option, value, rest @ ..] = words {
        let bad = || format!("{option} {value}: not understood\n{USAGE}");
        match *option {
            "--seed" => wanted.seed = number(value).ok_or_else(bad)?,
            "--steps" => wanted.steps = value.parse().map_err(|_| bad())?,
            "--config" => wanted.config = Config::named(value).ok_or_else(bad)?,
            "--mutant" => {
                let found = MUTANTS.iter().find(|entry| entry.name == *value);
                wanted.mutant = Some(found.ok_or_else(bad)?);
            }
            "--record" => record = Some(*value),
            _ => return Err(bad()),
        }
        words = rest;
    }
    if words.is_empty() { Ok((wanted, record)) } else { Err(USAGE.to_owned()) }
}

/// A seed, in decimal or, after 0x, in hexadecimal.
fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}

fn run(wanted: &Run, record: Option<&str>, json: bool) -> ExitCode {
    let outcome = wanted.play();
    let mutant = wanted.mutant.map(|entry| entry.mutant);
    let events = outcome.trace.events.iter().copied();
    let real = real::compare(&roomy(wanted.config), mutant, events);
    print!("{}", swarm::report::told(wanted, &outcome, &real));
    let fine = outcome.trace.breaks.is_empty();
    let trace = if fine { outcome.trace.clone() } else { shrink(outcome.trace.clone()) };
    if !fine {
        let (length, events) = (trace.events.len(), outcome.trace.events.len());
        println!("{} broken after {events} events; {length} are enough:", trace.breaks.join(", "));
        print!("{trace}");
        println!("repeat: {}", wanted.command());
    }
    if let Some(folder) = record {
        let file = format!("{folder}/{}.trace", swarm::report::name(wanted, &trace));
        let text = format!("{}{trace}", swarm::report::provenance(wanted));
        if let Err(error) = std::fs::write(&file, text) {
            return usage(&format!("{file}: {error}"));
        }
        println!("repeat: cargo run --release -p sim -- replay {file}");
    }
    if json {
        println!("{}", swarm::report::json(wanted, &outcome, &real));
    }
    if fine && real.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn explain(file: &str, out: &str) -> ExitCode {
    let written = std::fs::read_to_string(file)
        .map_err(|error| format!("{file}: {error}"))
        .and_then(|text| {
            let trace: Trace = text.parse().map_err(|error| format!("{file}: {error}"))?;
            let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
            let page = explain::html(&trace, &name, &explain::notes(&text));
            std::fs::write(out, page).map_err(|error| format!("{out}: {error}"))
        });
    match written {
        Ok(()) => {
            println!("{out}: open it in a browser; the arrow keys step");
            ExitCode::SUCCESS
        }
        Err(message) => usage(&message),
    }
}

fn replay(file: &str) -> ExitCode {
    let trace = std::fs::read_to_string(file)
        .map_err(|error| format!("{file}: {error}"))
        .and_then(|text| text.parse::<Trace>().map_err(|error| format!("{file}: {error}")));
    match trace {
        Err(message) => usage(&message),
        Ok(trace) => {
            print!("{}", trace.told());
            let broken = trace.broken();
            if broken == trace.breaks {
                println!(
                    "as expected: {}",
                    if broken.is_empty() {
                        "everything holds".into()
                    } else {
                        broken.join(", ") + " broken"
                    }
                );
                ExitCode::SUCCESS
            } else {
                println!("broken: {broken:?}, expected: {:?}", trace.breaks);
                ExitCode::FAILURE
            }
        }
    }
}
