//! The machine that Linux boots on, with nothing beneath it or with the monitor.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use frontend_bare::payload::Header;
use zerocopy::IntoBytes;

use crate::archive::Archive;
use crate::made::{Made, make};
use crate::packages::Packages;

/// What is beneath Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beneath {
    /// Nothing. Linux is told to leave a page alone that attacks are aimed at.
    Nothing,
    /// The monitor.
    Monitor,
}

/// `no_timer_check`: an emulated timer of a busy machine may tick too late for Linux.
const COMMAND_LINE: &str = "no_timer_check quiet console=ttyS0 nokaslr panic=-1 reboot=t";

/// Where the monitor's image begins, and with nothing beneath Linux, a page of nobody's.
const ALONE: &str = "memmap=64K$0x200000";

/// Whether QEMU is there and what builds modules.
///
/// # Errors
/// What is missing.
pub(crate) fn is_possible() -> Result<(), String> {
    for tool in ["qemu-system-x86_64", "make", "gcc", "apt-get", "dpkg-deb"] {
        let mut asked = Command::new(tool);
        let asked = asked.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        asked.map_err(|why| format!("{tool}: {why}"))?;
    }
    Ok(())
}

/// What was said until the machine was off.
pub(crate) struct Said {
    /// By the lane's programs, on the second serial line.
    pub(crate) facts: String,
    /// By the kernel and whoever is beneath it, on the first one.
    pub(crate) console: String,
}

/// What Linux plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Play {
    /// Two guests, a search for their secrets, and attacks.
    Everything,
    /// One guest that says what its stops cost, on a machine that counts instructions.
    Costs,
}

/// Boots it.
pub(crate) fn boot(packages: &Packages, cpu: &str, beneath: Beneath, play: Play) -> Said {
    let made = make(packages);
    let initrd = initrd(made, packages);
    let mut qemu = Command::new("timeout");
    qemu.args(["120", "qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", cpu]);
    qemu.args(["-m", "512", "-smp", "1", "-display", "none", "-nodefaults", "-no-reboot"]);
    if play == Play::Costs {
        qemu.args(["-icount", "shift=1,sleep=off"]);
    }
    let name = format!("{cpu}-{beneath:?}-{play:?}");
    let told = if play == Play::Costs { " -- costs" } else { "" };
    let facts = kept(&format!("{name}.facts"), &[]);
    qemu.args(["-serial", "stdio", "-serial", &format!("file:{}", facts.display())]);
    match beneath {
        Beneath::Nothing => {
            let line = format!("{COMMAND_LINE} {ALONE}{told}");
            qemu.arg("-kernel").arg(packages.kernel()).args(["-append", &line]);
            qemu.arg("-initrd").arg(kept(&format!("{name}.initrd"), &initrd));
        }
        Beneath::Monitor => {
            let kernel = std::fs::read(packages.kernel()).expect("the kernel");
            let line = format!("{COMMAND_LINE}{told}");
            let payload = payload([&kernel, &initrd, line.as_bytes()]);
            qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
            qemu.arg("-kernel")
                .arg(monitor())
                .arg("-initrd")
                .arg(kept(&format!("{name}.payload"), &payload));
        }
    }
    let done = qemu.stdin(Stdio::null()).stderr(Stdio::null()).output().expect("QEMU");
    kept(&format!("{name}.console"), &done.stdout);
    let facts = std::fs::read(facts).expect("a serial line");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { facts: text(&facts), console: text(&done.stdout) }
}

fn initrd(made: &Made, packages: &Packages) -> Vec<u8> {
    let read =
        |path: &Path| std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "modules"] {
        archive.folder(folder);
    }
    archive.device("dev/console", (5, 1));
    archive.program("init", &read(&made.stage));
    archive.program("pageveil-vmm", &read(&made.vmm));
    archive.program("guest.elf", &read(&made.guest));
    archive.program("modules/ringzero.ko", &read(&made.module));
    for module in ["virt/lib/irqbypass.ko", "arch/x86/kvm/kvm.ko", "arch/x86/kvm/kvm-amd.ko"] {
        let name = module.rsplit('/').next().unwrap_or(module);
        archive.program(&format!("modules/{name}"), &read(&packages.module(module)));
    }
    archive.finish()
}

/// Kernel, initial file system and command line as one file.
fn payload(parts: [&[u8]; 3]) -> Vec<u8> {
    let [kernel, initrd, line] = parts.map(|part| part.len() as u64);
    let header = Header::new(kernel, initrd, line).expect("parts that fit");
    let mut bytes = header.as_bytes().to_vec();
    for (place, part) in [header.kernel(), header.initrd(), header.command_line()].iter().zip(parts)
    {
        bytes.resize(usize::try_from(place.offset()).expect("64 bits"), 0);
        bytes.extend_from_slice(part);
    }
    bytes
}

/// Writes a file for QEMU.
fn kept(name: &str, content: &[u8]) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("lane_linux").join(name);
    std::fs::write(&path, content).expect("room for a file");
    path
}

/// The monitor's image.
fn monitor() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("image");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "-q", "-p", "frontend-bare", "--features", "bare", "--profile", "bare"]);
    let built = cargo.arg("--target-dir").arg(&target).env_remove("RUSTFLAGS").status();
    assert!(built.is_ok_and(|status| status.success()), "the image is not built");
    target.join("bare/monitor")
}
