//! How a call of the system failed: the call's name and the kernel's number, and nothing else.

use vmm_sys_util::errno::Error as Errno;

/// A system call that failed: which, and the kernel's number for why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{call} failed: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct SysError {
    /// The call, by its name in the manual.
    pub call: &'static str,
    /// The error number.
    pub errno: i32,
}

impl SysError {
    /// The failure of `call` with error `errno`.
    pub const fn new(call: &'static str, errno: i32) -> Self {
        Self { call, errno }
    }

    /// The failure of `call`, as the standard library tells it.
    pub fn io(call: &'static str, error: &std::io::Error) -> Self {
        Self::new(call, error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// The failure of `call`, as KVM's crate tells it.
    pub(crate) fn kvm(call: &'static str, error: Errno) -> Self {
        Self::new(call, error.errno())
    }
}
