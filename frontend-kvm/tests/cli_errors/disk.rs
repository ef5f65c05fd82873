//! A disk that is full, and processes that are killed while they write: the old file stays.

use std::fs;

use crate::common::{kvm, skip};
use crate::tool::{Home, Ran, Started, Trusted, pageveil, program, read, tool, until};

const OLD: &[u8] = b"the old file";

/// The guest did not suffer: it counts, and an image of it can be had.
fn nothing_is_lost(home: &Home, guest: &Trusted) {
    guest.runs_on();
    let image = home.path("afterwards");
    pageveil(&["snapshot", &guest.sock, &image]).fine();
    pageveil(&["verify", &image, "--key-file", &home.path("key")]).fine();
}

#[test]
fn a_file_that_may_not_grow_is_refused_and_the_old_one_stays() {
    if kvm("a_file_that_may_not_grow_is_refused_and_the_old_one_stays").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let out = home.path("out");
    fs::write(&out, OLD).unwrap();
    // Four megabytes, and no signal: then the system says so.
    let limited = "trap '' XFSZ; ulimit -f 8192; exec \"$@\"";
    for command in ["snapshot", "dump"] {
        let line = [env!("CARGO_BIN_EXE_pageveil"), command, &guest.sock, &out];
        let ran = program("sh", &[&["-c", limited, "sh"], &line[..]].concat()).expect("a shell");
        ran.refused(&[
            &out,
            "it can't be written: File too large",
            "what was there before is untouched",
        ]);
        assert_eq!(read(&out), OLD);
        assert_eq!(home.files(), ["key", "out"], "nothing half is left");
    }
    nothing_is_lost(&home, &guest);
}

#[test]
fn a_full_disk_is_refused_and_the_old_file_stays() {
    let name = "a_full_disk_is_refused_and_the_old_file_stays";
    if kvm(name).is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let disk = home.path("disk");
    fs::create_dir(&disk).unwrap();
    // A disk of its own, gone with its process; what was in it is told at the end.
    let small = "mount -t tmpfs -o size=1m none \"$1\" || exit 77; \
                 printf 'the old file' > \"$1/out\"; \
                 \"$2\" \"$3\" \"$4\" \"$1/out\"; code=$?; \
                 ls -A \"$1\"; cat \"$1/out\"; exit $code";
    let run = |command: &str| -> Option<Ran> {
        let tool = env!("CARGO_BIN_EXE_pageveil");
        let line = ["-rm", "sh", "-c", small, "sh", &disk, tool, command, &guest.sock];
        program("unshare", &line).filter(|ran| ran.code == Some(1) && !ran.err.contains("unshare"))
    };
    for command in ["snapshot", "dump"] {
        let Some(ran) = run(command) else {
            return skip(name, "no disk can be mounted here");
        };
        ran.refused(&["No space left on device", "what was there before is untouched"]);
        assert_eq!(ran.out, "out\nthe old file", "nothing half is left");
    }
    nothing_is_lost(&home, &guest);
}

/// A command in the middle of its file.
fn in_the_middle(home: &Home, guest: &Trusted, command: &str) -> Started {
    let out = home.path("out");
    let started = Started::new(&mut tool(&[command, &guest.sock, &out]));
    until("it is in the middle of its file", || {
        let half = |name: &String| name.starts_with(".tmp");
        let sizes =
            home.files().into_iter().filter(half).map(|name| fs::metadata(home.path(&name)));
        sizes.flatten().any(|found| found.len() > 1 << 20)
    });
    started
}

#[test]
fn a_manager_killed_in_the_middle_leaves_the_old_file_and_a_guest_that_runs_on() {
    let name = "a_manager_killed_in_the_middle_leaves_the_old_file_and_a_guest_that_runs_on";
    if kvm(name).is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.run("guest", "counter", "256M");
    guest.until_it_shares();
    fs::write(home.path("out"), OLD).unwrap();
    for command in ["snapshot", "dump"] {
        let started = in_the_middle(&home, &guest, command);
        started.signal("KILL");
        assert_eq!(started.wait().code, None, "it was killed before its end");
        assert_eq!(read(home.path("out")), OLD);
        // What was begun stays under a name of its own; who kills cleans up.
        for name in home.files().iter().filter(|name| name.starts_with(".tmp")) {
            fs::remove_file(home.path(name)).unwrap();
        }
    }
    guest.runs_on();
    // The next snapshot is not held up by the one whose reader is gone.
    until("an image can be had again", || {
        pageveil(&["snapshot", &guest.sock, &home.path("out")]).code == Some(0)
    });
}

#[test]
fn a_trusted_process_killed_in_the_middle_leaves_the_old_file() {
    if kvm("a_trusted_process_killed_in_the_middle_leaves_the_old_file").is_none() {
        return;
    }
    let home = Home::new();
    fs::write(home.path("out"), OLD).unwrap();
    for command in ["snapshot", "dump"] {
        let guest = home.run(command, "counter", "256M");
        let started = in_the_middle(&home, &guest, command);
        guest.process.signal("KILL");
        let ran = started.wait();
        ran.refused(&["out: no ", "the socket: ", "what was there before is untouched"]);
        assert!(!ran.err.contains("the guest runs on"), "nobody knows that: {}", ran.err);
        assert_eq!(read(home.path("out")), OLD);
        assert_eq!(home.files(), ["key", "out"], "nothing half is left");
    }
}
