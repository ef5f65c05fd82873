//! The foreign program: it tries one route into another process and counts what it gets.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use super::sys;

/// A way into another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Mem,
    Readv,
    Trace,
    Steal,
    Reopen,
}

impl Route {
    const NAMES: [(Self, &str); 5] = [
        (Self::Mem, "mem"),
        (Self::Readv, "readv"),
        (Self::Trace, "trace"),
        (Self::Steal, "steal"),
        (Self::Reopen, "reopen"),
    ];
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(route, _)| route == self);
        f.write_str(name.map_or("?", |(_, name)| name))
    }
}

impl FromStr for Route {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let route = Self::NAMES.iter().find(|(_, other)| *other == name);
        route.map(|(route, _)| *route).ok_or(())
    }
}

/// Where to look in a process: all that its owner could tell an attacker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub(crate) pid: i32,
    /// Start and end of what it has mapped readable.
    pub(crate) regions: Vec<(u64, u64)>,
    /// Its descriptors.
    pub(crate) descriptors: Vec<i32>,
    /// The very page with the secret.
    pub(crate) page: u64,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loot {
    /// How often the kernel let us in.
    pub(crate) reached: u64,
    /// Bytes read.
    pub(crate) bytes: u64,
    /// How often the secret was among them.
    pub(crate) hits: u64,
    /// The first refusal.
    pub(crate) refusal: Option<String>,
}

impl Loot {
    /// How often a secret is in these bytes, at multiples of eight.
    pub(crate) fn hits_in(bytes: &[u8], needle: &[u8]) -> u64 {
        let (first, _) = needle.split_at(8);
        let starts = (0..bytes.len()).step_by(8);
        starts
            .filter(|at| bytes[*at..].starts_with(first) && bytes[*at..].starts_with(needle))
            .count() as u64
    }

    fn take(&mut self, got: io::Result<usize>, buffer: &[u8], needle: &[u8]) {
        match got {
            Ok(count) => {
                self.reached += 1;
                self.bytes += count as u64;
                self.hits += Self::hits_in(&buffer[..count], needle);
            }
            Err(why) => {
                self.refusal.get_or_insert_with(|| why.to_string());
            }
        }
    }

    fn take_file(&mut self, file: io::Result<File>, needle: &[u8]) {
        let mut buffer = vec![0; 1 << 20];
        match file {
            Ok(file) => {
                self.reached += 1;
                // A descriptor that has no bytes is reached, and shows nothing.
                for at in (0_u64..64 << 20).step_by(buffer.len()) {
                    match file.read_at(&mut buffer, at) {
                        Ok(count) if count > 0 => self.take(Ok(count), &buffer, needle),
                        Ok(_) | Err(_) => break,
                    }
                }
            }
            Err(why) => self.take(Err(why), &[], needle),
        }
    }
}

/// Tries a route to the end.
pub(crate) fn attack(route: Route, target: &Target, needle: &[u8]) -> Loot {
    let mut loot = Loot::default();
    let pid = target.pid;
    match route {
        Route::Mem => match File::open(format!("/proc/{pid}/mem")) {
            Ok(memory) => each_piece(
                target,
                |at, into| memory.read_at(into, at),
                |got, bytes| {
                    loot.take(got, bytes, needle);
                },
            ),
            Err(why) => loot.take(Err(why), &[], needle),
        },
        Route::Readv => each_piece(
            target,
            |at, into| sys::read_process(pid, at, into),
            |got, b| {
                loot.take(got, b, needle);
            },
        ),
        Route::Trace => {
            let mut page = vec![0; 4096];
            let got = sys::peek_process(pid, target.page, &mut page);
            loot.take(got, &page, needle);
        }
        Route::Steal => {
            for fd in &target.descriptors {
                loot.take_file(sys::steal_descriptor(pid, *fd).map(File::from), needle);
            }
        }
        Route::Reopen => {
            for fd in &target.descriptors {
                let path = format!("/proc/{pid}/fd/{fd}");
                let mut options = OpenOptions::new();
                std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
                loot.take_file(options.read(true).open(path), needle);
            }
        }
    }
    loot
}

fn each_piece(
    target: &Target,
    read: impl Fn(u64, &mut [u8]) -> io::Result<usize>,
    mut each: impl FnMut(io::Result<usize>, &[u8]),
) {
    const PIECE: u64 = 1 << 20;
    let mut buffer = vec![0; PIECE as usize];
    for (start, end) in &target.regions {
        for at in (*start..*end).step_by(PIECE as usize) {
            let piece = &mut buffer[..(end - at).min(PIECE) as usize];
            let got = read(at, piece);
            each(got, piece);
        }
    }
}
