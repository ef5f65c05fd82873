//! The routes one by one. Each test shows first that the route leads to a secret where nobody
//! closed it: in an unprotected process, and in the trusted process itself for unconfined root,
//! whom nothing stops. So what the others don't find was there to be found.

use std::fs;
use std::os::unix::process::ExitStatusExt;

use frontend_kvm::abi::{gfn, mailbox};
use frontend_kvm::control::client::Client;
use view_core::Page;

use super::common::{kvm, skip};
use super::spy::{Loot, Route};
use super::stage::{Folder, NOBODY, Player, Victim, root, same_user};

fn is_closed(test: &str, route: Route) {
    if !root(test) || kvm(test).is_none() {
        return;
    }
    let folder = Folder::new();
    let (same, other) = (same_user(), NOBODY.to_string());
    let bare = Victim::bare("root", &folder);
    let found = bare.attacked("root", route);
    assert!(found.hits > 0, "{route} finds nothing in an unprotected process: {found:?}");
    let found = Victim::bare(&same, &folder).attacked(&same, route);
    assert!(found.hits > 0, "{route} finds nothing in a process of the same user: {found:?}");

    let trusted = Victim::trusted("counter", "hardened", "0", &folder);
    let found = trusted.attacked("root", route);
    assert!(found.hits > 0, "{route} does not lead to the guest's secret: {found:?}");
    for who in [&*other, "jail", &*same] {
        let found = trusted.attacked(who, route);
        assert_eq!((found.reached, found.bytes, found.hits), (0, 0, 0), "{who}: {found:?}");
        assert!(found.refusal.is_some(), "{who} tried nothing");
    }
}

#[test]
fn proc_pid_mem_is_closed() {
    is_closed("proc_pid_mem_is_closed", Route::Mem);
}

#[test]
fn process_vm_readv_is_closed() {
    is_closed("process_vm_readv_is_closed", Route::Readv);
}

#[test]
fn ptrace_is_closed() {
    is_closed("ptrace_is_closed", Route::Trace);
}

#[test]
fn pidfd_getfd_is_closed() {
    is_closed("pidfd_getfd_is_closed", Route::Steal);
}

#[test]
fn reopening_its_descriptors_is_closed() {
    is_closed("reopening_its_descriptors_is_closed", Route::Reopen);
}

/// The control socket leads to every page. The open mailbox comes through in plain, which shows
/// that the search would find the secret if it did.
#[test]
fn the_control_socket_shows_open_pages_and_no_private_one() {
    let test = "the_control_socket_shows_open_pages_and_no_private_one";
    if !root(test) || kvm(test).is_none() {
        return;
    }
    let folder = Folder::new();
    let trusted = Victim::trusted("counter", "hardened", "0", &folder);
    let mut client = Client::connect(&folder.socket()).unwrap();
    let pages = client.about().unwrap().pages;
    let (mut secrets, mut greetings) = (0, 0);
    let mut count = |bytes: &[u8]| {
        secrets += Loot::hits_in(bytes, &trusted.needle);
        greetings += Loot::hits_in(bytes, &mailbox::GREETING[..32]);
    };
    for first in (0..pages).step_by(64) {
        client.read(first, 64).unwrap().iter().for_each(|page| count(page.bytes.bytes()));
    }
    let mut image = Vec::new();
    client.snapshot(&mut image, |_| {}).unwrap();
    count(&image);
    let view = client.view().unwrap();
    let mut page = Page::zeroed();
    for index in 0..view.pages {
        view.mapping().read(index, &mut page).unwrap();
        count(page.bytes());
    }
    assert_eq!((secrets, greetings), (0, 2), "once by reading, once by mapping");
    assert!(pages > gfn::SECRET && image.len() as u64 > pages * 4096);
}

/// A core file of the whole process has none of the guest's memory, and a settled process has no
/// core file.
#[test]
fn core_dumps_are_closed() {
    let test = "core_dumps_are_closed";
    if !root(test) || kvm(test).is_none() {
        return;
    }
    memory_is_marked_against_dumps();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    if pattern.starts_with(['|', '/']) || pattern.trim().is_empty() {
        skip(test, "the host takes core files away; what they would have was checked instead");
        return;
    }
    let folder = Folder::new();
    let mut bare = Victim::bare("root", &folder);
    assert!(bare.player.abort().core_dumped());
    assert!(Loot::hits_in(&core_file(&folder).unwrap(), &bare.needle) > 0);

    let folder = Folder::new();
    let mut plain = Victim::trusted("counter", "plain", "0", &folder);
    assert!(plain.attacked("root", Route::Mem).hits > 0);
    assert!(plain.player.abort().core_dumped());
    let core = core_file(&folder).unwrap();
    assert!(core.len() > 4096 && Loot::hits_in(&core, &plain.needle) == 0);

    let folder = Folder::new();
    let mut hardened = Victim::trusted("counter", "hardened", "0", &folder);
    let ended = hardened.player.abort();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(libc::SIGABRT), false));
    assert!(core_file(&folder).is_none());
}

fn core_file(folder: &Folder) -> Option<Vec<u8>> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let core = entries.map(|entry| entry.unwrap().path()).find(|path| {
        path.file_name().is_some_and(|name| name.display().to_string().contains("core"))
    });
    core.map(|path| fs::read(path).unwrap())
}

/// Every mapping of the guest's memory, of the view and of the keys, as the kernel has it.
fn memory_is_marked_against_dumps() {
    let folder = Folder::new();
    let trusted = Victim::trusted("counter", "hardened", "0", &folder);
    let maps = fs::read_to_string(format!("/proc/{}/smaps", trusted.player.pid())).unwrap();
    let (mut name, mut marked) = (String::new(), 0);
    for line in maps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let kept = name.contains("pageveil") || name.contains("secretmem");
            let flags: Vec<&str> = flags.split_whitespace().collect();
            assert!(!kept || (flags.contains(&"dd") && flags.contains(&"dc")), "{name}: {flags:?}");
            marked += u32::from(kept);
        } else if line.split(' ').next().is_some_and(|range| range.contains('-')) {
            line.clone_into(&mut name);
        }
    }
    assert!(marked >= 4, "only {marked} mappings: guest, its alias, view and keys are there");
}

/// Who is handed the view file can't give itself the right to store there, though it can do so
/// with a file of its own.
#[test]
fn nobody_who_is_handed_the_view_can_store_into_it() {
    let test = "nobody_who_is_handed_the_view_can_store_into_it";
    if !root(test) || kvm(test).is_none() {
        return;
    }
    let folder = Folder::new();
    let other = NOBODY.to_string();
    let _trusted = Victim::trusted("counter", "hardened", &format!("0,{other}"), &folder);
    let socket = folder.socket();
    for (role, who) in [("store", &*other), ("jail", "jail")] {
        let arguments = [who, socket.to_str().unwrap(), "store"];
        let said = Player::start(role, &arguments, folder.path()).hear();
        assert_eq!(said, ["own true", "view false"], "{who}");
    }
}

#[test]
fn another_user_may_not_manage() {
    let test = "another_user_may_not_manage";
    if !root(test) || kvm(test).is_none() {
        return;
    }
    let folder = Folder::new();
    let _trusted = Victim::trusted("counter", "hardened", "0", &folder);
    let asked = |who: &str| {
        let socket = folder.socket();
        Player::start("manage", &[who, socket.to_str().unwrap()], folder.path()).hear()
    };
    assert_eq!(asked("root"), ["pages 2048"]);
    let other = NOBODY.to_string();
    assert_eq!(asked(&other), [format!("refused user {other} may not manage this VM")]);
}
