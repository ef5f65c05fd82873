//! The list of system calls: what serving needs is on it, what an intruder needs is not.

use std::os::unix::process::ExitStatusExt;
use std::time::Instant;

use frontend_kvm::abi::{gfn, mailbox};
use frontend_kvm::control::client::Client;
use view_core::key::RootKey;

use super::common::{LONG, kvm, until};
use super::roles::ROOT_KEY;
use super::spy::Loot;
use super::stage::{Folder, Player, Victim, root};

/// Calls with arguments that do no harm where they are allowed.
pub(crate) const FORBIDDEN: &[(&str, i64, [u64; 6])] = &[
    ("openat", libc::SYS_openat, [0; 6]),
    ("memfd_create", libc::SYS_memfd_create, [0; 6]),
    ("unlinkat", libc::SYS_unlinkat, [0; 6]),
    ("execve", libc::SYS_execve, [0; 6]),
    ("fork", libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]),
    ("socket", libc::SYS_socket, [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0, 0, 0, 0]),
    ("connect", libc::SYS_connect, [u64::MAX, 0, 0, 0, 0, 0]),
    ("ptrace", libc::SYS_ptrace, [libc::PTRACE_PEEKDATA as u64, 0, 0, 0, 0, 0]),
    ("process_vm_readv", libc::SYS_process_vm_readv, [1, 0, 0, 0, 0, 0]),
    ("process_vm_writev", libc::SYS_process_vm_writev, [1, 0, 0, 0, 0, 0]),
    ("pidfd_open", libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0]),
    ("kill", libc::SYS_kill, [1, 0, 0, 0, 0, 0]),
    ("tgkill_another", libc::SYS_tgkill, [1, 1, 0, 0, 0, 0]),
    ("bpf", libc::SYS_bpf, [0; 6]),
    ("perf_event_open", libc::SYS_perf_event_open, [0; 6]),
    ("io_uring_setup", libc::SYS_io_uring_setup, [0; 6]),
    ("setuid", libc::SYS_setuid, [0; 6]),
    ("new_code", libc::SYS_mmap, [0, 4096, 5, 0x22, u64::MAX, 0]),
    ("terminal_input", libc::SYS_ioctl, [0, libc::TIOCSTI, 0, 0, 0, 0]),
    ("dumpable_again", libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 0, 0, 0, 0, 0]),
];

#[test]
fn each_call_that_is_not_on_the_list_kills_the_process() {
    let folder = Folder::new();
    for (name, ..) in FORBIDDEN {
        let mut free = Player::start("forbidden", &["free", name], folder.path());
        free.hear();
        assert!(free.hear().len() == 1 && free.end().success(), "{name} ends a free process");
        let mut confined = Player::start("forbidden", &["confined", name], folder.path());
        confined.hear();
        assert_eq!(confined.hear(), [""; 0], "{name} comes back");
        assert_eq!(confined.end().signal(), Some(libc::SIGSYS), "{name}");
    }
}

/// Everything that managers and guest can want of a process that is settled and confined.
#[test]
fn a_confined_process_goes_on_serving() {
    let test = "a_confined_process_goes_on_serving";
    if !root(test) || kvm(test).is_none() {
        return;
    }
    let folder = Folder::new();
    let mut trusted = Victim::trusted("toggler", "hardened", "0", &folder);
    assert!(trusted.said.iter().any(|line| line.starts_with("settled runs as user 61861")));
    let connect = || Client::connect(&folder.socket()).unwrap();
    let mut client = connect();
    assert_eq!(client.states().unwrap().len(), 0x800);
    assert_eq!(client.read(0, 64).unwrap().len(), 64);
    let view = connect().view().unwrap();
    assert!(view.mapping().word(gfn::SECRET as usize, 0).is_some());
    client.unmap(gfn::SECRET).unwrap();
    let word = |at| view.mapping().word(gfn::MAILBOX as usize, at as usize).unwrap();
    let shared = |word_at| {
        // A look at a moment when it is shared: the words around are public then.
        let before = word(mailbox::FILLING);
        let found = word(word_at);
        (before == mailbox::FILLING_WORD && word(mailbox::FILLING) == before).then_some(found)
    };
    let mut toggles = 0;
    until("the guest takes its mailbox back and shares it again", || {
        let _ = client.unmap(gfn::MAILBOX);
        toggles = shared(mailbox::TOGGLES).unwrap_or(toggles).max(toggles);
        toggles > 100
    });

    let mut image = Vec::new();
    let began = Instant::now();
    let taken = connect().snapshot(&mut image, |_| {}).unwrap();
    assert!(began.elapsed() < LONG && taken.pages == 0x800);
    let path = folder.path().join("image");
    std::fs::write(&path, &image).unwrap();
    let file = std::fs::File::open(path).unwrap();
    let mut secrets = 0;
    let count = |page: &view_core::Page| secrets += Loot::hits_in(page.bytes(), &trusted.needle);
    frontend_kvm::trusted::verify(&RootKey::new(ROOT_KEY), &file, None, count).unwrap();
    assert!(secrets > 0 && Loot::hits_in(&image, &trusted.needle) == 0);

    assert!(trusted.player.still_runs());
    client.destroy().unwrap();
    assert!(trusted.player.end().success(), "it ends by itself, not by the filter");
}
