//! Bytes with at most one descriptor beside them, over a Unix socket.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::sys::SysError;
pub use crate::sys::{Peer, peer};

/// Sends bytes and a descriptor. Returns how many bytes went; the descriptor went with the first.
///
/// # Errors
/// The socket refused; nothing went.
pub fn send_fd(socket: &UnixStream, bytes: &[u8], fd: &impl AsFd) -> Result<usize, SysError> {
    let sent = socket.send_with_fd(bytes, fd.as_fd().as_raw_fd());
    sent.map_err(|e| SysError::new("sendmsg", e.errno()))
}

/// Receives bytes, and the descriptor beside them if there is one. Others beside it are dropped.
/// What comes in is closed on exec; whether it is what it claims to be is for the caller to check.
///
/// # Errors
/// The socket refused.
pub fn receive_fd(
    socket: &UnixStream,
    bytes: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), SysError> {
    let (count, came) =
        socket.recv_with_fd(bytes).map_err(|e| SysError::new("recvmsg", e.errno()))?;
    // It comes without the close-on-exec mark; its copy has it.
    let copied = came.map(|file: File| file.try_clone()).transpose();
    let copied = copied.map_err(|e| SysError::io("fcntl(F_DUPFD_CLOEXEC)", &e))?;
    Ok((count, copied.map(OwnedFd::from)))
}
