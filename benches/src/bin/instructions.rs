//! How many instructions a page takes, held against a recording: what creeps in unseen is seen.
//!
//! `instructions [--record]`. It runs itself under valgrind's callgrind, for few lists and for
//! more, and what one page more takes is the difference, so that starting up cancels. Valgrind's
//! CPU has AES-NI and AVX2 and no VAES: what is counted is the portable path and the backend for
//! AES-NI.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use benches::{id, key, pages};
use serde_json::{Value, json};
use view_core::key::{AegisKey, GcmKey};
use view_core::suite::aegis_128x4::Aegis128X4;
use view_core::suite::aes_256_gcm::Aes256Gcm;
use view_core::suite::ctr_cmac::CtrCmac;
use view_core::suite::pmac_siv_512::PmacSiv512;
use view_core::suite::sequence::{Once, Sequence};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{Backend, Landing, OpenJob, PageCipher, PageId, SealJob};

/// By how much a count may differ from the recorded one. Two instructions a block of the portable
/// GCM, which are 2.7 %, come and go with how the compiler cuts the crates beside it.
const TOLERANCE: f64 = 0.03;

/// Pages of a list, as the suites like it.
const LIST: usize = 64;

/// How many lists the shorter and the longer run seal or open.
const LISTS: [usize; 2] = [1, 5];

const SUITES: [&str; 5] =
    ["siv-cmac-512", "pmac-siv-512", "ctr-cmac", "aes-256-gcm", "aegis-128x4"];
const BACKENDS: [(&str, Backend); 2] = [("portable", Backend::Portable), ("aesni", Backend::AesNi)];
const WAYS: [&str; 2] = ["seal", "open"];

/// How a run for counting says that the machine has no such backend.
const NOT_HERE: i32 = 3;

type Counts = BTreeMap<String, f64>;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => counted().and_then(|(counts, tools)| compare(&counts, &tools)),
        ["--record"] => counted().and_then(|(counts, tools)| record(&counts, &tools)),
        ["--work", suite, backend, way, count] => return work(suite, backend, way, count),
        _ => Err("usage: instructions [--record]".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Instructions a page of everything that runs under valgrind, and what they were counted with.
fn counted() -> Result<(Counts, Value), String> {
    if cfg!(debug_assertions) {
        return Err("what is counted is the release build: cargo run --release".into());
    }
    let valgrind = said("valgrind", &["--version"])?;
    let tools = json!({ "rustc": said("rustc", &["--version"])?, "valgrind": valgrind });
    let mut counts = Counts::new();
    for suite in SUITES {
        for (backend, _) in BACKENDS {
            for way in WAYS {
                let run = |lists| instructions(suite, backend, way, lists);
                let Some(few) = run(LISTS[0])? else { continue };
                let Some(many) = run(LISTS[1])? else { continue };
                let each = (many - few) / ((LISTS[1] - LISTS[0]) * LIST) as f64;
                let name = format!("{suite}/{backend}/{way}");
                counts.insert(name, (each * 10.0).round() / 10.0);
            }
        }
    }
    Ok((counts, tools))
}

/// What a whole run takes; `None` where there is no such backend.
fn instructions(
    suite: &str,
    backend: &str,
    way: &str,
    count: usize,
) -> Result<Option<f64>, String> {
    let me = std::env::current_exe().map_err(|error| format!("where this program is: {error}"))?;
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(me)
        .args(["--work", suite, backend, way, &count.to_string()])
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .output()
        .map_err(|error| format!("valgrind doesn't start: {error}"))?;
    if run.status.code() == Some(NOT_HERE) {
        return Ok(None);
    }
    let told = String::from_utf8_lossy(&run.stderr);
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    match collected.and_then(|(_, number)| number.trim().parse().ok()) {
        Some(number) if run.status.success() => Ok(Some(number)),
        Some(_) | None => Err(format!("{suite} on {backend} fails under valgrind:\n{told}")),
    }
}

fn said(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} doesn't start: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "record", "instructions.json"].iter().collect()
}

fn record(counts: &Counts, tools: &Value) -> Result<(), String> {
    let recorded = json!({ "tools": tools, "instructions_a_page": counts });
    let path = path();
    std::fs::write(&path, format!("{recorded:#}\n"))
        .map_err(|error| format!("{} can't be written: {error}", path.display()))
}

/// Prints what was, what is, and how they differ; fails for whatever differs by too much.
fn compare(counts: &Counts, tools: &Value) -> Result<(), String> {
    let path = path();
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let recorded: Value =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))?;
    if recorded["tools"] != *tools {
        println!("recorded with {}, counted with {tools}", recorded["tools"]);
    }
    let old: Counts = serde_json::from_value(recorded["instructions_a_page"].clone())
        .map_err(|e| format!("{}: {e}", path.display()))?;
    println!("{:34}{:>12}{:>12}{:>9}", "instructions a page", "recorded", "now", "");
    let names: std::collections::BTreeSet<_> = old.keys().chain(counts.keys()).collect();
    let mut far = 0;
    for name in names {
        let (was, is) = (old.get(name).copied(), counts.get(name).copied());
        let of = |count: Option<f64>| count.map_or("-".into(), |count| format!("{count:.1}"));
        let change = was.zip(is).map(|(was, is)| is / was - 1.0);
        let fine = change.is_some_and(|change| change.abs() <= TOLERANCE);
        far += u32::from(!fine);
        let percent = change.map_or("-".into(), |change| format!("{:+.2} %", change * 100.0));
        let verdict = if fine { "" } else { "  FAILED" };
        println!("{name:34}{:>12}{:>12}{percent:>9}{verdict}", of(was), of(is));
    }
    if far == 0 {
        return Ok(());
    }
    Err(format!(
        "{far} counts differ by more than {} %; if that is meant, record them: --record",
        TOLERANCE * 100.0
    ))
}

/// What is counted: seals so many lists, or opens one so often.
fn work(suite: &str, backend: &str, way: &str, count: &str) -> ExitCode {
    let backend = BACKENDS.into_iter().find(|known| known.0 == backend).map(|known| known.1);
    let (Some(backend), Ok(count)) = (backend, count.parse()) else { return ExitCode::from(2) };
    let (gcm, aegis) = (GcmKey::new([0x47; 32]), AegisKey::new([0x41; 16]));
    let opens = way == "open";
    let done = match suite {
        "siv-cmac-512" => SivCmac512::with_backend(&key(), backend)
            .map(|cipher| go((cipher, |id| id), opens, count)),
        "pmac-siv-512" => PmacSiv512::with_backend(&key(), backend)
            .map(|cipher| go((cipher, |id| id), opens, count)),
        "ctr-cmac" => {
            CtrCmac::with_backend(key(), backend).map(|suite| go(once(suite), opens, count))
        }
        "aes-256-gcm" => {
            Aes256Gcm::with_backend(gcm, backend).map(|suite| go(once(suite), opens, count))
        }
        "aegis-128x4" => {
            Aegis128X4::with_backend(aegis, backend).map(|suite| go(once(suite), opens, count))
        }
        _ => return ExitCode::from(2),
    };
    match done {
        Some(()) => ExitCode::SUCCESS,
        None => ExitCode::from(NOT_HERE as u8),
    }
}

fn once<C>((cipher, mut sequence): (C, Sequence)) -> (C, impl FnMut(PageId) -> Once) {
    (cipher, move |id| sequence.next(id).expect("a key is good for 2^40 pages").0)
}

/// Seals a list, and seals it or opens it again so often.
fn go<C>((cipher, mut sealed_as): (C, impl FnMut(PageId) -> C::Id), opens: bool, count: usize)
where
    C: PageCipher,
{
    let (plain, mut sealed, mut opened) = (pages(LIST), pages(LIST), pages(LIST));
    let mut seal = || {
        let jobs = (0..).zip(&plain).zip(&mut sealed);
        let mut jobs: heapless::Vec<_, LIST> = jobs
            .map(|((number, plain), sealed)| SealJob::new(sealed_as(id(number)), plain, sealed))
            .collect();
        cipher.seal(&mut jobs, Landing::Hot);
        jobs.iter().map(|job| (*job.id(), job.tag())).collect::<heapless::Vec<_, LIST>>()
    };
    let told = seal();
    if !opens {
        (0..count).for_each(|_| drop(seal()));
        return;
    }
    for _ in 0..count {
        let jobs = told.iter().zip(&sealed).zip(&mut opened);
        let mut jobs: heapless::Vec<_, LIST> = jobs
            .map(|(((id, tag), sealed), plain)| OpenJob::new(*id, sealed, *tag, plain))
            .collect();
        cipher.open(&mut jobs, Landing::Hot);
        assert!(jobs.iter().all(OpenJob::genuine), "what was sealed opens");
    }
}
