//! Every attack beats a machine that is wrong for it and loses to the sound one; spec/attacks.md
//! lists them all.
//!
//! An attack is a file in attacks/: a trace, or the name of a study in which the explorer finds it
//! by itself. Its head says in a sentence what is done, which action it is, whose it is, and what
//! it meets on the sound machine.

#[path = "attacks/played.rs"]
mod played;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sim::study::{Found, Study, Wanted};
use sim::trace::Trace;

/// An attack as it is written.
struct Attack {
    /// Its file.
    file: String,
    text: String,
}

impl Attack {
    /// What the head says under a key.
    fn head(&self, key: &str) -> &str {
        let key = format!("# {key}: ");
        let mut said = self.text.lines().filter_map(|line| line.strip_prefix(&key));
        let first = said.next().unwrap_or_else(|| panic!("{}: no {key}", self.file));
        assert!(said.next().is_none() && !first.is_empty(), "{}: one {key}", self.file);
        first
    }

    /// What a study's file says under a word.
    fn word(&self, word: &str) -> &str {
        let said = self.text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
        said.unwrap_or_else(|| panic!("{}: no {word}", self.file))
    }

    fn is_trace(&self) -> bool {
        Path::new(&self.file).extension().is_some_and(|extension| extension == "trace")
    }
}

/// Every file, by name.
fn attacks() -> Vec<Attack> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks");
    let mut attacks: Vec<Attack> = std::fs::read_dir(folder)
        .expect("the folder of attacks")
        .map(|file| {
            let path = file.expect("readable").path();
            let text = std::fs::read_to_string(&path).expect("text");
            let file = path.file_name().expect("a file").to_string_lossy().into_owned();
            Attack { file, text }
        })
        .collect();
    attacks.sort_by(|one, other| one.file.cmp(&other.file));
    attacks
}

#[test]
fn every_attack_says_what_it_is_and_whose() {
    for attack in attacks() {
        let Attack { file, text } = &attack;
        let says = text.split("\n# action: ").next().unwrap_or_default();
        assert!(says.starts_with("# ") && says.ends_with('.'), "{file} begins with a sentence");
        let source = attack.head("source");
        let dated = source.split(|letter: char| !letter.is_ascii_digit());
        let dated = dated.filter_map(|word| word.parse().ok()).any(|y| (1980..2100).contains(&y));
        assert!(dated, "{file}: a source has a year: {source}");
        attack.head("meets");
        assert!(text.lines().all(|line| line.len() <= 100), "{file}: a line is too long");
    }
}

#[test]
fn attacks_md_has_every_action_and_every_file() {
    let rows = spec::rows(spec::ATTACKS).skip_while(|row| row[0] != "---").skip(1);
    let mut unnamed: BTreeMap<String, String> = attacks()
        .iter()
        .map(|attack| (attack.file.clone(), attack.head("action").to_owned()))
        .collect();
    let mut actions = BTreeSet::new();
    for row in rows {
        let [group, action, files] = row[..] else { panic!("{row:?} has not three cells") };
        assert!(actions.insert((group, action)), "{action} is there twice");
        if let Some(why) = files.strip_prefix("none: ") {
            assert!(!why.is_empty(), "{action} has no file and no reason");
            continue;
        }
        for file in files.split(", ").map(|file| file.trim_matches('`')) {
            assert_eq!(unnamed.remove(file).as_deref(), Some(action), "{file}");
        }
    }
    assert!(unnamed.is_empty(), "in no row: {unnamed:?}");
    let of = |group: &str| actions.iter().filter(|(of, _)| *of == group).count();
    let counts = ["views", "sealed bytes", "frames", "control"].map(of);
    assert_eq!(counts, [19, 12, 7, 7], "rows of each group");
    assert_eq!(counts.iter().sum::<usize>(), actions.len(), "no other group");
}

#[test]
fn every_trace_beats_its_mutant_and_loses_to_the_sound_machine() {
    for attack in attacks().iter().filter(|attack| attack.is_trace()) {
        let file = &attack.file;
        let trace: Trace = attack.text.parse().unwrap_or_else(|bad| panic!("{file}: {bad}"));
        assert!(trace.mutant.is_some() && !trace.breaks.is_empty(), "{file} beats nobody");
        assert_eq!(trace.broken(), trace.breaks, "{file} on its mutant");
        let sound = Trace { mutant: None, ..trace.clone() };
        let (met, beaten) = (played::met(&sound), played::met(&trace));
        assert!(met.broken.is_empty(), "{file} breaks {:?} on the sound machine", met.broken);
        let all: Vec<&str> = beaten.broken.into_iter().collect();
        assert_eq!(all.join(" "), attack.head("breaks by its end"), "{file} on its mutant");
        let idle = met.idle.intersection(&beaten.idle).map(|number| trace.events[*number]);
        assert_eq!(idle.collect::<Vec<_>>(), [], "{file}: nothing happens here or there");
        assert_eq!(met.last, attack.head("meets"), "{file} on the sound machine");
        assert_ne!(met.last, beaten.last, "{file}: its mutant is no different");
    }
}

#[test]
fn every_study_finds_its_attack_where_it_is_wrong_and_only_there() {
    let mut sound: BTreeMap<&str, Found> = BTreeMap::new();
    for attack in attacks().iter().filter(|attack| !attack.is_trace()) {
        let (file, wrong) = (&attack.file, attack.word("wrong"));
        let study = Study::named(attack.word("study")).unwrap_or_else(|| panic!("{file}: study"));
        let entry = study.wrongs.iter().find(|entry| entry.name == wrong);
        let entry = entry.unwrap_or_else(|| panic!("{file}: no such wrong machine"));
        assert_eq!(attack.word("breaks"), entry.caught_by.join(" "), "{file}");
        let found = (study.explore)(Wanted { wrong: Some(entry.name), only: None });
        let (broken, events) = found.violation.unwrap_or_else(|| panic!("{file} finds nothing"));
        assert!(broken.iter().all(|id| entry.caught_by.contains(id)), "{file} breaks {broken:?}");
        assert!(!events.is_empty(), "{file} needs no event");
        let sound = sound
            .entry(study.name)
            .or_insert_with(|| (study.explore)(Wanted { wrong: None, only: None }));
        assert!(sound.violation.is_none() && !sound.cut, "{file}: the sound study breaks");
        let meets = attack.head("meets");
        assert!(sound.reached.contains(meets), "{file}: {meets} is not reached");
    }
}
