//! A user of its own, no capabilities, no dumps.

use std::fmt;

use super::sys;
use crate::SysError;

/// The user that a trusted process becomes when root starts it and names no other. Nobody else
/// should have it: who is the same user is stopped by less.
pub const TRUSTED_USER: u32 = 61861;

/// Why the process is not hardened. Some steps may be done: end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HardenError {
    /// The system refused a step.
    #[error("the trusted process can't be hardened: {0}")]
    Sys(#[from] SysError),
    /// The user named is no user of its own.
    #[error("the trusted process can't be root's: name another user, or none")]
    Root,
    /// Only root can become another user.
    #[error("only root can become user {wanted}; this is user {uid}")]
    NotRoot {
        /// Who was named.
        wanted: u32,
        /// Who we are.
        uid: u32,
    },
    /// Threads keep their own rights, so there must be none yet.
    #[error("harden before the guest starts: there are {0} threads already")]
    Threads(usize),
    /// A step succeeded and changed nothing.
    #[error("the trusted process still has {0} after giving it up")]
    Kept(&'static str),
}

/// Who the trusted process is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Its user.
    pub uid: u32,
    /// Whether that user is not who started it. False: programs of the same user are kept out by
    /// this process not being dumpable, and by nothing else.
    pub own_user: bool,
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid = self.uid;
        if self.own_user {
            write!(f, "runs as user {uid}, without capabilities, not dumpable")
        } else {
            write!(f, "stays user {uid}, not dumpable; started by root, it has a user of its own")
        }
    }
}

/// Makes this process hard to reach: started by root, it becomes `uid` or [`TRUSTED_USER`], else
/// it stays who it is; it has no capability, gains none, and is never dumped.
///
/// What only root may open must be open before. Prefer [`TrustedVm::settle`], which hands the
/// memory files over too.
///
/// # Errors
/// [`HardenError`]; end the process.
///
/// [`TrustedVm::settle`]: crate::trusted::TrustedVm::settle
pub fn settle(uid: Option<u32>) -> Result<Settled, HardenError> {
    let threads = std::fs::read_dir("/proc/self/task").map_err(|e| SysError::io("opendir", &e))?;
    match threads.count() {
        1 => {}
        more => return Err(HardenError::Threads(more)),
    }
    let settled = target(uid)?;
    sys::forbid_core_files()?;
    if settled.own_user {
        sys::drop_bounding_set()?;
        sys::become_user(settled.uid)?;
    }
    sys::drop_capabilities()?;
    sys::forbid_new_privileges()?;
    // Last, since a change of user undoes it.
    crate::sys::forbid_dumps()?;
    verify(&settled)?;
    Ok(settled)
}

/// Who to become, if that can be.
pub(crate) fn target(uid: Option<u32>) -> Result<Settled, HardenError> {
    let [_, effective, _] = sys::users()?;
    match (effective, uid) {
        (_, Some(0)) => Err(HardenError::Root),
        (0, wanted) => Ok(Settled { uid: wanted.unwrap_or(TRUSTED_USER), own_user: true }),
        (uid, Some(wanted)) if wanted != uid => Err(HardenError::NotRoot { wanted, uid }),
        (uid, _) => Ok(Settled { uid, own_user: false }),
    }
}

/// Looks again at everything that was given up.
fn verify(settled: &Settled) -> Result<(), HardenError> {
    let expected = [settled.uid; 3];
    if sys::users()? != expected {
        return Err(HardenError::Kept("another user"));
    }
    if settled.own_user && sys::groups()? != expected {
        return Err(HardenError::Kept("another group"));
    }
    if !sys::has_no_capability()? {
        return Err(HardenError::Kept("a capability"));
    }
    if sys::may_be_dumped()? {
        return Err(HardenError::Kept("dumps"));
    }
    Ok(())
}
