//! The shipped tool as a person uses it: started, heard, ended. Every wait has an end, and every
//! process that a test started is gone with it.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use frontend_kvm::abi::{gfn, mailbox};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than any command takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// It did what it was asked.
    #[track_caller]
    pub(crate) fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// The line of JSON: the last of its output, and the only one of its kind.
    #[track_caller]
    pub(crate) fn json(self) -> Value {
        let this = self.fine();
        let last = this.out.lines().last().unwrap_or_default();
        assert!(this.out.ends_with('\n'), "the last line has an end: {:?}", this.out);
        let objects = this.out.lines().filter(|line| line.starts_with('{')).count();
        assert_eq!(objects, 1, "{}", this.out);
        let value: Value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {last}"));
        assert!(value.is_object(), "{last}");
        value
    }

    /// It failed with one line for people that has all of these words.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) {
        self.failed(1, words);
        assert_eq!(self.err.trim_end().lines().count(), 1, "one line: {}", self.err);
        assert!(self.err.starts_with("pageveil: "), "{}", self.err);
    }

    /// It was not told right.
    #[track_caller]
    pub(crate) fn misused(&self, words: &[&str]) {
        self.failed(2, words);
    }

    #[track_caller]
    fn failed(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(!self.err.contains("panicked"), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {:?}", self.err);
        }
    }
}

/// The tool with these arguments; not started.
pub(crate) fn tool<A: AsRef<OsStr>>(arguments: &[A]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pageveil"));
    command.args(arguments).env_remove("RUST_BACKTRACE");
    command
}

/// Runs the tool to its end.
pub(crate) fn pageveil<A: AsRef<OsStr>>(arguments: &[A]) -> Ran {
    Started::new(&mut tool(arguments)).wait()
}

/// Runs anything to its end; `None` if there is no such program.
pub(crate) fn program<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> Option<Ran> {
    let mut command = Command::new(name);
    command.args(arguments).env("LC_ALL", "C");
    Started::try_new(&mut command).ok().map(Started::wait)
}

/// A process and what it says. Killed when dropped.
pub(crate) struct Started {
    child: Child,
    out: Arc<Mutex<String>>,
    err: Arc<Mutex<String>>,
    ears: Vec<JoinHandle<()>>,
}

impl Started {
    pub(crate) fn new(command: &mut Command) -> Self {
        Self::try_new(command).expect("the program starts")
    }

    fn try_new(command: &mut Command) -> std::io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (out, err) = (Arc::default(), Arc::default());
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let ears = vec![listen(stdout, &out), listen(stderr, &err)];
        Ok(Self { child, out, err, ears })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn said(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ran {
        let since = Instant::now();
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(since.elapsed() < PATIENCE, "it does not end: {}", self.said()),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        self.ears.drain(..).for_each(|ear| ear.join().unwrap());
        let (out, err) = (self.out.lock().unwrap().clone(), self.said());
        Ran { code: status.code(), out, err }
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.id());
        program("sh", &["-c", &kill]).expect("a shell").fine();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may be over, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(mut from: impl Read + Send + 'static, into: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(some @ 1..) = from.read(&mut bytes) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..some]));
        }
    })
}

/// A folder of its own with a key in it; gone when dropped.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        let this = Self(tempfile::Builder::new().prefix("pageveil-").tempdir().unwrap());
        pageveil(&["keygen", &this.path("key")]).fine();
        this
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// What is in it, without the sockets of guests.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.retain(|name| !name.ends_with(".sock"));
        names.sort();
        names
    }

    /// `pageveil run` of a guest, answering at `NAME.sock`.
    pub(crate) fn run(&self, name: &str, guest: &str, mem: &str) -> Trusted {
        let (sock, key) = (self.path(&format!("{name}.sock")), self.path("key"));
        let arguments = ["run", guest, "--mem", mem, "--control", &sock, "--key-file", &key];
        Trusted::start(&arguments, &sock).unwrap_or_else(|ran| panic!("{ran:?}"))
    }

    /// A counter whose mailbox is open, in 8 MiB.
    pub(crate) fn counter(&self) -> Trusted {
        let guest = self.run("guest", "counter", "8M");
        guest.until_it_shares();
        guest
    }
}

/// A trusted process that answers. Killed when dropped.
pub(crate) struct Trusted {
    pub(crate) process: Started,
    pub(crate) sock: String,
}

impl Trusted {
    /// Starts it and waits until it serves, or returns how it ended instead.
    pub(crate) fn start(arguments: &[&str], sock: &str) -> Result<Self, Ran> {
        let mut process = Started::new(&mut tool(arguments));
        let since = Instant::now();
        while !process.said().contains("the guest runs") {
            if process.is_over() {
                return Err(process.wait());
            }
            assert!(since.elapsed() < PATIENCE, "it does not serve: {}", process.said());
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(Self { process, sock: sock.to_owned() })
    }

    /// How many steps the guest did, as its open mailbox says.
    pub(crate) fn steps(&self) -> u64 {
        steps_in(&self.peek(gfn::MAILBOX))
    }

    pub(crate) fn peek(&self, page: u64) -> Value {
        pageveil(&["peek", &self.sock, &format!("{page:#x}"), "--json"]).json()
    }

    pub(crate) fn until_it_shares(&self) {
        until("the guest shares", || {
            self.peek(gfn::MAILBOX)["sealed"] == false && self.steps() > 0
        });
    }

    /// The guest runs on, whatever was just refused.
    #[track_caller]
    pub(crate) fn runs_on(&self) {
        let before = self.steps();
        until("the guest runs on", || self.steps() > before);
    }

    /// Ends it as a person would.
    pub(crate) fn end(self) -> Ran {
        self.process.signal("TERM");
        self.process.wait()
    }
}

fn steps_in(peeked: &Value) -> u64 {
    let page = bytes(peeked["bytes"].as_str().unwrap());
    let words = page.as_chunks::<8>().0;
    u64::from_le_bytes(words[mailbox::STEPS as usize])
}

/// The bytes behind hex digits.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2).map(|two| str::from_utf8(two).unwrap());
    digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < PATIENCE, "still not so: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path: PathBuf = path.as_ref().to_owned();
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Whether every tag of a picture is closed by its like, and nothing stands outside of one root.
pub(crate) fn is_well_formed(xml: &str) -> bool {
    let (mut open, mut roots) = (Vec::new(), 0);
    let mut rest = xml.trim();
    while let Some(at) = rest.find(['<', '>', '&']) {
        let behind = &rest[at..];
        if behind.starts_with('&') {
            let end = behind.find(';').filter(|end| *end < 10 && !open.is_empty());
            let Some(end) = end else { return false };
            rest = &behind[end + 1..];
            continue;
        }
        let (Some(end), true) = (behind.find('>'), behind.starts_with('<')) else { return false };
        let tag = &behind[1..end];
        let name = tag.trim_matches('/').split_whitespace().next().unwrap_or_default();
        let quoted = tag.matches('"').count().is_multiple_of(2);
        if tag.contains('<') || !quoted || at != 0 && open.is_empty() {
            return false;
        }
        if tag.starts_with('/') {
            if open.pop() != Some(name) {
                return false;
            }
        } else {
            roots += usize::from(open.is_empty());
            if !tag.ends_with('/') {
                open.push(name);
            }
        }
        rest = &behind[end + 1..];
    }
    open.is_empty() && roots == 1 && rest.is_empty()
}
