//! A jail for management tools: a program in it can use files, sockets and the control socket of
//! a VM, and can't reach into another process.
//!
//! Two walls, each enough for most routes:
//!
//! * A Landlock domain. The kernel refuses whoever is in one every access to a process outside
//!   that tracing would need: `ptrace`, `/proc/PID/mem`, `process_vm_readv`, `pidfd_getfd`,
//!   `/proc/PID/fd`. Signals and abstract sockets stop at the domain too, where the kernel can do
//!   that. No mounts. It reads what its user may read, and writes only to temporary folders, to
//!   harmless devices, and beneath the folders that it was given: for user 0, `core_pattern`, a
//!   disk, a cron table or a shell's start-up file would lead out again.
//! * No capabilities, not one, and none to gain. `CAP_SYS_PTRACE`, `CAP_BPF`, `CAP_PERFMON`,
//!   `CAP_SYS_ADMIN`, `CAP_SYS_RAWIO`, `CAP_SYS_MODULE`, `CAP_CHECKPOINT_RESTORE` read memory, each
//!   in its way. `CAP_SETUID`, `CAP_SETGID` make a process the trusted user's; `CAP_CHOWN`,
//!   `CAP_FOWNER`, `CAP_DAC_OVERRIDE`, `CAP_DAC_READ_SEARCH` open what is the trusted user's, the
//!   view file for writing among it; `CAP_SYS_RESOURCE` raises its limits; `CAP_SETPCAP`,
//!   `CAP_SETFCAP`, `CAP_MKNOD` and `CAP_SYS_CHROOT` make ways to the rest. Those that are left
//!   read nothing today; a list of them would be one to keep true for ever.
//!
//! A tool that runs as user 0 in it can still ask a service of root's to do something: run tools
//! as a user of their own.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    PathFdError, RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
    RulesetStatus, Scope,
};

use crate::SysError;
use crate::harden::sys;

/// The newest rules that this was tried with. An older kernel enforces those that it knows.
const NEWEST: ABI = ABI::V7;
/// Folders that may be written to unasked: what is in them is run by nobody.
const SCRATCH: [&str; 2] = ["/tmp", "/var/tmp"];
/// What of `/dev` may be used: nothing in it reaches memory or disks.
const DEVICES: [&str; 9] =
    ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm"];

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// No program was named.
    #[error("name a program to run in the jail")]
    NothingToRun,
    /// The kernel has no Landlock, or it is off.
    #[error("this kernel has no Landlock domains ({0:?}), so there is no jail; nothing was run")]
    NoDomain(LandlockStatus),
    /// The kernel refused the rules.
    #[error("the jail's rules were refused: {0}; nothing was run")]
    Rules(#[from] RulesetError),
    /// A folder to allow does not open.
    #[error("the jail's rules can't be written: {0}; nothing was run")]
    Folder(#[from] PathFdError),
    /// The root folder can't be listed.
    #[error("the jail's rules can't be written: /: {0}; nothing was run")]
    Root(io::Error),
    /// The system refused a step.
    #[error("{0}; nothing was run")]
    Sys(#[from] SysError),
    /// Capabilities are left that a program would have.
    #[error("capabilities can't be given up here; nothing was run")]
    KeepsCapabilities,
    /// The program does not start.
    #[error("{}: {why}", program.display())]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        why: io::Error,
    },
}

/// Runs a program in the jail, in place of this one. It may write beneath the folders `writable`.
/// Comes back only if it did not.
pub fn exec(command: &[OsString], writable: &[PathBuf]) -> JailError {
    let Some((program, arguments)) = command.split_first() else {
        return JailError::NothingToRun;
    };
    if let Err(error) = enter(writable) {
        return error;
    }
    let why = Command::new(program).args(arguments).exec();
    JailError::Start { program: program.into(), why }
}

/// Puts the calling thread into the jail, and what it starts; there is no way out.
///
/// # Errors
/// [`JailError`]. Some walls may stand: end the process.
pub fn enter(writable: &[PathBuf]) -> Result<(), JailError> {
    sys::forbid_new_privileges()?;
    // The domain first: afterwards, nobody in it can open what its rules name.
    let status = domain(writable)?;
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return Err(JailError::NoDomain(status.landlock));
    }
    give_up_capabilities()
}

/// Every capability of this thread, and for user 0, who gains the bounding set with each program
/// that it starts, that set too.
fn give_up_capabilities() -> Result<(), JailError> {
    let dropped = sys::drop_bounding_set();
    sys::drop_capabilities()?;
    let plain_user = sys::users()?.iter().all(|uid| *uid != 0);
    let gains_none = dropped.is_ok() && sys::bounding_set_is_empty();
    if sys::has_no_capability()? && (plain_user || gains_none) {
        Ok(())
    } else {
        Err(JailError::KeepsCapabilities)
    }
}

fn domain(writable: &[PathBuf]) -> Result<RestrictionStatus, JailError> {
    let (everything, reading) = (AccessFs::from_all(NEWEST), AccessFs::from_read(NEWEST));
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(everything)?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    rules = rules.add_rule(beneath(Path::new("/"), AccessFs::ReadDir.into())?)?;
    for name in names_in_root()? {
        let path = Path::new("/").join(&name);
        // What is in /dev is named below. A file at the root may be what the host swaps to; a
        // link's rule would hold for where it leads.
        if name != "dev" && path.is_dir() && !path.is_symlink() {
            rules = rules.add_rule(beneath(&path, reading)?)?;
        }
    }
    let devices = DEVICES.iter().map(|device| Path::new("/dev").join(device));
    let scratch = SCRATCH.iter().map(PathBuf::from);
    for path in devices.chain(scratch).filter(|path| path.exists()) {
        rules = rules.add_rule(beneath(&path, everything)?)?;
    }
    for path in writable {
        rules = rules.add_rule(beneath(path, everything)?)?;
    }
    Ok(rules.restrict_self()?)
}

fn names_in_root() -> Result<Vec<OsString>, JailError> {
    let entries = fs::read_dir("/").map_err(JailError::Root)?;
    entries.map(|entry| Ok(entry.map_err(JailError::Root)?.file_name())).collect()
}

fn beneath(path: &Path, rights: BitFlags<AccessFs>) -> Result<PathBeneath<PathFd>, JailError> {
    Ok(PathBeneath::new(PathFd::new(path)?, rights))
}
