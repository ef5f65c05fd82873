//! What was found, in a line for people and a line for programs.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use crate::config::Config;
use crate::explore::Outcome;
use crate::invariant::INVARIANTS;
use crate::mutant::MUTANTS;
use crate::study::{Claim, Found, STUDIES, Study};

/// What came of one configuration or one study.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which one.
    pub name: &'static str,
    /// How far it looks.
    pub bounds: String,
    /// The ids of what does not hold.
    pub violations: Vec<&'static str>,
    /// The way there, if traces do not show it better.
    pub way: Vec<String>,
    /// States that differ in more than names.
    pub distinct_states: u64,
    /// States that differ at all.
    pub represented_states: u64,
    /// Events that can happen in them.
    pub transitions: u64,
    /// Those that were played: of others symmetry, or another order, tells what comes of them.
    pub played: u64,
    /// How long that took.
    pub seconds: f64,
    /// The `sometimes` properties that were met.
    pub reached: BTreeSet<&'static str>,
    /// Those that were promised and not met.
    pub missed: Vec<&'static str>,
    /// Whether a bound on states or memory ended it.
    pub cut: bool,
}

impl Row {
    /// Of an exploration of page views.
    pub fn of(config: &Config, outcome: &Outcome, seconds: f64) -> Self {
        Self {
            name: config.name,
            bounds: config.bounds(),
            violations: outcome.violation.iter().flat_map(|found| found.broken.clone()).collect(),
            way: Vec::new(),
            distinct_states: outcome.distinct_states,
            represented_states: outcome.represented_states,
            transitions: outcome.transitions,
            played: outcome.played,
            seconds,
            reached: outcome.reached.clone(),
            missed: missing(config.reaches, &outcome.reached),
            cut: outcome.cut,
        }
    }

    /// Of a study.
    pub fn of_study(study: &Study, found: Found, seconds: f64) -> Self {
        let (violations, way) = found.violation.unwrap_or_default();
        Self {
            name: study.name,
            bounds: study.bounds.to_owned(),
            violations,
            way,
            distinct_states: found.distinct_states,
            represented_states: found.distinct_states,
            transitions: found.transitions,
            played: found.transitions,
            seconds,
            missed: missing(study.reaches, &found.reached),
            reached: found.reached,
            cut: found.cut,
        }
    }

    /// Whether everything held and everything promised was met.
    pub const fn is_fine(&self) -> bool {
        self.violations.is_empty() && self.missed.is_empty() && !self.cut
    }
}

/// What was promised and not met.
fn missing(promised: &[&'static str], reached: &BTreeSet<&'static str>) -> Vec<&'static str> {
    promised.iter().copied().filter(|name| !reached.contains(name)).collect()
}

/// Every claim, of the page-view machine and of studies, in the order of spec/invariants.md.
pub fn claims() -> Vec<Claim> {
    let views =
        INVARIANTS.iter().map(|invariant| Claim { id: invariant.id, sentence: invariant.sentence });
    let studied = STUDIES.iter().flat_map(|study| study.claims.iter().copied());
    let mut claims: Vec<Claim> = views.chain(studied).collect();
    claims.sort_by_key(|claim| {
        let (letter, number) = claim.id.split_at(1);
        ("CIFLS".find(letter), number.parse::<u32>().ok())
    });
    claims
}

/// Every machine that is wrong on purpose: its name, what is wrong, and what must catch it.
pub fn wrong_machines() -> Vec<(&'static str, &'static str, &'static [&'static str])> {
    let views = MUTANTS.iter().map(|entry| (entry.name, entry.sentence, entry.caught_by));
    let studied = STUDIES.iter().flat_map(|study| study.wrongs);
    views.chain(studied.map(|wrong| (wrong.name, wrong.sentence, wrong.caught_by))).collect()
}

/// The claims that nothing wrong was caught by.
pub fn without_mutant(caught_by: &BTreeSet<&str>) -> Vec<&'static str> {
    claims().into_iter().map(|claim| claim.id).filter(|id| !caught_by.contains(id)).collect()
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, distinct_states, represented_states, transitions, played, .. } = self;
        write!(f, "{name:12} {distinct_states} states for {represented_states}, ")?;
        write!(f, "{transitions} transitions, {played} played, {:.2} s: ", self.seconds)?;
        match (self.violations.as_slice(), self.cut) {
            ([], false) => write!(f, "every invariant holds")?,
            ([], true) => write!(f, "cut short")?,
            (broken, _) => write!(f, "BROKEN: {}", broken.join(", "))?,
        }
        if !self.way.is_empty() {
            write!(f, " after {}", self.way.join("; "))?;
        }
        if self.missed.is_empty() { Ok(()) } else { write!(f, "; MISSED: {:?}", self.missed) }
    }
}

/// The results of `check` as one JSON object: of one row, or sums over all.
pub fn check_json(rows: &[Row]) -> String {
    let sum = |of: fn(&Row) -> u64| rows.iter().map(of).sum::<u64>();
    let transitions = sum(|row| row.transitions);
    let seconds: f64 = rows.iter().map(|row| row.seconds).sum();
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    let bounds: Vec<&str> = rows.iter().map(|row| row.bounds.as_str()).collect();
    let violations: Vec<&str> = rows.iter().flat_map(|row| row.violations.clone()).collect();
    let reached: BTreeSet<&str> = rows.iter().flat_map(|row| row.reached.clone()).collect();
    let missed: Vec<&str> = rows.iter().flat_map(|row| row.missed.clone()).collect();
    format!(
        "{{\"configuration\":{},\"bounds\":{},\"violations\":{},\"distinct_states\":{},\
         \"represented_states\":{},\"transitions\":{transitions},\"played\":{},\
         \"seconds\":{seconds:.3},\"transitions_per_second\":{:.0},\"sometimes_reached\":{},\
         \"sometimes_missed\":{}{}}}",
        text(&names.join(" ")),
        text(&bounds.join("; ")),
        list(&violations),
        sum(|row| row.distinct_states),
        sum(|row| row.represented_states),
        sum(|row| row.played),
        transitions as f64 / seconds.max(f64::EPSILON),
        list(&reached.into_iter().collect::<Vec<_>>()),
        list(&missed),
        tlc(rows)
    )
}

/// What TLC found, where it explored the same configuration: tests compare them, live.
fn tlc(rows: &[Row]) -> String {
    let [row] = rows else { return String::new() };
    let found = spec::tlc_distinct_states().find(|(name, _)| *name == row.name);
    found.map_or_else(String::new, |(_, states)| format!(",\"tlc_distinct_states\":{states}"))
}

/// The results of `mutants` as one JSON object.
pub fn mutants_json(survivors: &[&str], unproven: &[&str]) -> String {
    let survivors: BTreeSet<&str> = survivors.iter().copied().collect();
    let names: Vec<&str> = survivors.into_iter().collect();
    format!(
        "{{\"mutants\":{},\"caught\":{},\"invariants\":{},\"survivors\":{},\
         \"invariants_without_mutant\":{}}}",
        wrong_machines().len(),
        wrong_machines().len() - names.len(),
        claims().len(),
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
