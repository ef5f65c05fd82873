//! The system calls that a trusted process may still make once it serves.
//!
//! Everything it needs is open by then. So the list has no call that opens, makes or starts
//! anything outside this process: what takes it over has its memory, and no way to carry it away
//! but through the descriptors that are open.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::sys;

/// Why the process is not confined. End it.
#[derive(Debug, thiserror::Error)]
pub enum ConfineError {
    /// The list makes no filter.
    #[error("the list of system calls makes no filter: {0}")]
    List(#[from] BackendError),
    /// The kernel did not take it, for this thread or for another.
    #[error("the trusted process can't be confined: {0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Which arguments of a call pass.
enum Pass {
    Any,
    /// The low half of this argument is one of these under this mask.
    Masked(u8, u64, &'static [u64]),
    /// The low half of this argument is this process's number.
    Us(u8),
}

/// A call, what of it passes, and what for.
type Allowed = (libc::c_long, Pass, &'static str);

/// The kind of an `ioctl`: the second lowest byte of its number.
const KIND: u64 = 0xff00;
const WHOLE: u64 = 0xffff_ffff;
/// Of `mmap` and `mprotect`: no new code.
const EXECUTABLE: u64 = libc::PROT_EXEC as u64;
/// Of `clone`: a thread, not a process.
const THREAD: u64 = (libc::CLONE_VM | libc::CLONE_THREAD) as u64;

const ALLOWED: &[Allowed] = &[
    (libc::SYS_ioctl, Pass::Masked(1, KIND, &[0xae00, 0xaa00]), "KVM; userfaultfd"),
    (libc::SYS_ioctl, Pass::Masked(1, WHOLE, &[libc::FIONBIO]), "blocking or not"),
    // Memory.
    (libc::SYS_mmap, Pass::Masked(2, EXECUTABLE, &[0]), "windows, stacks, the heap"),
    (libc::SYS_mprotect, Pass::Masked(2, EXECUTABLE, &[0]), "guard pages of stacks, the heap"),
    (libc::SYS_munmap, Pass::Any, "windows, stacks, the heap"),
    (libc::SYS_mremap, Pass::Any, "the heap"),
    (libc::SYS_brk, Pass::Any, "the heap"),
    (libc::SYS_madvise, Pass::Any, "pages out of dumps and children; stacks given back"),
    (libc::SYS_fallocate, Pass::Any, "pages of memory files given back"),
    // Threads.
    (libc::SYS_clone3, Pass::Any, "answered: see ANSWERED"),
    (libc::SYS_clone, Pass::Masked(0, THREAD, &[THREAD]), "a thread"),
    (libc::SYS_set_robust_list, Pass::Any, "a thread starts"),
    (libc::SYS_rseq, Pass::Any, "a thread starts"),
    (libc::SYS_sigaltstack, Pass::Any, "a thread starts and ends"),
    (libc::SYS_sched_getaffinity, Pass::Any, "a thread asks for its stack; the heap"),
    (libc::SYS_prctl, Pass::Masked(0, WHOLE, &[libc::PR_SET_NAME as u64]), "a thread's name"),
    (libc::SYS_futex, Pass::Any, "locks, conditions, joins"),
    (libc::SYS_sched_yield, Pass::Any, "waiting for a page that is held"),
    (libc::SYS_exit, Pass::Any, "a thread ends"),
    (libc::SYS_exit_group, Pass::Any, "the process ends"),
    // Signals: those that take a vCPU out of the guest, and those that end us.
    (libc::SYS_tgkill, Pass::Us(0), "a vCPU's thread, or abort"),
    (libc::SYS_gettid, Pass::Any, "abort"),
    (libc::SYS_getpid, Pass::Any, "abort, a signal to a thread"),
    (libc::SYS_rt_sigaction, Pass::Any, "abort, handlers"),
    (libc::SYS_rt_sigprocmask, Pass::Any, "a thread starts, abort"),
    (libc::SYS_rt_sigreturn, Pass::Any, "a handler returns"),
    (libc::SYS_restart_syscall, Pass::Any, "a signal came while waiting"),
    // Descriptors that are open, and those that managers send.
    (libc::SYS_read, Pass::Any, "sockets, userfaultfd, eventfd"),
    (libc::SYS_readv, Pass::Any, "the same"),
    (libc::SYS_write, Pass::Any, "sockets, eventfd, what is said"),
    (libc::SYS_writev, Pass::Any, "the same"),
    (libc::SYS_pread64, Pass::Any, "an image that is being restored"),
    (libc::SYS_pwrite64, Pass::Any, "the view file"),
    (libc::SYS_close, Pass::Any, "what is done with"),
    (libc::SYS_unlink, Pass::Any, "answered: see ANSWERED"),
    (libc::SYS_fcntl, Pass::Any, "duplicates, blocking or not"),
    (libc::SYS_readlink, Pass::Any, "whether a manager's descriptor is a userfaultfd"),
    (libc::SYS_eventfd2, Pass::Any, "ends the thread that serves stores"),
    (libc::SYS_epoll_create1, Pass::Any, "waiting for touches, stores and managers"),
    (libc::SYS_epoll_ctl, Pass::Any, "the same"),
    (libc::SYS_epoll_wait, Pass::Any, "the same"),
    (libc::SYS_epoll_pwait, Pass::Any, "the same"),
    (libc::SYS_poll, Pass::Any, "the same"),
    (libc::SYS_ppoll, Pass::Any, "the same"),
    (libc::SYS_accept4, Pass::Any, "a manager comes"),
    (libc::SYS_getsockopt, Pass::Any, "who it is"),
    (libc::SYS_setsockopt, Pass::Any, "how long it may take"),
    (libc::SYS_recvfrom, Pass::Any, "what it asks"),
    (libc::SYS_recvmsg, Pass::Any, "its userfaultfd"),
    (libc::SYS_sendto, Pass::Any, "what it is answered"),
    (libc::SYS_sendmsg, Pass::Any, "the view file"),
    (libc::SYS_shutdown, Pass::Any, "it goes"),
    // Time and dice.
    (libc::SYS_clock_gettime, Pass::Any, "stalls, expiries, where the vDSO has no clock"),
    (libc::SYS_clock_nanosleep, Pass::Any, "between two looks for managers"),
    (libc::SYS_nanosleep, Pass::Any, "the same"),
    (libc::SYS_getrandom, Pass::Any, "salts, seeds of tables"),
];

/// Calls that are not made and don't kill either: what comes back, and why.
const ANSWERED: [(libc::c_long, i32, &str); 2] = [
    (libc::SYS_clone3, libc::ENOSYS, "its flags can't be judged; clone, whose can, comes next"),
    (libc::SYS_unlink, libc::EPERM, "who ends would tidy up its socket; it stays"),
];

/// From now on, and for all threads: a call that isn't on the list kills the process.
///
/// # Errors
/// [`ConfineError`]; end the process.
pub fn confine() -> Result<(), ConfineError> {
    sys::settle_allocator();
    // The kernel heeds the stricter answer of two filters. These go first, since the list lets no
    // further one pass.
    for (call, errno, _) in ANSWERED {
        let answer = SeccompAction::Errno(errno.cast_unsigned());
        install(BTreeMap::from([(call, Vec::new())]), SeccompAction::Allow, answer)?;
    }
    install(rules()?, SeccompAction::KillProcess, SeccompAction::Allow)
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let us = u64::from(std::process::id());
    for (call, pass, _) in ALLOWED {
        let rules = rules.entry(*call).or_default();
        match pass {
            // No rule at all stands for every argument.
            Pass::Any => {}
            Pass::Masked(argument, mask, values) => {
                for value in *values {
                    rules.push(rule(*argument, SeccompCmpOp::MaskedEq(*mask), *value)?);
                }
            }
            Pass::Us(argument) => rules.push(rule(*argument, SeccompCmpOp::Eq, us)?),
        }
    }
    Ok(rules)
}

fn rule(argument: u8, is: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, is, value)?;
    SeccompRule::new(vec![condition])
}

fn install(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<(), ConfineError> {
    let filter = SeccompFilter::new(rules, others, these, TargetArch::x86_64)?;
    let program: BpfProgram = filter.try_into()?;
    Ok(apply_filter_all_threads(&program)?)
}

#[cfg(test)]
mod tests {
    use super::{ALLOWED, Pass};

    #[test]
    fn no_call_passes_both_with_any_argument_and_with_some() {
        for (call, pass, _) in ALLOWED {
            if matches!(pass, Pass::Any) {
                let same = ALLOWED.iter().filter(|(other, ..)| other == call).count();
                assert_eq!(same, 1, "call {call} is listed twice");
            }
        }
    }

    #[test]
    fn no_call_that_opens_starts_or_reaches_is_on_the_list() {
        let never = [
            libc::SYS_open,
            libc::SYS_openat,
            libc::SYS_openat2,
            libc::SYS_creat,
            libc::SYS_open_by_handle_at,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_fork,
            libc::SYS_vfork,
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_getfd,
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_bind,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_io_uring_setup,
            libc::SYS_seccomp,
            libc::SYS_setuid,
            libc::SYS_setresuid,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_kill,
            libc::SYS_kcmp,
        ];
        assert!(ALLOWED.iter().all(|(call, ..)| !never.contains(call)));
    }
}
