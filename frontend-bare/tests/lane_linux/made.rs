//! What is built for the lane: programs of Linux, linked statically, the guest, and the module.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::packages::Packages;

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Everything that was built.
pub(crate) struct Made {
    /// The first program of Linux.
    pub(crate) stage: PathBuf,
    /// The VMM.
    pub(crate) vmm: PathBuf,
    /// The guest's image.
    pub(crate) guest: PathBuf,
    /// The module that attacks from ring 0.
    pub(crate) module: PathBuf,
}

fn run(what: &str, command: &mut Command) {
    let done = command.output().unwrap_or_else(|why| panic!("{what}: {why}"));
    let said = || String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{what} is not built: {}", said());
}

/// The package whose programs they are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../frontend-kvm")
}

/// Builds it all, once.
pub(crate) fn make(packages: &Packages) -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| make_all(packages))
}

fn make_all(packages: &Packages) -> Made {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lane_linux");
    std::fs::create_dir_all(&folder).expect("a folder for what is built");
    let programs = folder.join(TARGET).join("release");
    programs_of_linux(&folder);
    Made {
        stage: programs.join("lane-stage"),
        vmm: programs.join("pageveil-vmm"),
        guest: guest(&folder),
        module: module(&folder, packages),
    }
}

fn programs_of_linux(folder: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-q", "--release", "-p", "frontend-kvm", "--no-default-features"]);
    cargo.args(["--features", "lane", "--bin", "pageveil-vmm", "--bin", "lane-stage"]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(folder);
    // The initial file system has no libraries. Linking is quicker without another pass over all.
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_STRIP", "symbols");
    run("the VMM", &mut cargo);
}

fn guest(folder: &Path) -> PathBuf {
    let (image, sources) = (folder.join("guest.elf"), sources().join("lane/guest"));
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition", "2024", "--crate-name", "guest", "--crate-type", "bin"]);
    rustc.args(["--target", TARGET, "-C", "opt-level=2", "-C", "panic=abort"]);
    rustc.args(["-C", "relocation-model=static", "-C", "strip=symbols", "-A", "dead_code"]);
    for argument in ["-nostdlib", "-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none"] {
        rustc.arg(format!("-Clink-arg={argument}"));
    }
    rustc.arg(format!("-Clink-arg=-Wl,-T,{}", sources.join("link.ld").display()));
    run("the guest", rustc.arg("-o").arg(&image).arg(sources.join("main.rs")));
    image
}

/// Built as the kernel's makefile says, with a copy of the sources.
fn module(folder: &Path, packages: &Packages) -> PathBuf {
    let (folder, sources) = (folder.join("module"), sources().join("lane/module"));
    std::fs::create_dir_all(&folder).expect("a folder for the module");
    for name in ["Kbuild", "ringzero.c"] {
        std::fs::copy(sources.join(name), folder.join(name)).expect("sources of the module");
    }
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(packages.headers());
    make.arg("-f").arg(packages.common_headers().join("Makefile"));
    make.arg(format!("M={}", folder.display())).arg("modules");
    // Make's own, where a make is what runs the tests.
    run("the module", make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL"));
    folder.join("ringzero.ko")
}
