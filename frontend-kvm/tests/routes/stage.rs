//! The parent's side: processes with a role, and what is said between them and the test.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use frontend_kvm::harden::TRUSTED_USER;
use frontend_kvm::{Mode, Program};

use super::common;
use super::roles::{ARGUMENTS, READY, ROLE};
use super::spy::{Loot, Route, Target};

/// A user that has nothing to do with any of it.
pub(crate) const NOBODY: u32 = 65534;

/// Whether this test can have users: then KVM too. Says so if not.
pub(crate) fn root(test: &str) -> bool {
    let uid =
        std::fs::metadata("/proc/self").map(|meta| std::os::unix::fs::MetadataExt::uid(&meta));
    let root = uid.is_ok_and(|uid| uid == 0);
    if !root {
        let required = std::env::var("PAGEVEIL_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|r| r == "root"), "root is required, and this is not");
        common::skip(test, "it takes root to be several users");
    }
    root
}

/// A folder that is gone at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pageveil-routes-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, open).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.0.join("control")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process of this binary with a role. Killed at the end.
pub(crate) struct Player {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Player {
    pub(crate) fn start(role: &str, arguments: &[&str], folder: &Path) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.env(ROLE, role).env(ARGUMENTS, arguments.join(" ")).current_dir(folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.process.id().cast_signed()
    }

    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Everything that it says up to its end, or until it is ready.
    pub(crate) fn hear(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.output.read_line(&mut line).unwrap();
            let line = line.trim_end();
            assert!(!line.starts_with("failed"), "{line}");
            if line.is_empty() || line == READY {
                return lines;
            }
            lines.push(line.to_owned());
        }
    }

    /// Lets it end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.input = None;
        self.process.wait().unwrap()
    }

    pub(crate) fn still_runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Ends it with the signal that has a core file written where that may be.
    pub(crate) fn abort(&mut self) -> ExitStatus {
        super::sys::call(libc::SYS_kill, [self.pid() as u64, 6, 0, 0, 0, 0]).unwrap();
        self.process.wait().unwrap()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A process with a secret, and where to look for it.
pub(crate) struct Victim {
    pub(crate) player: Player,
    pub(crate) target: Target,
    pub(crate) needle: Vec<u8>,
    pub(crate) said: Vec<String>,
}

impl Victim {
    fn new(mut player: Player, needle: Vec<u8>) -> Self {
        let said = player.hear();
        let mut target = Target { pid: player.pid(), ..Target::default() };
        said.iter().for_each(|line| target.learn(line));
        assert!(target.page != 0 && !target.regions.is_empty() && !target.descriptors.is_empty());
        Self { player, target, needle, said }
    }

    /// An unprotected process of a user's.
    pub(crate) fn bare(user: &str, folder: &Folder) -> Self {
        let mut player = Player::start("bare", &[user], folder.path());
        let needle: [u8; 32] = frontend_kvm::trusted::random().unwrap();
        player.say(&hex(&needle));
        Self::new(player, needle.to_vec())
    }

    /// A trusted process with a running guest. The needle is the start of the guest's secret,
    /// which only the guest derives over there.
    pub(crate) fn trusted(mode: &str, how: &str, managers: &str, folder: &Folder) -> Self {
        let socket = folder.socket();
        let arguments = [socket.to_str().unwrap(), mode, how, managers];
        let mut player = Player::start("trusted", &arguments, folder.path());
        let entropy = frontend_kvm::trusted::random().unwrap();
        player.say(&hex(&entropy));
        let program = Program::new(Mode::Counter, &entropy);
        Self::new(player, program.secret(0).bytes()[..32].to_vec())
    }

    /// What a foreign program gets by a route. `who`: a user's number, `root`, or `jail`.
    pub(crate) fn attacked(&self, who: &str, route: Route) -> Loot {
        let role = if who == "jail" { "jail" } else { "spy" };
        let mut spy = Player::start(role, &[who, "spy"], Path::new("/"));
        spy.say(&hex(&self.needle));
        spy.say(&route.to_string());
        for line in self.target.lines() {
            spy.say(&line);
        }
        spy.say(READY);
        let said = spy.hear();
        let word = |name: &str| said.iter().find_map(|line| line.strip_prefix(name));
        let number = |name| word(name).and_then(|word| word.parse().ok());
        let [reached, bytes, hits] = ["reached ", "bytes ", "hits "].map(number);
        Loot {
            reached: reached.unwrap_or_else(|| panic!("the spy says {said:?}")),
            bytes: bytes.unwrap(),
            hits: hits.unwrap(),
            refusal: word("refusal ").map(str::to_owned),
        }
    }
}

/// The user that a trusted process has here, as an argument.
pub(crate) fn same_user() -> String {
    TRUSTED_USER.to_string()
}
