//! A seeded run in a line for people and a line for programs.

use std::fmt::Write;

use super::real::{Agreed, Differs};
use super::{Outcome, Run, draw::Kind};
use crate::report::{list, text};
use crate::trace::Trace;

/// The first line of a recorded trace: where it comes from.
pub fn provenance(run: &Run) -> String {
    format!("# Found by: {}\n", run.command())
}

/// What a recorded trace is called.
pub fn name(run: &Run, trace: &Trace) -> String {
    let seed = format!("seed-{:x}-{}", run.seed, run.config.name);
    match (run.mutant, trace.breaks.first()) {
        (Some(entry), Some(clause)) => format!("{}-{clause}-{seed}", entry.name),
        (None, Some(clause)) => format!("{clause}-{seed}"),
        (_, None) => seed,
    }
}

/// What a run was and what became of it.
pub fn told(run: &Run, outcome: &Outcome, real: &Result<Agreed, Differs>) -> String {
    let weight = |kind: &Kind| outcome.mix.weight(*kind);
    let mix = Kind::ALL.iter().filter(|kind| weight(kind) > 0);
    let mix: Vec<String> = mix.map(|kind| format!("{kind:?} {}", weight(kind))).collect();
    let mut told = format!(
        "seed {:#x} on {:?}: {}\n{} events, trace hash {:016x}, {} interesting things reached\n",
        run.seed,
        run.config.name,
        mix.join(", "),
        outcome.trace.events.len(),
        outcome.hash,
        outcome.reached.len(),
    );
    let _ = match real {
        Ok(Agreed { events, observations, sealed }) => writeln!(
            told,
            "with the real cipher: {events} events, {observations} pages found alike, {sealed} of \
             them sealed for the first time"
        ),
        Err(differs) => writeln!(told, "with the real cipher: {differs}"),
    };
    told
}

/// The same as one JSON object.
pub fn json(run: &Run, outcome: &Outcome, real: &Result<Agreed, Differs>) -> String {
    let reached: Vec<&str> = outcome.reached.iter().copied().collect();
    let Agreed { events, observations, sealed } = real.clone().unwrap_or_default();
    let differs = real.as_ref().err().map(ToString::to_string);
    let differs: Vec<&str> = differs.as_deref().into_iter().collect();
    format!(
        "{{\"seed\":{},\"steps\":{},\"configuration\":{},\"events\":{},\"trace_hash\":\"{:016x}\",\
         \"violations\":{},\"sometimes_reached\":{},\"real_events\":{events},\
         \"real_observations\":{observations},\"real_sealed\":{sealed},\"real_differences\":{},\
         \"repeat\":{}}}",
        run.seed,
        run.steps,
        text(run.config.name),
        outcome.trace.events.len(),
        outcome.hash,
        list(&outcome.trace.breaks),
        list(&reached),
        list(&differs),
        text(&run.command()),
    )
}
