//! Serving a manager's mapping of the view file, page by page, as it touches them.

mod sys;

use std::os::unix::net::UnixStream;
use std::time::Duration;

use view_core::Gfn;
use vmm_sys_util::poll::PollContext;

pub(crate) use self::sys::ForeignUffd;
pub use self::sys::ViewMapping;
use crate::SysError;
use crate::trusted::Guard;

/// Serves touches until the manager hangs up or `over` says so.
///
/// # Errors
/// The system's; the view is over, nothing else is.
pub(crate) fn serve(
    guard: &Guard,
    uffd: &ForeignUffd,
    socket: &UnixStream,
    over: impl Fn() -> bool,
) -> Result<(), SysError> {
    const TOUCH: u32 = 0;
    const SOCKET: u32 = 1;
    let failed = |e: vmm_sys_util::errno::Error| SysError::new("epoll", e.errno());
    let poll = PollContext::new().map_err(failed)?;
    poll.add(uffd, TOUCH).map_err(failed)?;
    poll.add(socket, SOCKET).map_err(failed)?;
    while !over() {
        let events = poll.wait_timeout(Duration::from_millis(200)).map_err(failed)?;
        while let Some(page) = uffd.next()? {
            if let Ok(gfn) = Gfn::new(page) {
                // Refused or not: who waits goes on, and finds what may be seen, or waits again.
                let _ = guard.show(gfn);
            }
            uffd.wake(page)?;
        }
        if events.iter().any(|event| event.token() == SOCKET) {
            return Ok(());
        }
    }
    Ok(())
}
