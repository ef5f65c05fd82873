//! Seeded runs: repeatable bit for bit, sound, not dull, caught when they go wrong, and alike with
//! the real cipher.

use std::collections::BTreeSet;

use sim::config::{CONFIGS, Config};
use sim::mutant::MUTANTS;
use sim::shrink::shrink;
use sim::sometimes::SOMETIMES;
use sim::swarm::draw::Dice;
use sim::swarm::{LONG, Run, fate, real, roomy};

/// The published seed; CI prints its hash in debug and in release.
const PUBLISHED: Run = Run { seed: 0x5eed, steps: 2000, config: &LONG, mutant: None };
const PUBLISHED_HASH: u64 = 0x72f1_cb62_4ee2_4311;

#[test]
fn the_published_seed_is_the_same_run_everywhere() {
    let (first, second) = (PUBLISHED.play(), PUBLISHED.play());
    println!("seed {:#x}: trace hash {:016x}", PUBLISHED.seed, first.hash);
    assert_eq!((first.hash, &first.trace.events), (second.hash, &second.trace.events));
    assert_eq!(first.hash, PUBLISHED_HASH, "{:016x}", first.hash);
    assert_ne!(Run { seed: 0x5eee, ..PUBLISHED }.play().hash, first.hash);
}

#[test]
fn the_dice_are_those_that_were_published() {
    // The first numbers of seed 1234567, from the algorithm's authors' C program.
    let mut dice = Dice::new(1_234_567);
    let drawn = [dice.word(), dice.word(), dice.word()];
    assert_eq!(
        drawn,
        [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
    );
}

/// The runs that tests look at: half on the large host, half on every published one in turn.
fn runs() -> impl Iterator<Item = Run> {
    let shapes = CONFIGS.iter().cycle().flat_map(|config| [&LONG, config]);
    (0..400).zip(shapes).map(|(seed, config)| Run { seed, steps: 600, config, mutant: None })
}

#[test]
fn every_run_is_sound_and_the_real_cipher_agrees() {
    let mut reached = BTreeSet::new();
    let (mut observations, mut sealed) = (0, 0);
    for run in runs() {
        let outcome = run.play();
        let trace = &outcome.trace;
        assert_eq!(trace.breaks, [""; 0], "{}\n{}", run.command(), shrink(trace.clone()));
        let alike = real::compare(&roomy(run.config), None, trace.events.iter().copied());
        let alike = alike.unwrap_or_else(|differs| panic!("{}\n{differs}", run.command()));
        observations += alike.observations;
        sealed += alike.sealed;
        reached.extend(outcome.reached);
    }
    println!("{observations} pages found alike, {sealed} seals");
    assert!(observations > 10_000 && sealed > 1000, "dull: {observations}, {sealed}");
    let missed = SOMETIMES.iter().map(|(name, _)| *name).filter(|name| !reached.contains(name));
    assert_eq!(missed.collect::<Vec<_>>(), [""; 0], "runs in which nothing happens prove nothing");
}

/// What runs on machines that are wrong on purpose must find. Those that runs from a few seeds do
/// not stumble on are the exploration's.
const RARE: &[&str] = &["trusts-version", "trusts-epoch", "trusts-stream", "trusts-gfn", "one-key"];

#[test]
fn runs_catch_what_is_wrong_and_shrink_it() {
    for entry in MUTANTS.iter().filter(|entry| !RARE.contains(&entry.name)) {
        let own = Config::named(entry.config).expect("published");
        let runs = (0..200).flat_map(|seed| {
            [&LONG, own].map(|config| Run { seed, steps: 600, config, mutant: Some(entry) })
        });
        let mut ends = runs.map(|run| run.play().trace);
        let caught = ends.find(|trace| !trace.breaks.is_empty());
        let caught = caught.unwrap_or_else(|| panic!("no run catches {}", entry.name));
        let clause = caught.breaks[0];
        let short = shrink(caught.clone());
        assert!(short.breaks.contains(&clause), "{}: {clause} became {short}", entry.name);
        assert_eq!(short.broken(), short.breaks, "{short}");
        let ends_at = |events: &[_]| fate(short.config, Some(entry.mutant), events);
        for skipped in 0..short.events.len() {
            let mut fewer = short.events.clone();
            fewer.remove(skipped);
            let same = ends_at(&fewer).is_some_and(|(_, broken)| broken.contains(&clause));
            assert!(!same, "{}: event {skipped} is not needed\n{short}", entry.name);
        }
    }
}

/// Machines that are wrong in what views find: seen by comparing them with real bytes, without any
/// invariant.
const SEEN_BY_COMPARING: &[&str] =
    &["maps-original", "replica-plain", "skips-scrub", "writes-back", "keeps-owner", "stale-frame"];

#[test]
fn the_real_cipher_disagrees_with_a_machine_that_is_wrong() {
    for name in SEEN_BY_COMPARING {
        let entry = MUTANTS.iter().find(|entry| entry.name == *name).expect("a mutant");
        let differs = (0..200).any(|seed| {
            let run = Run { seed, steps: 600, config: &LONG, mutant: None };
            let events = run.play().trace.events;
            real::compare(&roomy(&LONG), Some(entry.mutant), events).is_err()
        });
        assert!(differs, "nobody sees {name}");
    }
}
