//! Both ends of a view: the manager's mapping of the view file, and the userfaultfd that it hands
//! to the trusted process. Addresses are the manager's; this process never touches them.
#![expect(unsafe_code, reason = "mapping a file and two userfaultfd requests")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use view_core::Page;
use vmm_sys_util::ioctl::{ioctl_expr, ioctl_with_mut_ref};
use zerocopy::IntoBytes;

use crate::SysError;
use crate::sys::{PAGE, Uffd, WORDS};

/// `UFFDIO_REGISTER`: address, length, modes; the kernel writes what can be asked.
const REGISTER: libc::c_ulong = ioctl_expr(3, 0xaa, 0x00, 32);
/// `UFFDIO_WAKE`: address, length.
const WAKE: libc::c_ulong = ioctl_expr(2, 0xaa, 0x02, 16);

/// A view file, mapped for reading.
#[derive(Debug)]
pub struct ViewMapping {
    base: NonNull<u8>,
    pages: usize,
}

// SAFETY: an address and a length; what is reached through it is read word by word as atomics.
unsafe impl Send for ViewMapping {}
// SAFETY: as above.
unsafe impl Sync for ViewMapping {}

impl ViewMapping {
    /// Maps the first `pages` pages of a view file.
    ///
    /// # Errors
    /// The file is shorter, or the system refused.
    pub fn new(file: &File, pages: usize) -> Result<Self, SysError> {
        let length = file.metadata().map_err(|e| SysError::io("fstat", &e))?.len();
        let bytes = pages.checked_mul(PAGE).filter(|bytes| *bytes as u64 == length);
        let bytes = bytes.filter(|bytes| *bytes > 0);
        let bytes = bytes.ok_or(SysError::new("mmap", libc::EINVAL))?;
        // Private, since the kernel watches only what may be written: a mapping of a file that is
        // open for reading has to be of the kind whose stores stay at home. Loads are shared.
        let (fd, flags) = (file.as_raw_fd(), libc::MAP_PRIVATE);
        // SAFETY: without MAP_FIXED the kernel picks addresses that nothing else uses.
        let at = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, flags, fd, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(base) if at != libc::MAP_FAILED => Ok(Self { base, pages }),
            Some(_) | None => Err(SysError::io("mmap", &std::io::Error::last_os_error())),
        }
    }

    /// Where it is mapped: meaningful to who serves its faults.
    pub fn address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    /// Has the kernel report touches of pages that are not there.
    ///
    /// # Errors
    /// The system refused.
    pub fn report_to(&self, uffd: &Uffd) -> Result<(), SysError> {
        let mut words = [self.address(), (self.pages * PAGE) as u64, Uffd::MISSING, 0];
        // SAFETY: the argument has the size that is part of the request's number; the range is ours
        // and no reference points into it but atomics, which fault like any other load.
        let answer = unsafe { ioctl_with_mut_ref(&uffd.file, REGISTER, &mut words) };
        if answer < 0 {
            Err(SysError::io("UFFDIO_REGISTER", &std::io::Error::last_os_error()))
        } else {
            Ok(())
        }
    }

    /// Copies a page out through the mapping. Waits until the other side has served it.
    pub fn read(&self, page: usize, into: &mut Page) -> Option<()> {
        if page >= self.pages {
            return None;
        }
        let at = self.base.as_ptr().wrapping_add(page * PAGE).cast::<[AtomicU64; WORDS]>();
        // SAFETY: mapped readable while self lives, page-aligned, and only loaded, relaxed, one
        // word at a time, which the standard library allows on read-only memory.
        let words = unsafe { &*at };
        let (chunks, _) = into.bytes_mut().as_chunks_mut::<8>();
        for (word, chunk) in words.iter().zip(chunks) {
            *chunk = word.load(Ordering::Relaxed).to_le_bytes();
        }
        Some(())
    }

    /// One word of one page, for who looks again and again.
    pub fn word(&self, page: usize, word: usize) -> Option<u64> {
        if page >= self.pages || word >= WORDS {
            return None;
        }
        let at = self.base.as_ptr().wrapping_add(page * PAGE + word * 8).cast::<AtomicU64>();
        // SAFETY: as in `read`.
        Some(unsafe { &*at }.load(Ordering::Relaxed))
    }
}

impl Drop for ViewMapping {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and no borrow of it outlives a call.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.pages * PAGE) };
    }
}

/// A userfaultfd that another process made and handed over, for its mapping at `base`.
#[derive(Debug)]
pub(crate) struct ForeignUffd {
    file: File,
    base: u64,
    pages: u64,
}

impl ForeignUffd {
    /// Takes it, if it is one: every request to anything else would mean something else.
    ///
    /// # Errors
    /// `EINVAL` if it is no userfaultfd, or the range is none.
    pub(crate) fn adopt(file: File, base: u64, pages: usize) -> Result<Self, SysError> {
        let wrong = SysError::new("adopt a userfaultfd", libc::EINVAL);
        let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let name = name.map_err(|e| SysError::io("readlink", &e))?;
        let pages = pages as u64;
        let end = pages.checked_mul(PAGE as u64).and_then(|bytes| base.checked_add(bytes));
        let aligned = base.is_multiple_of(PAGE as u64);
        if name.as_os_str() != "anon_inode:[userfaultfd]" || end.is_none() || !aligned {
            return Err(wrong);
        }
        // SAFETY: takes integers; the descriptor is open. A reader that blocks could be held here
        // for ever by who made it.
        let answer = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        if answer < 0 { Err(wrong) } else { Ok(Self { file, base, pages }) }
    }

    /// The next page that somebody waits for; `None` if nobody does.
    ///
    /// # Errors
    /// The descriptor can't be read: its maker is gone.
    pub(crate) fn next(&self) -> Result<Option<u64>, SysError> {
        const PAGE_FAULT: u64 = 0x12;
        const FORK: u64 = 0x13;
        loop {
            let mut message = [0_u64; 4];
            match (&self.file).read(message.as_mut_bytes()) {
                Ok(32) if message[0] & 0xff == PAGE_FAULT => {
                    let page = message[2].checked_sub(self.base).map(|bytes| bytes / PAGE as u64);
                    if let Some(page) = page.filter(|page| *page < self.pages) {
                        return Ok(Some(page));
                    }
                }
                // Its maker had the kernel report forks: then each report made us a descriptor.
                Ok(32) if message[0] & 0xff == FORK => drop(reported(message[1])),
                Ok(0) => return Err(SysError::new("read(userfaultfd)", libc::EPIPE)),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(SysError::io("read(userfaultfd)", &e)),
            }
        }
    }

    /// Lets those go on who wait for a page.
    ///
    /// # Errors
    /// The system refused: their process is gone.
    pub(crate) fn wake(&self, page: u64) -> Result<(), SysError> {
        let start = self.base + page.min(self.pages) * PAGE as u64;
        let mut words = [start, PAGE as u64];
        // SAFETY: the argument has the size that is part of the request's number; the addresses are
        // the other process's, and waking reads none of its memory.
        let answer = unsafe { ioctl_with_mut_ref(&self.file, WAKE, &mut words) };
        if answer < 0 {
            Err(SysError::io("UFFDIO_WAKE", &std::io::Error::last_os_error()))
        } else {
            Ok(())
        }
    }
}

/// The descriptor that came with a report of a fork.
fn reported(word: u64) -> Option<OwnedFd> {
    let [a, b, c, d, ..] = word.to_le_bytes();
    let number = i32::from_le_bytes([a, b, c, d]);
    // SAFETY: the kernel made the descriptor for the reader of this report, which is us, and
    // nobody else has heard of it.
    (number > 2).then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

impl AsRawFd for ForeignUffd {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.file.as_raw_fd()
    }
}
