//! Linked with nothing underneath (no std, no allocator, no C library), the core cannot panic.
//!
//! Two programs in tests/bare are built as a hypervisor would build them, fat LTO and all. Where
//! no panic may be left, the panic handler calls a symbol that nobody defines, so the linker is
//! the judge. Where some are left, the places that they report are read out of the file.
#![cfg(all(target_os = "linux", target_arch = "x86_64", not(loom)))]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// Crates in which a panic may be left: block ciphers and their modes, which are not ours.
const MAY_PANIC: &[&str] = &["aes", "cmac", "ctr"];

#[test]
fn no_panic_path_is_left_in_the_core() {
    let program = link("stub", &["never-panics"]).expect("links without a way to panic");
    assert_eq!(places(&program), []);
}

#[test]
fn one_index_in_the_wrong_place_is_enough_to_fail() {
    let refused = link("stub", &["never-panics", "planted"]).expect_err("a panic path is planted");
    assert!(refused.contains("a_panic_path_survived"), "{refused}");
    let program = link("stub", &["planted"]).expect("links");
    let places = places(&program);
    let stub = fs::read_to_string(sources().join("stub.rs")).expect("it was just built");
    let line = stub.lines().position(|line| line.ends_with("// planted")).expect("marked") + 1;
    assert!(!places.is_empty());
    for place in places {
        assert!(place.file.ends_with("stub.rs") && place.line as usize == line, "{place:?}");
    }
}

#[test]
fn with_the_default_suite_only_the_ciphers_can_panic() {
    let program = link("suite", &[]).expect("links");
    let places = places(&program);
    let strangers: Vec<_> = places.iter().filter(|place| !may_panic(place)).collect();
    assert!(strangers.is_empty(), "may panic: {strangers:#?}");
    for place in &places {
        println!("may panic: {place:?}");
    }
}

/// Builds a program of tests/bare, runs it, and returns its bytes; or what the linker said.
fn link(program: &str, features: &[&str]) -> Result<Vec<u8>, String> {
    // One folder for all builds: the second finds the libraries that the first has made.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(|broken| broken.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare");
    fs::create_dir_all(&folder).expect("our own folder");
    fs::write(folder.join("Cargo.toml"), manifest()).expect("our own folder");
    // The same versions of everything; nothing is fetched that this test was not built from.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    fs::copy(lock, folder.join("Cargo.lock")).expect("a workspace has a lock");
    let output = Command::new(env!("CARGO"))
        .args(["rustc", "--release", "--offline", "--bin", program])
        .args(["--features", &features.join(",")])
        .args(["--", "-Crelocation-model=static", "-Clink-args=-nostdlib -nostartfiles -static"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .output()
        .expect("cargo runs");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let built = folder.join("target/release").join(program);
    let status = Command::new(&built).status().expect("the program starts");
    assert!(status.success(), "{program} did not come to its end: {status}");
    Ok(fs::read(built).expect("it just ran"))
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bare")
}

fn manifest() -> String {
    let (core, sources) = (env!("CARGO_MANIFEST_DIR"), sources());
    let program =
        |name| format!("[[bin]]\nname = \"{name}\"\npath = \"{}/{name}.rs\"\n", sources.display());
    format!(
        "[package]\nname = \"bare\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
         [workspace]\n\
         [features]\nnever-panics = []\nplanted = []\n\
         [dependencies]\nview-core = {{ path = \"{core}\" }}\n\
         {}{}\
         [profile.release]\nopt-level = 3\npanic = \"abort\"\nlto = \"fat\"\ncodegen-units = 1\n",
        program("stub"),
        program("suite"),
    )
}

/// Where a panic would say that it happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    file: String,
    line: u32,
}

/// Whether a place is in a crate that may panic. Registries keep `<name>-<version>/src/..`.
fn may_panic(place: &Place) -> bool {
    let folder = place.file.split('/').rev().skip_while(|part| *part != "src").nth(1);
    let name = folder.and_then(|folder| folder.rsplit_once('-')).map(|(name, _)| name);
    place.file.contains("/registry/") && name.is_some_and(|name| MAY_PANIC.contains(&name))
}

/// Every `core::panic::Location` in a program that is linked at fixed addresses: the address and
/// the length of a path that ends in `.rs`, a line and a column.
fn places(program: &[u8]) -> Vec<Place> {
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let mut word = [0; 8];
        word.get_mut(..bytes)?.copy_from_slice(program.get(at..at.checked_add(bytes)?)?);
        Some(u64::from_le_bytes(word))
    };
    assert_eq!(program.get(..5), Some(&b"\x7fELF\x02"[..]), "a 64-bit ELF file");
    let (headers, count) = (number(32, 8).expect("whole"), number(56, 2).expect("whole"));
    // What is loaded: from where in the file, to which address, how much of it.
    let segments: Vec<_> = (0..count)
        .map(|index| usize::try_from(headers + 56 * index).expect("inside the file"))
        .filter(|at| number(*at, 4) == Some(1))
        .map(|at| [8, 16, 32].map(|field| number(at + field, 8).expect("inside the file")))
        .collect();
    let text = |address: u64, len: u64| -> Option<&str> {
        let [offset, start, _] = segments.iter().find(|[_, start, size]| {
            address >= *start && address.saturating_add(len) <= start.saturating_add(*size)
        })?;
        let from = usize::try_from(address - start + offset).ok()?;
        let bytes = program.get(from..from.checked_add(usize::try_from(len).ok()?)?)?;
        std::str::from_utf8(bytes).ok().filter(|text| text.ends_with(".rs"))
    };
    let mut found = BTreeSet::new();
    for at in (0..program.len()).step_by(8) {
        if let (Some(address), Some(len), Some(line)) =
            (number(at, 8), number(at + 8, 8), number(at + 16, 4))
            && (4..1024).contains(&len)
            && let Some(file) = text(address, len)
        {
            let line = u32::try_from(line).expect("four bytes");
            found.insert(Place { file: file.to_owned(), line });
        }
    }
    found.into_iter().collect()
}
