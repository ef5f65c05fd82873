//! Ways to keep a page of a file that the file itself may lose.
#![expect(unsafe_code, reason = "mapping a file, and pinning a page of it in a pipe")]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

const PAGE: usize = 4096;

/// One page of a file, mapped for reading, without a userfaultfd.
pub(crate) struct Bare(NonNull<[AtomicU64; PAGE / 8]>);

impl Bare {
    pub(crate) fn new(file: &File, page: usize) -> io::Result<Self> {
        let (fd, offset) = (file.as_raw_fd(), (page * PAGE) as i64);
        let (rights, flags) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
        let at = unsafe { libc::mmap(ptr::null_mut(), PAGE, rights, flags, fd, offset) };
        match NonNull::new(at.cast()) {
            Some(base) if at != libc::MAP_FAILED => Ok(Self(base)),
            Some(_) | None => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn words(&self) -> impl Iterator<Item = u64> + '_ {
        // SAFETY: mapped readable while self lives, page-aligned, of a file whose size is sealed,
        // and only loaded, relaxed, word by word.
        let words = unsafe { self.0.as_ref() };
        words.iter().map(|word| word.load(Ordering::Relaxed))
    }

    /// Puts the page itself into a pipe: it is pinned until it is read out there.
    pub(crate) fn pin(&self, pipe: &io::PipeWriter) -> io::Result<()> {
        let piece = libc::iovec { iov_base: self.0.as_ptr().cast(), iov_len: PAGE };
        let flags = libc::SPLICE_F_NONBLOCK;
        // SAFETY: the kernel takes a share of the pages that are mapped there, for reading.
        let put = unsafe { libc::vmsplice(pipe.as_raw_fd(), &raw const piece, 1, flags) };
        if put == PAGE as isize { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        // SAFETY: ours alone, and no borrow of it outlives a call.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// What a pinned page holds by now.
pub(crate) fn unpin(pipe: &mut io::PipeReader) -> io::Result<Vec<u64>> {
    let mut bytes = vec![0; PAGE];
    pipe.read_exact(&mut bytes)?;
    let (words, _) = bytes.as_chunks::<8>();
    Ok(words.iter().map(|word| u64::from_le_bytes(*word)).collect())
}
