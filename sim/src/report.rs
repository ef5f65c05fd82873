//! What was found, in a line for people and a line for programs.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::config::Config;
use crate::explore::Outcome;
use crate::invariant::INVARIANTS;
use crate::mutant::MUTANTS;
use crate::sometimes::SOMETIMES;

/// What the configuration promises to reach and did not.
pub fn missed(config: &Config, outcome: &Outcome) -> Vec<&'static str> {
    config.reaches.iter().copied().filter(|name| !outcome.reached.contains(name)).collect()
}

/// The invariants that no mutant of the list was caught by.
pub fn without_mutant(caught_by: &BTreeSet<&str>) -> Vec<&'static str> {
    INVARIANTS.iter().map(|invariant| invariant.id).filter(|id| !caught_by.contains(id)).collect()
}

/// One configuration in one line.
pub fn line(config: &Config, outcome: &Outcome, seconds: f64) -> String {
    let verdict = match &outcome.violation {
        Some(violation) => format!("BROKEN: {}", violation.broken.join(", ")),
        None if outcome.cut => "cut short".to_owned(),
        None => "every invariant holds".to_owned(),
    };
    let missed = missed(config, outcome);
    let missed = if missed.is_empty() { String::new() } else { format!("; MISSED: {missed:?}") };
    format!(
        "{:8} {} states for {}, {} transitions, {seconds:.2} s: {verdict}{missed}",
        config.name, outcome.distinct_states, outcome.represented_states, outcome.transitions
    )
}

/// The results of `check` as one JSON object: of one configuration, or sums over all.
pub fn check_json(results: &[(&Config, Outcome, f64)]) -> String {
    let sum = |of: fn(&Outcome) -> u64| results.iter().map(|(_, outcome, _)| of(outcome)).sum();
    let states: u64 = sum(|outcome| outcome.distinct_states);
    let represented: u64 = sum(|outcome| outcome.represented_states);
    let transitions: u64 = sum(|outcome| outcome.transitions);
    let seconds: f64 = results.iter().map(|(_, _, seconds)| seconds).sum();
    let names: Vec<&str> = results.iter().map(|(config, ..)| config.name).collect();
    let bounds: Vec<String> = results.iter().map(|(config, ..)| config.bounds()).collect();
    let violations = results.iter().filter_map(|(_, outcome, _)| outcome.violation.as_ref());
    let violations: Vec<&str> = violations.flat_map(|found| found.broken.clone()).collect();
    let reached: BTreeSet<&str> =
        results.iter().flat_map(|(_, outcome, _)| outcome.reached.iter().copied()).collect();
    let missed: Vec<&str> =
        results.iter().flat_map(|(config, outcome, _)| missed(config, outcome)).collect();
    let reached: Vec<&str> =
        SOMETIMES.iter().map(|(name, _)| *name).filter(|name| reached.contains(name)).collect();
    format!(
        "{{\"configuration\":{},\"bounds\":{},\"violations\":{},\"distinct_states\":{states},\
         \"represented_states\":{represented},\"transitions\":{transitions},\
         \"seconds\":{seconds:.3},\"transitions_per_second\":{:.0},\"sometimes_reached\":{},\
         \"sometimes_missed\":{}{}}}",
        text(&names.join(" ")),
        text(&bounds.join("; ")),
        list(&violations),
        transitions as f64 / seconds.max(f64::EPSILON),
        list(&reached),
        list(&missed),
        tlc(results)
    )
}

/// What TLC found, where it explored the same configuration: tests compare them, live.
fn tlc(results: &[(&Config, Outcome, f64)]) -> String {
    let [(config, ..)] = results else { return String::new() };
    let found = spec::tlc_distinct_states().find(|(name, _)| *name == config.name);
    found.map_or_else(String::new, |(_, states)| format!(",\"tlc_distinct_states\":{states}"))
}

/// The results of `mutants` as one JSON object.
pub fn mutants_json(survivors: &[&str], unproven: &[&str]) -> String {
    let survivors: BTreeSet<&str> = survivors.iter().copied().collect();
    let names: Vec<&str> = survivors.into_iter().collect();
    format!(
        "{{\"mutants\":{},\"caught\":{},\"invariants\":{},\"survivors\":{},\
         \"invariants_without_mutant\":{}}}",
        MUTANTS.len(),
        MUTANTS.len() - names.len(),
        INVARIANTS.len(),
        list(&names),
        list(unproven)
    )
}

pub(crate) fn list(items: &[&str]) -> String {
    let items: Vec<String> = items.iter().map(|item| text(item)).collect();
    format!("[{}]", items.join(","))
}

pub(crate) fn text(text: &str) -> String {
    let mut quoted = String::from('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if control < ' ' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
