//! The monitor's image on emulated machines: with AES instructions and without, with tables of four
//! levels and of five, and on machines that it must refuse.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// What the image makes QEMU end with: `2 * n + 1` of its ending.
const PASSED: i32 = 0x21;
const REFUSED: i32 = 0x41;

/// Builds the image as its manifest says, once.
fn image() -> &'static Path {
    static IMAGE: OnceLock<PathBuf> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
        let built = Command::new(env!("CARGO"))
            .args(["build", "-q", "-p", "frontend-bare", "--features", "bare"])
            .args(["--profile", "bare", "--target-dir"])
            .arg(&target)
            .env_remove("RUSTFLAGS")
            .status();
        assert!(built.is_ok_and(|status| status.success()), "the image is not built");
        target.join("bare/monitor")
    })
}

/// Whether there is no QEMU, which is said; a failure if it must not be.
fn is_skipped(test: &str) -> bool {
    if Command::new("qemu-system-x86_64").arg("--version").stdout(Stdio::null()).status().is_ok() {
        return false;
    }
    let required = std::env::var("PAGEVEIL_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "qemu"), "qemu-system-x86_64 is not there");
    eprintln!("skipped: {test}: there is no qemu-system-x86_64");
    true
}

/// Boots the image on a machine; what it said, and how it ended.
fn boot(cpu: &str, more: &[&str]) -> (String, Option<i32>) {
    let mut qemu = Command::new("timeout");
    qemu.args(["60", "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg", "-cpu", cpu]);
    qemu.args(["-display", "none", "-serial", "stdio", "-no-reboot"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel"]).arg(image());
    let done = qemu.args(more).stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    (String::from_utf8_lossy(&done.stdout).into_owned(), done.status.code())
}

#[test]
#[ignore = "needs QEMU"]
fn the_image_shows_two_views_on_every_machine_that_has_what_it_takes() {
    if is_skipped("the_image_shows_two_views_on_every_machine_that_has_what_it_takes") {
        return;
    }
    for (cpu, aes) in [("EPYC", "instructions"), ("max", "instructions"), ("EPYC,-aes", "none")] {
        let (said, ended) = boot(cpu, &["-m", "64"]);
        assert_eq!(ended, Some(PASSED), "{cpu}: {said}");
        assert!(said.contains("guest reads 0x5ec2e700, its manager 0x"), "{cpu}: {said}");
        assert_eq!(said.contains("no instructions for AES"), aes == "none", "{cpu}: {said}");
    }
}

#[test]
#[ignore = "needs QEMU"]
fn a_machine_that_cannot_keep_two_views_is_refused_with_a_reason() {
    if is_skipped("a_machine_that_cannot_keep_two_views_is_refused_with_a_reason") {
        return;
    }
    for (cpu, reason) in [
        ("EPYC,-svm", "this CPU has no SVM (AMD-V)"),
        ("EPYC,-npt", "this CPU has no nested paging"),
        ("qemu64,-svm", "this CPU has no SVM (AMD-V)"),
    ] {
        let (said, ended) = boot(cpu, &["-m", "64"]);
        assert_eq!(ended, Some(REFUSED), "{cpu}: {said}");
        assert!(said.contains(&format!("monitor: refuses: {reason}")), "{cpu}: {said}");
    }
}
