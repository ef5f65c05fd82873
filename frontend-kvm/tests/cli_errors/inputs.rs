//! Keys, sizes, names and pages that are not what they should be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::kvm;
use crate::tool::{Home, pageveil, read};

#[test]
fn a_key_file_that_is_no_key_is_refused_with_what_to_do() {
    let home = Home::new();
    let verify = |key: &str| pageveil(&["verify", "/dev/null", "--key-file", key]);
    let file = |name: &str, bytes: &[u8], mode: u32| {
        let path = home.path(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for length in [0, 31, 33, 4096] {
        let key = file("short", &vec![7; length], 0o600);
        verify(&key).refused(&[&key, &format!("has {length} bytes, a key has 32")]);
    }
    for mode in [0o644, 0o640, 0o604, 0o620] {
        let key = file("open", &[7; 32], mode);
        let words = format!("others may use it (mode {mode:o})");
        verify(&key).refused(&[&key, &words, "chmod 600"]);
        fs::remove_file(&key).unwrap();
    }
    verify(&home.path("none")).refused(&["none", "No such file or directory"]);
    verify(&home.path("")).refused(&["no regular file"]);
    // The rest of the trusted side refuses it alike, before it makes anything.
    let (key, sock) = (file("open", &[7; 32], 0o644), home.path("a.sock"));
    let run = pageveil(&["run", "counter", "--control", &sock, "--key-file", &key]);
    run.refused(&["others may use it"]);
    let restore = ["restore", "/dev/null", "--control", &sock, "--key-file", &key];
    pageveil(&restore).refused(&["others may use it"]);
    assert!(fs::metadata(&sock).is_err(), "nothing was made");
}

#[test]
fn keygen_makes_a_key_for_its_owner_alone_and_never_over_another() {
    let home = Home::new();
    let (key, other) = (home.path("key"), home.path("other"));
    let before = read(&key);
    assert_eq!(
        (before.len(), fs::metadata(&key).unwrap().permissions().mode() & 0o777),
        (32, 0o600)
    );
    pageveil(&["keygen", &key]).refused(&[&key, "File exists"]);
    assert_eq!(read(&key), before, "the key is still there");
    pageveil(&["keygen", &other]).fine();
    assert_ne!(read(&other), before);
    pageveil(&["keygen", &home.path("no/key")]).refused(&["No such file or directory"]);
}

#[test]
fn memory_of_a_size_that_no_guest_has_is_refused() {
    let home = Home::new();
    let (sock, key) = (home.path("a.sock"), home.path("key"));
    let run = |mem: &str| {
        pageveil(&["run", "spin", "--mem", mem, "--control", &sock, "--key-file", &key])
    };
    run("8388609").refused(&["--mem 8388609 is not a whole number of 4 KiB pages"]);
    for mem in ["0", "4096", "4M", "1025M", "2G", "1024G"] {
        run(mem).refused(&["is no size for a guest: 8M to 1G"]);
    }
    assert!(fs::metadata(&sock).is_err(), "nothing was made");
    pageveil(&["demo", "--pages", "10"]).misused(&["10", "2048..=262144"]);
    pageveil(&["demo", "--pages", "99999999"]).misused(&["2048..=262144"]);
}

#[test]
fn a_page_that_the_guest_does_not_have_is_refused_by_its_number() {
    if kvm("a_page_that_the_guest_does_not_have_is_refused_by_its_number").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    for page in ["0x800", "0x999999", "0xffffffffff", "0x10000000000", "0xffffffffffffffff"] {
        pageveil(&["peek", &guest.sock, page]).refused(&[&format!("no page {page}")]);
    }
    let view = ["view", &guest.sock, "--page", "0x800"];
    pageveil(&view).refused(&["the guest has no page 0x800"]);
    guest.runs_on();
}

#[test]
fn a_control_socket_that_is_none_is_refused_and_stays() {
    let home = Home::new();
    let file = home.path("file");
    fs::write(&file, "precious").unwrap();
    for command in ["map", "view"] {
        let words = ["No such file or directory", "is `pageveil run --control "];
        pageveil(&[command, &home.path("none.sock")]).refused(&words);
        pageveil(&[command, &file]).refused(&["file: Connection refused"]);
    }
    for command in ["dump", "snapshot"] {
        let (sock, out) = (home.path("none.sock"), home.path("out"));
        pageveil(&[command, &sock, &out]).refused(&["none.sock: No such file or directory"]);
    }
    pageveil(&["peek", &home.path("none.sock"), "1"]).refused(&["No such file or directory"]);
    assert_eq!(home.files(), ["file", "key"], "nothing came or went");
    assert_eq!(read(&file), b"precious");
}

#[test]
fn a_control_socket_in_use_is_refused_and_its_guest_runs_on() {
    if kvm("a_control_socket_in_use_is_refused_and_its_guest_runs_on").is_none() {
        return;
    }
    let home = Home::new();
    let (guest, key) = (home.counter(), home.path("key"));
    let run = |sock: &str| {
        pageveil(&["run", "spin", "--mem", "8M", "--control", sock, "--key-file", &key])
    };
    run(&guest.sock).refused(&[&guest.sock, "in use"]);
    guest.runs_on();
    let file = home.path("file");
    fs::write(&file, "precious").unwrap();
    run(&file).refused(&[&file, "in use"]);
    assert_eq!(read(&file), b"precious", "what is no socket is not removed");
    run(&home.path("no/a.sock")).refused(&["No such file or directory"]);
    // Who is gone leaves nothing in the way, even killed.
    guest.process.signal("KILL");
    let _ = guest.process.wait();
    home.counter().runs_on();
}

#[test]
fn an_output_where_no_folder_is_is_refused_and_the_guest_runs_on() {
    if kvm("an_output_where_no_folder_is_is_refused_and_the_guest_runs_on").is_none() {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let out = home.path("nowhere/out");
    for command in ["dump", "snapshot"] {
        let words = [&out[..], "can't be written", "No such file or directory"];
        pageveil(&[command, &guest.sock, &out]).refused(&words);
    }
    pageveil(&["map", &guest.sock, "--svg", &out]).refused(&["No such file or directory"]);
    // A folder is no file to write to, and stays.
    let folder = home.path("folder");
    fs::create_dir(&folder).unwrap();
    for command in ["dump", "snapshot"] {
        pageveil(&[command, &guest.sock, &folder]).refused(&["folder", "can't be written"]);
    }
    assert_eq!(home.files(), ["folder", "key"], "nothing half is left");
    guest.runs_on();
}
