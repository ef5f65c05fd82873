//! Every route from a foreign process to a guest's private bytes: shown to lead somewhere, and
//! shown to be closed.
//!
//! Processes of this test binary play all parts, by a variable that gives them a role: an
//! unprotected process with a secret, a trusted process with a real guest, and the foreign program.

mod closed;
#[path = "../common/mod.rs"]
mod common;
mod confined;
mod managers;
mod roles;
mod settled;
mod spy;
mod stage;
mod sys;
