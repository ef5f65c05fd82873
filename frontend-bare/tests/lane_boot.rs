//! The monitor's image on emulated machines: with AES instructions and without, with tables of four
//! levels and of five, and on machines that it must refuse.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use frontend_bare::payload::Header;
use zerocopy::IntoBytes;

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
        refused(cpu, &["-m", "64"], reason);
    }
    refused("EPYC", &["-m", "64", "-smp", "2"], "2 CPUs; the monitor holds one");
}

fn refused(cpu: &str, more: &[&str], reason: &str) {
    let (said, ended) = boot(cpu, more);
    assert_eq!(ended, Some(REFUSED), "{cpu} {more:?}: {said}");
    assert!(said.contains(&format!("monitor: refuses: {reason}")), "{cpu} {more:?}: {said}");
}

#[test]
#[ignore = "needs QEMU"]
fn what_cannot_be_started_is_refused_with_a_reason() {
    if is_skipped("what_cannot_be_started_is_refused_with_a_reason") {
        return;
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("payload");
    let initrd = ["-initrd", file.to_str().unwrap()];
    let more = |memory| [&["-m", memory][..], &initrd].concat();
    // As a kernel says of itself what it needs: the protocol's fields by their offsets.
    let mut kernel = vec![0; 0x10000];
    for (offset, bytes) in [
        (0x1fe, &[0x55, 0xaa][..]),
        (0x201, &[0x6c]),
        (0x202, b"HdrS"),
        (0x206, &[0x0f, 0x02]),
        (0x211, &[1]),
        (0x230, &0x20_0000_u32.to_le_bytes()),
        (0x234, &[1]),
        (0x236, &[1, 0]),
        (0x260, &0x400_0000_u32.to_le_bytes()),
    ] {
        kernel[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    for (bytes, memory, reason) in [
        (b"neither kernel nor anything".to_vec(), "64", "the module is no payload: "),
        (payload(&[0; 0x1000]), "64", "the payload's kernel is none: Magic"),
        (payload(&kernel)[..0x8000].to_vec(), "64", "the module is no payload: the kernel ends"),
        (payload(&kernel), "64", "67108864 bytes of memory in one piece are needed for the Kernel"),
        (payload(&kernel), "2050", "524767 frames of memory, 524288 at most"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        refused("EPYC", &more(memory), reason);
    }
}

/// A container of this kernel alone.
fn payload(kernel: &[u8]) -> Vec<u8> {
    let header = Header::new(kernel.len() as u64, 0, 0).unwrap();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(kernel);
    bytes.resize(header.size() as usize, 0);
    bytes
}
