//! The file with the owner's root key: 32 bytes that nobody else may read.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use view_core::key::RootKey;
use zeroize::Zeroizing;

use super::sys;
use crate::SysError;

/// Bytes of a key file, no more and no less.
pub const KEY_FILE_BYTES: usize = 32;

/// What is wrong with a key file, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum KeyFlaw {
    /// It doesn't open, or doesn't read.
    #[error("{0}; name a file that this user can read")]
    Io(#[from] io::Error),
    /// A pipe, a device, a folder.
    #[error("it is no regular file; name a file of 32 random bytes")]
    NotAFile,
    /// Others may read or change it.
    #[error("others may use it (mode {0:03o}); make it its owner's alone: chmod 600")]
    Open(u32),
    /// Somebody else owns it, so somebody else knows it.
    #[error(
        "user {0} owns it; it must be the trusted user's, or your own unless you are root: chown it"
    )]
    Foreign(u32),
    /// Another length.
    #[error("it has {0} bytes, a key has 32; make one: head -c 32 /dev/urandom")]
    Length(u64),
    /// Who we are could not be told.
    #[error(transparent)]
    Sys(#[from] SysError),
}

/// Why there is no key. Nothing of the file is kept.
#[derive(Debug, thiserror::Error)]
#[error("key file {}: {why}", path.display())]
pub struct KeyFileError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub why: KeyFlaw,
}

/// The key in a file that is safe to have it in: `trusted_uid` owns it, or the caller does, if that
/// is not root.
///
/// # Errors
/// [`KeyFileError`], which says what to do.
pub fn read_key_file(path: &Path, trusted_uid: u32) -> Result<RootKey, KeyFileError> {
    read(path, trusted_uid).map_err(|why| KeyFileError { path: path.to_owned(), why })
}

fn read(path: &Path, trusted_uid: u32) -> Result<RootKey, KeyFlaw> {
    // Opening a pipe would wait for a writer otherwise.
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let [_, caller, _] = sys::users()?;
    // Root's own files are open to a tool of root's in the jail; the trusted user's are not.
    let owners = if caller == 0 { [trusted_uid; 2] } else { [trusted_uid, caller] };
    // What was opened is what is checked: the path may lead elsewhere by now.
    check(&file.metadata()?, owners)?;
    let mut bytes = Zeroizing::new([0; KEY_FILE_BYTES]);
    file.read_exact(&mut *bytes)?;
    Ok(RootKey::new(*bytes))
}

fn check(found: &Metadata, owners: [u32; 2]) -> Result<(), KeyFlaw> {
    let mode = found.mode() & 0o777;
    if !found.is_file() {
        Err(KeyFlaw::NotAFile)
    } else if mode & 0o077 != 0 {
        Err(KeyFlaw::Open(mode))
    } else if found.len() != KEY_FILE_BYTES as u64 {
        Err(KeyFlaw::Length(found.len()))
    } else if !owners.contains(&found.uid()) {
        Err(KeyFlaw::Foreign(found.uid()))
    } else {
        Ok(())
    }
}
