//! Management tools in the jail: they work, they write only where they were told, and the owner's
//! key is not within their reach, root's tools or not.

mod common;
mod tool;

use common::{kvm, skip};
use tool::{Home, pageveil};

const TOOL: &str = env!("CARGO_BIN_EXE_pageveil");

#[test]
fn a_jailed_tool_writes_only_where_it_was_told() {
    let test = "a_jailed_tool_writes_only_where_it_was_told";
    if kvm(test).is_none() {
        return;
    }
    // Not beneath a temporary folder, which is writable unasked.
    let user = std::env::var("HOME").map_or("/root".into(), std::path::PathBuf::from);
    if user.starts_with("/tmp") || user.starts_with("/var/tmp") {
        return skip(test, "this user's own folder is a temporary one");
    }
    let folder = tempfile::Builder::new().prefix(".pageveil-jail-").tempdir_in(&user).unwrap();
    let (home, folder) = (Home::new(), folder.path());
    let core = folder.join("core");
    let guest = home.counter();
    let (folder, core) = (folder.to_str().unwrap(), core.to_str().unwrap());
    let dump = ["--", TOOL, "dump", &guest.sock, core];
    pageveil(&[&["jail"], &dump[..]].concat()).refused(&["Permission denied"]);
    assert!(!std::path::Path::new(core).exists());
    let ran = pageveil(&[&["jail", "--write", folder], &dump[..]].concat()).fine();
    assert!(ran.out.contains("sealed"), "{}", ran.out);
    std::fs::remove_file(core).unwrap();
}

#[test]
fn a_jailed_tool_of_roots_gets_no_key() {
    let test = "a_jailed_tool_of_roots_gets_no_key";
    if kvm(test).is_none() || !root(test) {
        return;
    }
    let home = Home::new();
    let guest = home.counter();
    let (image, key) = (home.path("image"), home.path("another.key"));
    pageveil(&["snapshot", &guest.sock, &image]).fine();
    pageveil(&["keygen", &key]).fine();
    // Root outside the jail reads it, and the image is another key's.
    pageveil(&["verify", &image, "--key-file", &key]).refused(&["another key's image"]);
    let jailed = ["jail", "--", TOOL, "verify", &image, "--key-file", &key];
    pageveil(&jailed).refused(&["Permission denied"]);
    let ran = pageveil(&["jail", "--", "cat", &key]);
    assert!(ran.out.is_empty() && ran.err.contains("Permission denied"), "{ran:?}");
    // A key of root's own would be within reach, so none is taken.
    std::os::unix::fs::chown(&key, Some(0), Some(0)).unwrap();
    pageveil(&["verify", &image, "--key-file", &key]).refused(&["user 0 owns it", "chown"]);
}

/// Whether we are root; where we are not, the skip is said.
fn root(test: &str) -> bool {
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
    if me != 0 {
        let required = std::env::var("PAGEVEIL_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|one| one == "root"), "root is required");
        skip(test, "only root is told apart from the trusted user");
    }
    me == 0
}
