//! Who the trusted process becomes, what a jailed one has left, and which key files are taken.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use frontend_kvm::harden::{HardenError, KeyFlaw, SecretBox, TRUSTED_USER, read_key_file, settle};
use frontend_kvm::jail::{self, JailError};
use frontend_kvm::sys::Secrecy;

use super::stage::{Folder, NOBODY, Player, root};

fn says(said: &[String], line: &str) {
    assert!(said.iter().any(|said| said == line), "{line} is missing: {said:#?}");
}

fn has_no_capabilities(said: &[String], sets: &[&str]) {
    for set in sets {
        says(said, &format!("{set}:0000000000000000"));
    }
    says(said, "NoNewPrivs:1");
}

#[test]
fn a_settled_process_is_a_user_of_its_own_and_cannot_go_back() {
    if !root("a_settled_process_is_a_user_of_its_own_and_cannot_go_back") {
        return;
    }
    let folder = Folder::new();
    for (wanted, uid) in [("default", TRUSTED_USER), ("61999", 61999)] {
        let mut settled = Player::start("settled", &[wanted], folder.path());
        let said = settled.hear();
        says(&said, &format!("Uid:{uid}{uid}{uid}{uid}"));
        says(&said, &format!("Gid:{uid}{uid}{uid}{uid}"));
        says(&said, "Groups:");
        says(&said, "setuid Err(Some(1))");
        says(&said, "setgid Err(Some(1))");
        has_no_capabilities(&said, &["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]);
        let proc = format!("/proc/{}", settled.pid());
        let owner = fs::metadata(format!("{proc}/environ")).unwrap().uid();
        assert_eq!(owner, 0, "what the kernel does with those who can't be dumped");
        let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().filter(|word| *word == "0").count(), 2, "{core}");
        assert!(settled.end().success());
    }
}

#[test]
fn a_process_with_threads_is_not_settled() {
    // This one has them.
    assert!(matches!(settle(None), Err(HardenError::Threads(2..))));
}

#[test]
fn a_jailed_process_has_no_capabilities_and_reaches_nobody() {
    let folder = Folder::new();
    let said = Player::start("jail", &["self"], folder.path()).hear();
    has_no_capabilities(&said, &["CapInh", "CapPrm", "CapEff", "CapAmb"]);
    says(&said, "works true");
    for name in ["pattern", "memory", "kvm"] {
        says(&said, &format!("open {name} false"));
    }
    if root("a_jailed_process_has_no_capabilities_and_reaches_nobody, as root") {
        has_no_capabilities(&said, &["CapBnd"]);
        let free = Player::start("self", &[], folder.path()).hear();
        says(&free, "open pattern true");
        says(&free, "open memory true");
    }
}

#[test]
fn a_jail_says_what_it_did_not_run() {
    assert!(matches!(jail::exec(&[], &[]), JailError::NothingToRun));
    let folder = Folder::new();
    let mut jailed = Player::start("jail", &["no-such-role"], folder.path());
    assert!(!jailed.end().success());
}

#[test]
fn a_key_file_is_taken_only_if_nobody_else_can_have_read_it() {
    let folder = Folder::new();
    let path = folder.path().join("key");
    let write = |bytes: &[u8], mode: u32| {
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let read = |path: &Path| read_key_file(path, TRUSTED_USER);
    for mode in [0o640, 0o604, 0o620, 0o601] {
        write(&[7; 32], mode);
        let refused = read(&path).unwrap_err();
        assert!(matches!(refused.why, KeyFlaw::Open(found) if found == mode));
        assert!(refused.to_string().contains("chmod 600"), "{refused}");
    }
    for length in [0, 31, 33, 64] {
        write(&vec![7; length], 0o400);
        let refused = read(&path).unwrap_err();
        assert!(matches!(refused.why, KeyFlaw::Length(found) if found == length as u64));
        assert!(refused.to_string().contains(&format!("{length} bytes")), "{refused}");
    }
    assert!(matches!(read(folder.path()).unwrap_err().why, KeyFlaw::NotAFile));
    assert!(matches!(read(Path::new("/dev/zero")).unwrap_err().why, KeyFlaw::NotAFile));
    let missing = read(&folder.path().join("none")).unwrap_err();
    assert!(matches!(missing.why, KeyFlaw::Io(_)) && missing.to_string().contains("none"));
    if root("a_key_file_is_taken_only_if_nobody_else_can_have_read_it, by owner") {
        // Root's own file is open to a tool that runs as root in the jail.
        for (owner, taken) in [(TRUSTED_USER, true), (0, false), (NOBODY, false)] {
            write(&[7; 32], 0o600);
            std::os::unix::fs::chown(&path, Some(owner), None).unwrap();
            match read(&path) {
                Ok(key) => assert!(taken && key.expose() == &[7; 32]),
                Err(refused) => {
                    assert!(
                        !taken && matches!(refused.why, KeyFlaw::Foreign(found) if found == owner)
                    );
                }
            }
        }
    } else {
        write(&[7; 32], 0o600);
        assert_eq!(read(&path).unwrap().expose(), &[7; 32]);
    }
}

/// Notes its drop.
struct Dropped<'d, const BYTES: usize>([u8; BYTES], &'d std::cell::Cell<u32>);

impl<const BYTES: usize> Drop for Dropped<'_, BYTES> {
    fn drop(&mut self) {
        self.1.set(self.1.get() + 1);
    }
}

#[test]
fn a_secret_of_any_length_is_where_the_kernel_cannot_read_it_and_dropped_once() {
    a_secret::<64>();
    a_secret::<4096>(); // and a word: one page more
    a_secret::<12_345>();
}

fn a_secret<const BYTES: usize>() {
    let drops = std::cell::Cell::new(0);
    let secret = SecretBox::make(|| Dropped([7; BYTES], &drops)).unwrap();
    assert_eq!(secret.0, [7; BYTES]);
    let memory = fs::File::open("/proc/self/mem").unwrap();
    for byte in secret.0.iter().step_by(4096).chain(secret.0.last()) {
        let at = std::ptr::from_ref(byte).addr() as u64;
        let read = std::os::unix::fs::FileExt::read_at(&memory, &mut [0], at);
        assert_eq!(read.is_err(), secret.secrecy() == Secrecy::Secret);
    }
    assert!(!format!("{secret:?}").contains('7'));
    assert_eq!(drops.get(), 0);
    drop(secret);
    assert_eq!(drops.get(), 1);
}
