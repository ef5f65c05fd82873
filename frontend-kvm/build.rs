//! Builds the guest payload with the compiler and linker that build everything else.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What the payload is made of; a change to any of them builds it again.
const SOURCES: [&str; 4] = ["guest/main.rs", "guest/sys.rs", "guest/abi.rs", "guest/link.ld"];

fn main() -> ExitCode {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("cargo::error=the guest payload was not built: {why}");
            ExitCode::FAILURE
        }
    }
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|why| format!("{name}: {why}"))
}

fn build() -> Result<(), String> {
    let target = variable("TARGET")?;
    if variable("CARGO_CFG_TARGET_ARCH")? != "x86_64" {
        return Err(format!("the toy guest is written for x86_64, not for {target}"));
    }
    let root = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let elf = Path::new(&variable("OUT_DIR")?).join("guest.elf");
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--crate-name", "guest", "--crate-type", "bin"]);
    rustc.args(["--target", &target, "-C", "opt-level=2", "-C", "panic=abort"]);
    rustc.args(["-C", "relocation-model=static", "-C", "strip=symbols", "-C", "debuginfo=0"]);
    rustc.args(["-A", "dead_code"]); // the ABI has both sides' words in it
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let script = root.join("guest/link.ld");
    for argument in ["-nostdlib", "-nostartfiles", "-static", "-no-pie", "-Wl,--build-id=none"] {
        rustc.arg(format!("-Clink-arg={argument}"));
    }
    rustc.arg(format!("-Clink-arg=-Wl,-T,{}", script.display()));
    let status = rustc.arg("-o").arg(elf).arg(root.join("guest/main.rs")).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("rustc ended with {status}")),
        Err(why) => Err(format!("rustc did not start: {why}")),
    }
}
