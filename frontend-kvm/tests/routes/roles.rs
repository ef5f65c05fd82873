//! What processes of this test binary do when they have a role: the child's side.

use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use frontend_kvm::abi::gfn;
use frontend_kvm::control::server::Server;
use frontend_kvm::harden::{confine, settle};
use frontend_kvm::sys::MemFd;
use frontend_kvm::trusted::TrustedVm;
use frontend_kvm::{Kvm, Mode, Program, jail};
use view_core::VmId;
use view_core::key::RootKey;

use super::managers;
use super::spy::{Route, Target, attack};
use super::sys;

/// The variable that gives a process its role.
pub(crate) const ROLE: &str = "PAGEVEIL_TEST_ROLE";
/// The variable with the role's arguments, one a space.
pub(crate) const ARGUMENTS: &str = "PAGEVEIL_TEST_ARGUMENTS";
/// What the sealed images of these tests are opened with.
pub(crate) const ROOT_KEY: [u8; 32] = [9; 32];
const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";
/// What is said when there is no more to say.
pub(crate) const READY: &str = "ready";

/// Plays a role and returns the exit code.
pub(crate) fn play(role: &str) -> i32 {
    let arguments = std::env::var(ARGUMENTS).unwrap_or_default();
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    // In the jail, the role is in the arguments: the variable says how it came there.
    let jailed = std::env::args().nth(1);
    let played = match (role, jailed.as_deref()) {
        ("jail", None) => return into_jail(&arguments),
        ("jail", Some(role)) => act(role, &arguments),
        (role, _) => act(role, &arguments),
    };
    match played {
        Ok(()) => 0,
        Err(why) => {
            say(&format!("failed {why}"));
            1
        }
    }
}

fn act(role: &str, arguments: &[&str]) -> Result<(), String> {
    match role {
        "bare" => bare(arguments),
        "trusted" => trusted(arguments),
        "spy" => spy(arguments),
        "settled" => settled(arguments),
        "forbidden" => forbidden(arguments),
        "self" => describe_self(),
        "manage" => managers::manage(arguments),
        "store" => managers::store_into_the_view(arguments),
        other => Err(format!("there is no role {other}")),
    }
}

/// One line to whoever started us.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush());
}

/// The next line from whoever started us; empty at the end.
fn hear() -> String {
    let mut line = String::new();
    let _ = io::stdin().lock().read_line(&mut line);
    line.truncate(line.trim_end().len());
    line
}

fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(crate) fn argument<'a>(arguments: &[&'a str], index: usize) -> Result<&'a str, String> {
    arguments.get(index).copied().ok_or(format!("argument {index} is missing"))
}

/// Becomes who the first argument says: a user's number, or `root` for nobody else.
pub(crate) fn become_who(arguments: &[&str]) -> Result<(), String> {
    match argument(arguments, 0)?.parse() {
        Ok(user) => sys::become_user(user).map_err(words),
        Err(_) => Ok(()),
    }
}

fn into_jail(arguments: &[&str]) -> i32 {
    let role = arguments.last().copied().unwrap_or_default();
    let command = [OsString::from("/proc/self/exe"), role.into()];
    say(&format!("failed {}", jail::exec(&command, &[])));
    1
}

pub(crate) fn bytes_of(hex: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap_or_default();
    (0..hex.len()).step_by(2).map(digits).collect()
}

/// An unprotected process with a secret in its heap and in a memory file.
fn bare(arguments: &[&str]) -> Result<(), String> {
    become_who(arguments)?;
    sys::allow_core_files().or(Ok::<_, io::Error>(())).map_err(words)?;
    let needle = bytes_of(&hear());
    let heap = needle.repeat(4096 / needle.len());
    let file = MemFd::create(c"bare", 1).map_err(words)?;
    let file = std::os::fd::AsFd::as_fd(&file).try_clone_to_owned().map_err(words)?;
    fs::File::from(file.try_clone().map_err(words)?).write_all_at(&heap, 0).map_err(words)?;
    let page = heap.as_ptr().addr() as u64;
    describe(page).map_err(words)?;
    say(READY);
    hear();
    drop((heap, file));
    Ok(())
}

/// The real thing: a guest with a secret, and a process that guards it. Arguments: socket, mode,
/// `hardened` or `plain`, and who may manage it.
fn trusted(arguments: &[&str]) -> Result<(), String> {
    let (socket, mode) = (argument(arguments, 0)?, argument(arguments, 1)?);
    let hardened = argument(arguments, 2)? == "hardened";
    let managers = argument(arguments, 3)?.split(',').filter_map(|uid| uid.parse().ok()).collect();
    let mode = if mode == "toggler" { Mode::Toggler } else { Mode::Counter };
    let vm = {
        let entropy = zeroize::Zeroizing::new(bytes_of(&hear()));
        let entropy = entropy.as_slice().try_into().map_err(words)?;
        let program = Program::new(mode, entropy);
        let (kvm, root) = (Kvm::open().map_err(words)?, RootKey::new(ROOT_KEY));
        TrustedVm::boot(&kvm, &root, VmId([1; 16]), 0x800, &program).map_err(words)?
    };
    let vm = Arc::new(vm);
    let listener = UnixListener::bind(socket).map_err(words)?;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    fs::set_permissions(socket, open).map_err(words)?;
    if hardened {
        say(&format!("settled {}", vm.settle(None).map_err(words)?));
    } else {
        sys::allow_core_files().map_err(words)?;
        // Everything that can be dumped at all.
        fs::write("/proc/self/coredump_filter", "0x7f").map_err(words)?;
    }
    vm.start().map_err(words)?;
    let server = Server::new(Arc::clone(&vm), managers).unwrap();
    let listening = Arc::clone(&server);
    let thread = std::thread::spawn(move || listening.listen(&listener));
    while vm.guard().open_pages().is_empty() && mode == Mode::Counter {
        std::thread::yield_now();
    }
    describe(0).map_err(words)?;
    if hardened {
        confine().map_err(words)?;
    }
    say(READY);
    hear();
    server.stop();
    let ended = thread.join().map_err(|_| "the server panicked".to_owned())?;
    ended.map_err(words)
}

/// Says all that an attacker could wish to know of us. `page`: where the secret is, or 0 for the
/// guest's secret page.
fn describe(page: u64) -> io::Result<()> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let mut page = page;
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let number = |hex| u64::from_str_radix(hex, 16).unwrap_or_default();
        let (start, end) = (number(start), number(end));
        let offset = fields.next().map(number).unwrap_or_default();
        if !rights.starts_with('r') || line.contains("[v") {
            continue;
        }
        say(&format!("region {start} {end}"));
        let secret = gfn::SECRET * 4096;
        let holds = offset <= secret && secret < offset + (end - start);
        if page == 0 && line.contains("pageveil-guest") && holds {
            page = start + secret - offset;
        }
    }
    for entry in fs::read_dir("/proc/self/fd")? {
        say(&format!("fd {}", entry?.file_name().display()));
    }
    say(&format!("page {page}"));
    Ok(())
}

/// Tries a route into another process, told line by line.
fn spy(arguments: &[&str]) -> Result<(), String> {
    become_who(arguments)?;
    let needle = bytes_of(&hear());
    let route: Route = hear().parse().map_err(|()| "no such route".to_owned())?;
    let mut target = Target::default();
    loop {
        let line = hear();
        if line == READY {
            break;
        }
        target.learn(&line);
    }
    let loot = attack(route, &target, &needle);
    say(&format!("reached {}", loot.reached));
    say(&format!("bytes {}", loot.bytes));
    say(&format!("hits {}", loot.hits));
    if let Some(refusal) = loot.refusal {
        say(&format!("refusal {refusal}"));
    }
    Ok(())
}

impl Target {
    /// Learns from one line of a process's own description.
    pub(crate) fn learn(&mut self, line: &str) {
        let mut fields = line.split(' ');
        let name = fields.next();
        let numbers: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
        match (name, numbers.as_slice()) {
            (Some("region"), [start, end]) => self.regions.push((*start, *end)),
            (Some("fd"), [fd]) => self.descriptors.push(*fd as i32),
            (Some("page"), [page]) => self.page = *page,
            (Some("pid"), [pid]) => self.pid = *pid as i32,
            _ => {}
        }
    }

    /// The lines that it can be learnt from.
    pub(crate) fn lines(&self) -> Vec<String> {
        let regions = self.regions.iter().map(|(start, end)| format!("region {start} {end}"));
        let descriptors = self.descriptors.iter().map(|fd| format!("fd {fd}"));
        let rest = [format!("page {}", self.page), format!("pid {}", self.pid)];
        regions.chain(descriptors).chain(rest).collect()
    }
}

/// Settles, tells what it is, and tries to go back. Argument: whose it wants to be.
fn settled(arguments: &[&str]) -> Result<(), String> {
    let settled = settle(argument(arguments, 0)?.parse().ok()).map_err(words)?;
    say(&format!("settled {settled}"));
    for (name, call) in [("setuid", libc::SYS_setuid), ("setgid", libc::SYS_setgid)] {
        say(&format!("{name} {:?}", sys::call(call, [0; 6]).map_err(|e| e.raw_os_error())));
    }
    describe_self()?;
    hear();
    Ok(())
}

/// What the kernel says of us, and what we may write to.
fn describe_self() -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").map_err(words)?;
    for line in status.lines() {
        say(&line.replace(['\t', ' '], ""));
    }
    let parent = std::os::unix::process::parent_id();
    let memory = format!("/proc/{parent}/mem");
    for (name, path) in [("pattern", CORE_PATTERN), ("memory", &memory), ("kvm", "/dev/kvm")] {
        let opens = fs::OpenOptions::new().write(true).read(true).open(path);
        say(&format!("open {name} {}", opens.is_ok()));
    }
    let folder = std::env::temp_dir().join(format!("pageveil-jail-{}", std::process::id()));
    let works = fs::write(&folder, "x").and_then(|()| fs::remove_file(&folder)).is_ok();
    say(&format!("works {}", works && Path::new("/proc/self/exe").exists()));
    say(READY);
    Ok(())
}

/// Makes one call that no trusted process makes. Arguments: `free` or `confined`, its name.
fn forbidden(arguments: &[&str]) -> Result<(), String> {
    let name = argument(arguments, 1)?;
    let (_, number, values) =
        super::confined::FORBIDDEN.iter().find(|(other, ..)| *other == name).ok_or("no call")?;
    if argument(arguments, 0)? == "confined" {
        confine().map_err(words)?;
    }
    say(READY);
    // Whether it works is no matter: whether we come back is.
    let us = std::process::id();
    let answer = sys::call(*number, *values);
    if std::process::id() != us {
        std::process::exit(0);
    }
    say(&format!("back {}", answer.is_ok()));
    Ok(())
}
