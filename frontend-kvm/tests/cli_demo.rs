//! `pageveil demo`, the first thing that anybody runs: what it says, what it finds, how long.

mod common;
mod tool;

use std::time::{Duration, Instant};

use common::{kvm, skip};
use serde_json::Value;
use tool::{Home, Ran, Started, bytes, is_well_formed, pageveil, read};

/// What everybody may rely on in the line of JSON.
const COUNTS: [&str; 12] = [
    "pages",
    "pages_private",
    "pages_open",
    "bytes_scanned_management",
    "secret_hits_guest",
    "secret_hits_management",
    "secret_hits_snapshot",
    "secret_hits_opened_with_key",
    "snapshot_bytes",
    "attacks_refused",
    "attacks_tried",
    "stall_ms",
];

fn demo(home: &Home, more: &[&str]) -> Ran {
    let svg = home.path("map.svg");
    pageveil(&[&["demo", "--json", "--svg", &svg], more].concat())
}

/// The story, its numbers and its picture.
fn shows_everything(home: &Home, ran: Ran, platform: &str) {
    let lines = ran.out.lines().filter(|line| !line.starts_with('{')).count();
    assert!((10..=16).contains(&lines), "about a dozen lines: {lines}\n{}", ran.out);
    both_sides_are_shown(&ran.out);
    let svg = String::from_utf8(read(home.path("map.svg"))).unwrap();
    assert!(svg.starts_with("<svg ") && is_well_formed(&svg), "{svg}");
    assert!(svg.contains("open") && svg.contains("private"));
    let told = ran.json();
    assert_eq!(told["platform"], platform);
    let count = |name: &str| -> u64 { told[name].as_u64().unwrap_or_else(|| panic!("no {name}")) };
    for name in COUNTS {
        assert!(told[name].is_number(), "{name}: {told}");
    }
    assert_eq!(count("bytes_scanned_management"), count("pages") * 4096);
    assert_eq!(count("pages_private") + count("pages_open"), count("pages"));
    assert_eq!(count("pages_open"), 1);
    assert!(count("secret_hits_guest") >= 1 && count("secret_hits_opened_with_key") >= 1);
    assert_eq!((count("secret_hits_management"), count("secret_hits_snapshot")), (0, 0));
    assert!(count("snapshot_bytes") > count("pages") * 4096);
    assert_eq!((count("attacks_tried"), count("attacks_refused")), (3, 3));
    assert!(told["stall_ms"].as_f64().unwrap() > 0.0, "{told}");
    assert_eq!((&told["restored"], &told["guest_continued"]), (&true.into(), &true.into()));
}

/// The secret page side by side differs in every line of hex, the mailbox in none.
fn both_sides_are_shown(out: &str) {
    let sides = |line: &str| -> Option<[Vec<u8>; 2]> {
        let (guest, management) = line.strip_prefix("    ")?.split_once("| ")?;
        let side = |text: &str| bytes(text.split_whitespace().next().unwrap());
        Some([side(guest), side(management)])
    };
    let shown: Vec<[Vec<u8>; 2]> = out.lines().filter_map(sides).collect();
    assert_eq!(shown.len(), 4, "two lines of two pages: {out}");
    assert!(shown[..2].iter().all(|[guest, management]| guest != management), "{out}");
    assert!(shown[2..].iter().all(|[guest, management]| guest == management), "{out}");
    assert!(out.contains("Hello from the g"), "{out}");
    for attack in ["One bit of a page flipped", "Two pages swapped", "replaced by an older one"] {
        let line = out.lines().find(|line| line.contains(attack)).unwrap_or_default();
        assert!(line.contains("refused. "), "{attack}: {out}");
    }
}

/// Under ten seconds, unless others kept the machine busy every time.
fn takes_less_than_ten_seconds(run: impl Fn() -> Ran) -> Ran {
    for _ in 0..3 {
        let begun = Instant::now();
        let ran = run();
        if begun.elapsed() < Duration::from_secs(10) {
            return ran;
        }
    }
    panic!("the demo took ten seconds three times");
}

#[test]
fn the_demo_on_kvm_shows_both_views_a_restore_and_three_refusals() {
    let name = "the_demo_on_kvm_shows_both_views_a_restore_and_three_refusals";
    if kvm(name).is_none() {
        return;
    }
    let home = Home::new();
    let ran = takes_less_than_ten_seconds(|| demo(&home, &["--platform", "kvm"]));
    shows_everything(&home, ran, "kvm");
    // Where KVM works, it is what one gets.
    let told = demo(&home, &[]).json();
    assert_eq!(told["platform"], "kvm");
}

#[test]
fn the_demo_on_the_simulated_machine_shows_the_same() {
    let home = Home::new();
    let ran = takes_less_than_ten_seconds(|| demo(&home, &["--platform", "sim"]));
    assert!(ran.out.starts_with("A guest on the simulated machine, as asked"), "{}", ran.out);
    shows_everything(&home, ran, "sim");
}

#[test]
fn without_kvm_the_demo_says_so_and_runs_on_the_simulated_machine() {
    let name = "without_kvm_the_demo_says_so_and_runs_on_the_simulated_machine";
    let home = Home::new();
    // Its own mounts, in which there is no such device.
    let hidden = "test ! -e /dev/kvm || mount --bind /dev/null /dev/kvm || exit 77; exec \"$@\"";
    let svg = home.path("map.svg");
    let demo = [env!("CARGO_BIN_EXE_pageveil"), "demo", "--json", "--svg", &svg];
    let run = |more: &[&str]| -> Option<Ran> {
        let arguments = [&["-rm", "sh", "-c", hidden, "sh"], &demo[..], more].concat();
        let mut unshare = std::process::Command::new("unshare");
        Some(Started::new(unshare.args(arguments)).wait()).filter(|ran| ran.code != Some(77))
    };
    let can = tool::program("unshare", &["-rm", "true"]).is_some_and(|ran| ran.code == Some(0));
    let Some(ran) = can.then(|| run(&[])).flatten() else {
        return skip(name, "no namespace of mounts can be made here");
    };
    assert!(ran.out.starts_with("No guest can run on KVM here ("), "{}", ran.out);
    assert!(ran.out.contains("So this is the simulated machine"), "{}", ran.out);
    shows_everything(&home, ran, "sim");
    // Who insists is told why not.
    run(&["--platform", "kvm"]).unwrap().refused(&["kvm"]);
}

#[test]
fn a_demo_that_can_not_draw_says_where() {
    let home = Home::new();
    let svg = home.path("nowhere/map.svg");
    let ran = pageveil(&["demo", "--platform", "sim", "--svg", &svg]);
    ran.refused(&["nowhere/map.svg", "No such file or directory"]);
}

#[test]
fn the_line_of_json_has_no_surprises() {
    let home = Home::new();
    let Value::Object(told) = demo(&home, &["--platform", "sim"]).json() else { unreachable!() };
    let known = |name: &str| {
        COUNTS.contains(&name) || ["platform", "restored", "guest_continued"].contains(&name)
    };
    assert!(told.keys().all(|name| known(name)), "{told:?}");
}
