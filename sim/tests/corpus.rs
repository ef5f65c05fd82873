//! What fuzzers found interesting is replayed on every test run, with the toolchain at hand.

use std::path::Path;

use sim::fuzz::TARGETS;

#[test]
fn every_file_of_every_corpus_holds() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    for (name, replay) in TARGETS {
        let target = fuzz.join("fuzz_targets").join(format!("{name}.rs"));
        assert!(target.exists(), "no target is called {name}");
        let folder = fuzz.join("corpus").join(name);
        let files = std::fs::read_dir(&folder).expect("a corpus");
        let mut inputs = 0;
        for file in files {
            let path = file.expect("readable").path();
            let bytes = std::fs::read(&path).expect("readable");
            println!("{}", path.display());
            inputs += usize::from(replay(&bytes));
        }
        assert!(inputs >= 10, "{name} has {inputs} inputs");
    }
}

#[test]
fn every_target_has_its_corpus_replayed() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/fuzz_targets");
    let files = std::fs::read_dir(targets).expect("targets");
    let names = files.map(|file| file.expect("readable").path());
    let mut names: Vec<_> = names.filter_map(|path| Some(path.file_stem()?.to_owned())).collect();
    names.sort();
    assert_eq!(names, TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
}
