//! Traces are text: events print and parse back, and every kept trace ends as it says.

use std::path::{Path, PathBuf};

use sim::config::{CONFIGS, Config};
use sim::event::{Event, NoEvent};
use sim::explore::{Hunt, explore};
use sim::mutant::{Entry, MUTANTS};
use sim::trace::Trace;
use sim::world::play;

#[test]
fn every_kept_trace_ends_as_it_says() {
    let mut count = 0;
    for file in std::fs::read_dir(seeds()).expect("the folder of kept traces") {
        let path = file.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("text");
        let trace: Trace = text.parse().unwrap_or_else(|bad| panic!("{}: {bad}", path.display()));
        assert_eq!(trace.broken(), trace.breaks, "{}", path.display());
        let harmless = trace.mutant.is_some() && trace.breaks.is_empty();
        assert!(!harmless, "{} shows nothing", path.display());
        // The same events on a sound machine hurt nobody.
        let sound = Trace { mutant: None, breaks: Vec::new(), ..trace };
        assert_eq!(sound.broken(), [""; 0], "{} on a sound machine", path.display());
        count += 1;
    }
    assert!(count > 0, "no trace is kept");
}

/// Where traces are kept.
fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds")
}

fn kept() -> Vec<Trace> {
    let files = std::fs::read_dir(seeds()).expect("the folder of kept traces");
    let text = |file: std::io::Result<std::fs::DirEntry>| {
        std::fs::read_to_string(file.expect("readable").path()).expect("text")
    };
    files.map(|file| text(file).parse().expect("a trace")).collect()
}

#[test]
fn every_mutant_has_a_kept_trace_and_some_long_runs_are_sound() {
    let kept = kept();
    let of = |entry: &Entry| {
        kept.iter().any(|trace| trace.mutant.is_some_and(|mutant| mutant.name == entry.name))
    };
    let without: Vec<_> =
        MUTANTS.iter().filter(|entry| !of(entry)).map(|entry| entry.name).collect();
    assert_eq!(
        without, [""; 0],
        "add their shortest: cargo test --release -p sim --test replay -- --ignored"
    );
    let long = kept.iter().filter(|trace| trace.breaks.is_empty() && trace.events.len() >= 300);
    assert!(long.count() >= 8, "long runs are kept too");
}

#[test]
#[ignore = "writes what is missing into sim/seeds"]
fn keep_a_shortest_trace_of_every_mutant_that_has_none() {
    let kept = kept();
    for entry in MUTANTS {
        let has = |trace: &Trace| trace.mutant.is_some_and(|mutant| mutant.name == entry.name);
        let Some(id) = entry.caught_by.first().filter(|_| !kept.iter().any(has)) else { continue };
        let config = Config::named(entry.config).expect("published");
        let hunt = Hunt::wrong(config, entry.mutant, Some(id));
        let found = explore(&hunt, |_, _| {}).violation.expect("the mutant is caught");
        let mut trace = Trace::new(config, Some(entry), &found);
        trace.breaks = trace.broken();
        let text = format!(
            "# Found by exploration: {}.\n# The shortest way in which {id} catches it; a sound \
             machine passes.\n{trace}",
            entry.sentence
        );
        let file = seeds().join(format!("{}-{id}.trace", entry.name));
        std::fs::write(file, text).expect("writable");
    }
}

#[test]
fn every_event_that_comes_up_prints_and_parses_back() {
    for config in CONFIGS {
        let mut trace = config.setup();
        for turn in 0..200 {
            let events = play(config, None, trace.iter().copied(), |world| world.enabled());
            for event in &events {
                assert_eq!(event.to_string().parse(), Ok(*event));
            }
            let Some(event) = events.get(turn * 7 % events.len().max(1)) else { break };
            trace.push(*event);
        }
    }
}

#[test]
fn a_line_that_is_no_event_is_refused_with_the_line() {
    for line in ["", "cpu0", "cpu0 begin 0:0", "cpu300 step", "management hand 0:0 view/0:0/e1"] {
        assert_eq!(line.parse::<Event>(), Err(NoEvent(line.to_owned())));
    }
    let bad = "config page\ncpu0 dance".parse::<Trace>().expect_err("no event");
    assert_eq!(bad.line, 2);
    for stray in ["cpu7 step", "cpu0 begin 1:0 seal", "management map f3", "vm1 launch"] {
        let bad = format!("config page\n{stray}").parse::<Trace>().expect_err("no such thing");
        assert!(bad.why.contains(stray), "{bad}");
    }
    assert_eq!("cpu0 step".parse::<Trace>().expect_err("no configuration").line, 0);
}

#[test]
fn any_part_of_a_trace_is_a_trace() {
    let config = Config::named("page").expect("published");
    let mut trace = config.setup();
    for turn in 0..60 {
        let events = play(config, None, trace.iter().copied(), |world| world.enabled());
        trace.push(events[turn * 5 % events.len()]);
    }
    for skipped in 0..trace.len() {
        let part = trace.iter().enumerate().filter(|(index, _)| *index != skipped);
        play(config, None, part.map(|(_, event)| *event), |world| {
            assert_eq!(sim::invariant::broken(world, None).count(), 0);
        });
    }
}
