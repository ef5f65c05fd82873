//! What a foreign program asks of the kernel to read another process, and what makes a process of
//! this test binary one: a hook that runs before the harness.
#![expect(unsafe_code, reason = "the attacks are system calls")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{io, ptr};

/// Runs before `main`, so that a process with a role has one thread, as the real one has.
///
/// The section holds pointers to functions that the C library calls once each, before `main` and
/// after the standard library's own entry; this is one.
#[used]
#[unsafe(link_section = ".init_array")]
static HOOK: extern "C" fn() = hook;

extern "C" fn hook() {
    if let Ok(role) = std::env::var(super::roles::ROLE) {
        let code = super::roles::play(&role);
        std::process::exit(code);
    }
}

fn check(answer: i64) -> io::Result<i64> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Any system call whose arguments are numbers, or null.
pub(crate) fn call(number: i64, arguments: [u64; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the callers pass numbers and null pointers, which the kernel checks.
    check(unsafe { libc::syscall(number, a, b, c, d, e, f) })
}

/// Reads another process's memory with `process_vm_readv`.
pub(crate) fn read_process(pid: i32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let there = ptr::without_provenance_mut(address as usize);
    let remote = libc::iovec { iov_base: there, iov_len: into.len() };
    // SAFETY: the kernel writes at most as many bytes to `into` as it has.
    let got = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    check(got as i64).map(|got| got as usize)
}

/// Reads another process's memory word by word, as its tracer.
pub(crate) fn peek_process(pid: i32, address: u64, into: &mut [u8]) -> io::Result<usize> {
    let ask = |request: u32, address: u64| {
        // SAFETY: none of the three requests used here has the kernel touch our memory, but for
        // the word that the C library returns.
        unsafe { libc::ptrace(request, pid, address, 0_u64) }
    };
    check(ask(libc::PTRACE_SEIZE, 0))?;
    check(ask(libc::PTRACE_INTERRUPT, 0))?;
    let mut status = 0;
    // SAFETY: the kernel writes one number to a local.
    check(unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) }.into())?;
    for (word, at) in into.chunks_exact_mut(8).zip((address..).step_by(8)) {
        word.copy_from_slice(&ask(libc::PTRACE_PEEKDATA, at).to_le_bytes());
    }
    check(ask(libc::PTRACE_DETACH, 0))?;
    Ok(into.len())
}

/// A copy of another process's descriptor.
pub(crate) fn steal_descriptor(pid: i32, fd: i32) -> io::Result<OwnedFd> {
    let process = call(libc::SYS_pidfd_open, [pid as u64, 0, 0, 0, 0, 0])?;
    // SAFETY: the kernel just made it, for us.
    let process = unsafe { OwnedFd::from_raw_fd(process as i32) };
    let numbers = [process.as_raw_fd() as u64, fd as u64, 0, 0, 0, 0];
    let stolen = call(libc::SYS_pidfd_getfd, numbers)?;
    // SAFETY: the kernel just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(stolen as i32) })
}

/// Becomes another user, with nothing of root's left, and readable by its own kind.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    let id = u64::from(id);
    call(libc::SYS_setgroups, [0; 6])?;
    call(libc::SYS_setresgid, [id, id, id, 0, 0, 0])?;
    call(libc::SYS_setresuid, [id, id, id, 0, 0, 0])?;
    call(libc::SYS_prctl, [libc::PR_SET_DUMPABLE as u64, 1, 0, 0, 0, 0]).map(|_| ())
}

/// Lets core files of this process be as long as they get.
pub(crate) fn allow_core_files() -> io::Result<()> {
    let all = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the kernel reads one rlimit.
    check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const all) }.into()).map(|_| ())
}

/// Whether a file can be mapped for storing into it.
pub(crate) fn maps_for_storing(file: &std::fs::File) -> bool {
    let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
    // SAFETY: a new mapping where nothing else is; it stays, and nobody uses it.
    let at = unsafe { libc::mmap(ptr::null_mut(), 4096, rights, flags, file.as_raw_fd(), 0) };
    at != libc::MAP_FAILED
}
