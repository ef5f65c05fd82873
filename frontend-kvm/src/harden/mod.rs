//! What the trusted process gives up before it serves anybody, so that less can be taken from it.
//!
//! In this order: boot the VM (it opens the devices), [`TrustedVm::settle`], start the guest,
//! [`confine`]. Settled, the process is a user of its own, without capabilities, not dumpable;
//! confined, it can't open a file, start a program or reach another process any more.
//!
//! It stops other processes. It doesn't stop root that may trace, nor the host's kernel.
//!
//! [`TrustedVm::settle`]: crate::trusted::TrustedVm::settle

mod confine;
mod key_file;
mod settle;
pub(crate) mod sys;

pub use self::confine::{ConfineError, confine};
pub use self::key_file::{KEY_FILE_BYTES, KeyFileError, KeyFlaw, read_key_file};
pub(crate) use self::settle::target;
pub use self::settle::{HardenError, Settled, TRUSTED_USER, settle};
pub use self::sys::SecretBox;
