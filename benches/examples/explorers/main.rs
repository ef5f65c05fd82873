//! How many transitions a second sim's explorer makes, and stateright's breadth-first search of
//! the same model: the same states, the same events, two threads each, in turns.
//!
//! `explorers [--config NAME] [--rounds N] [--at-least RATIO] [--json]`. Fails if the two do not
//! count the same states and transitions, or if sim's explorer, which knows symmetry, does not see
//! all states so many times as fast.

mod model;

use std::process::ExitCode;
use std::time::Instant;

use benches::measure::{Dice, median};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use sim::config::Config;
use sim::explore::{Hunt, WORKERS, explore};
use stateright::{Checker, Model};

use model::{Comes, Explored};

/// An explorer.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// Ours; with the oracle of spec beside it, or without.
    Sim { oracle: bool },
    /// Theirs.
    Stateright(Comes),
}

/// Everybody: first who is compared, then those that it is compared with.
const FIELD: [(&str, Who); 5] = [
    ("sim", Who::Sim { oracle: true }),
    ("sim-without-oracle", Who::Sim { oracle: false }),
    ("stateright-anew", Who::Stateright(Comes::Anew)),
    ("stateright", Who::Stateright(Comes::Stays)),
    ("stateright-back", Who::Stateright(Comes::Back)),
];

/// Whom ratios are of.
const PEER: &str = "stateright";

struct Options {
    json: bool,
    config: &'static Config,
    rounds: usize,
    at_least: f64,
}

/// What one exploration counted, and what it took.
struct Turn {
    states: u64,
    transitions: u64,
    /// By the clock on the wall.
    seconds: f64,
    /// Of all CPUs.
    cpu_seconds: f64,
}

fn main() -> ExitCode {
    let Some(options) = options() else {
        eprintln!("usage: explorers [--config NAME] [--rounds N] [--at-least RATIO] [--json]");
        return ExitCode::from(2);
    };
    let plain = compared(&options, false);
    let renamed = compared(&options, true);
    let ratio = plain["ratio"][PEER].as_f64().unwrap_or_default();
    let seconds = |row: &Value, name: &str| row["seconds"][name].as_f64().unwrap_or_default();
    let whole = seconds(&plain, PEER) / seconds(&renamed, FIELD[0].0);
    println!("all states: {whole:.2} times as fast with symmetry as {PEER} without");
    if options.json {
        let line = json!({
            "configuration": options.config.name,
            "bounds": options.config.bounds(),
            "threads": WORKERS,
            "rounds": options.rounds,
            "ratio": ratio,
            "ratio_all_states": rounded(whole),
            "without_symmetry": plain,
            "with_symmetry": renamed,
            "peer": PEER,
            "versions": { "sim": env!("CARGO_PKG_VERSION"), "stateright": version(PEER) },
        });
        println!("{line}");
    }
    if whole >= options.at_least {
        return ExitCode::SUCCESS;
    }
    eprintln!("{whole:.2} times as fast, and not {}", options.at_least);
    ExitCode::FAILURE
}

fn options() -> Option<Options> {
    let config = Config::named("guests-deep")?;
    let mut options = Options { json: false, config, rounds: 5, at_least: 0.0 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.json = true,
            "--config" => options.config = Config::named(&words.next()?)?,
            "--rounds" => {
                options.rounds = words.next()?.parse().ok().filter(|&rounds| rounds > 0)?
            }
            "--at-least" => options.at_least = words.next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(options)
}

/// Everybody's turns, round by round, in an order drawn anew.
fn compared(options: &Options, symmetry: bool) -> Value {
    let mut dice = Dice::new(0x9e37_79b9_7f4a_7c15);
    let mut turns: [Vec<Turn>; FIELD.len()] = Default::default();
    for _ in 0..options.rounds {
        for index in dice.order(FIELD.len()) {
            turns[index].push(FIELD[index].1.turn(options.config, symmetry));
        }
    }
    let &Turn { states, transitions, .. } = &turns[0][0];
    let same = |turn: &Turn| (turn.states, turn.transitions) == (states, transitions);
    assert!(turns.iter().flatten().all(same), "everybody explores the same");
    println!(
        "{}, symmetry {symmetry}: {states} states, {transitions} transitions",
        options.config.name
    );
    let mut told = json!({ "distinct_states": states, "transitions": transitions });
    for ((name, _), peer) in FIELD.iter().zip(&turns) {
        let seconds = median(peer.iter().map(|turn| turn.seconds).collect());
        let rate = (transitions as f64 / seconds).round();
        let ratio = |time: fn(&Turn) -> f64| {
            median(peer.iter().zip(&turns[0]).map(|(peer, ours)| time(peer) / time(ours)).collect())
        };
        let (wall, cpu) = (ratio(|turn| turn.seconds), ratio(|turn| turn.cpu_seconds));
        println!("  {name:20} {rate:9} transitions/s   {wall:5.2}   {cpu:5.2} by CPU time");
        told["seconds"][*name] = rounded(seconds);
        told["transitions_per_second"][*name] = rate.into();
        told["ratio"][*name] = rounded(wall);
        told["ratio_of_cpu_time"][*name] = rounded(cpu);
    }
    told
}

fn rounded(ratio: f64) -> Value {
    ((ratio * 1000.0).round() / 1000.0).into()
}

impl Who {
    fn turn(self, config: &'static Config, symmetry: bool) -> Turn {
        let (begun, had) = (Instant::now(), cpu_time());
        let (states, transitions) = self.explores(config, symmetry);
        let seconds = begun.elapsed().as_secs_f64();
        Turn { states, transitions, seconds, cpu_seconds: cpu_time() - had }
    }

    /// States and transitions that it counts.
    fn explores(self, config: &'static Config, symmetry: bool) -> (u64, u64) {
        match self {
            Self::Sim { oracle } => {
                let hunt = Hunt { symmetry, oracle, ..Hunt::sound(config) };
                let found = explore(&hunt, |_, _| {});
                assert!(found.violation.is_none() && !found.cut, "all holds, to the end");
                (found.distinct_states, found.transitions)
            }
            Self::Stateright(comes) => {
                let model = Explored::new(config, symmetry, comes);
                let checker = model.checker().threads(WORKERS).spawn_bfs().join();
                checker.assert_properties();
                (checker.unique_state_count() as u64, checker.model().transitions())
            }
        }
    }
}

/// Seconds of CPU time that all threads have had.
fn cpu_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The version of a package that this was built with.
fn version(package: &str) -> Option<&'static str> {
    let lock = include_str!("../../../Cargo.lock");
    let (_, behind) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
    behind.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_explores_the_same_states_by_the_same_events() {
        for (name, symmetry) in [("names-guests", false), ("names-guests", true), ("build", false)]
        {
            let config = Config::named(name).expect("published");
            let counted = FIELD.map(|(_, who)| who.explores(config, symmetry));
            assert!(counted[0].0 > 500, "{name} is not worth a comparison");
            assert_eq!(counted, [counted[0]; FIELD.len()], "{name}");
        }
    }
}
