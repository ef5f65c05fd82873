//! A trace as a file: a configuration, perhaps a mutant, what breaks, and one event a line.
//!
//! ```text
//! # Any number of words about where it comes from.
//! config page
//! mutant forgets-fence
//! breaks C2 C3
//! cpu0 begin 0:0 share write never
//! ```

use std::fmt;
use std::str::FromStr;

use crate::config::Config;
use crate::event::Event;
use crate::explore::Violation;
use crate::invariant::{self, INVARIANTS};
use crate::mutant::{Entry, MUTANTS};
use crate::world::play;

/// A run that is worth keeping.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The bounds that it was found in.
    pub config: &'static Config,
    /// What was wrong with the machine.
    pub mutant: Option<&'static Entry>,
    /// What does not hold at its end.
    pub breaks: Vec<&'static str>,
    /// What happens.
    pub events: Vec<Event>,
}

/// A line that does not belong in a trace, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadTrace {
    /// Which line, from 1; 0 if one is missing.
    pub line: usize,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BadTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.why)
    }
}

impl std::error::Error for BadTrace {}

impl Trace {
    /// The trace of a counterexample in a published configuration.
    pub fn new(config: &Config, mutant: Option<&'static Entry>, found: &Violation) -> Self {
        let config = Config::named(config.name).expect("counterexamples are found in these");
        Self { config, mutant, breaks: found.broken.clone(), events: found.trace.clone() }
    }

    /// Everything from the empty host on.
    fn all(&self) -> Vec<Event> {
        self.config.setup().into_iter().chain(self.events.iter().copied()).collect()
    }

    /// What does not hold at the end, or as soon as anything does not.
    pub fn broken(&self) -> Vec<&'static str> {
        let all = self.all();
        let mutant = self.mutant.map(|entry| entry.mutant);
        let setup = all.len() - self.events.len();
        (setup..=all.len())
            .map(|end| {
                play(self.config, mutant, all[..end].iter().copied(), |world| {
                    invariant::broken(world, None).collect::<Vec<_>>()
                })
            })
            .find(|broken| !broken.is_empty())
            .unwrap_or_default()
    }

    /// The run, event by event, with what every page is afterwards.
    pub fn told(&self) -> String {
        let all = self.all();
        let mutant = self.mutant.map(|entry| entry.mutant);
        let setup = all.len() - self.events.len();
        let line = |end: usize| {
            play(self.config, mutant, all[..end].iter().copied(), |world| {
                let page = |page| format!("{page} {:?}", world.state(page));
                let pages: Vec<String> = world.config.page_refs().map(page).collect();
                let event = &all[end - 1];
                format!("{:44} {}\n", event.to_string(), pages.join(", "))
            })
        };
        (setup + 1..=all.len()).map(line).collect()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "config {}", self.config.name)?;
        if let Some(entry) = self.mutant {
            writeln!(f, "mutant {}", entry.name)?;
        }
        if !self.breaks.is_empty() {
            writeln!(f, "breaks {}", self.breaks.join(" "))?;
        }
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl FromStr for Trace {
    type Err = BadTrace;

    fn from_str(text: &str) -> Result<Self, BadTrace> {
        let (mut config, mut mutant) = (None, None);
        let (mut breaks, mut events) = (Vec::new(), Vec::<Event>::new());
        for (line, words) in (1..).zip(text.lines()) {
            let bad = |why: &str| BadTrace { line, why: format!("{why}: {words:?}") };
            match words.split_whitespace().collect::<Vec<_>>().as_slice() {
                [] => {}
                [word, ..] if word.starts_with('#') => {}
                ["config", name] => {
                    config = Some(Config::named(name).ok_or_else(|| bad("no such configuration"))?);
                }
                ["mutant", name] => {
                    let found = MUTANTS.iter().find(|entry| entry.name == *name);
                    mutant = Some(found.ok_or_else(|| bad("no such mutant"))?);
                }
                ["breaks", ids @ ..] => {
                    for id in ids {
                        let found = INVARIANTS.iter().find(|invariant| invariant.id == *id);
                        breaks.push(found.ok_or_else(|| bad("no such invariant"))?.id);
                    }
                }
                _ => events.push(words.parse().map_err(|_| bad("no such event"))?),
            }
        }
        let missing = |why: String| BadTrace { line: 0, why };
        let config = config.ok_or_else(|| missing("no configuration is named".to_owned()))?;
        match events.iter().find(|event| !event.fits(config)) {
            Some(event) => Err(missing(format!("{} has nothing for {event}", config.name))),
            None => Ok(Self { config, mutant, breaks, events }),
        }
    }
}
