//! What can be asked of a userfaultfd.

use std::io::Read;

use zerocopy::IntoBytes;

use crate::sys::{self, GuestWindow, SysError, Uffd};

/// A touch that waits: which page of the window, and how it was touched (`Uffd::FAULT_*` bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The page, counted from the window's start.
    pub page: usize,
    /// The kernel's bits.
    pub bits: u64,
}

impl Uffd {
    /// Watch for pages that aren't there.
    pub const MISSING: u64 = 1;
    /// Watch for stores to write-protected pages.
    pub const WRITE_PROTECT: u64 = 2;
    /// Watch for pages that are in the file but not in the mapping.
    pub const MINOR: u64 = 4;
    /// The touch was a store.
    pub const FAULT_WRITE: u64 = 1;
    /// The touch was a store to a write-protected page.
    pub const FAULT_WRITE_PROTECT: u64 = 2;
    /// The touch met a page that is in the file but not in the mapping.
    pub const FAULT_MINOR: u64 = 4;
    /// Feature: missing pages of memory files.
    pub const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
    /// Feature: [`Uffd::go_on`] for memory files.
    pub const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
    /// Feature: write protection of memory files.
    pub const FEATURE_WP_SHMEM: u64 = 1 << 12;

    /// Everything that the kernel can do here.
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// The descriptor itself, to hand to who serves it.
    pub const fn file(&self) -> &std::fs::File {
        &self.file
    }

    /// Whether touches by a guest arrive too. False: only those by this process's own code.
    pub const fn serves_guests(&self) -> bool {
        self.serves_guests
    }

    /// Watches pages for touches of the kinds in `modes`.
    ///
    /// # Errors
    /// The kernel refused, or there are no such pages.
    pub fn register(
        &self,
        window: &GuestWindow,
        first: usize,
        pages: usize,
        modes: u64,
    ) -> Result<(), SysError> {
        self.on_pages(&sys::REGISTER, window, (first, pages), modes)
    }

    /// Watches them no more; who waits goes on.
    ///
    /// # Errors
    /// The kernel refused, or there are no such pages.
    pub fn unregister(&self, w: &GuestWindow, first: usize, pages: usize) -> Result<(), SysError> {
        self.on_pages(&sys::UNREGISTER, w, (first, pages), 0)
    }

    /// Lets those go on who wait for these pages.
    ///
    /// # Errors
    /// The kernel refused, or there are no such pages.
    pub fn wake(&self, w: &GuestWindow, first: usize, pages: usize) -> Result<(), SysError> {
        self.on_pages(&sys::WAKE, w, (first, pages), 0)
    }

    /// Fills missing pages with zeroes.
    ///
    /// # Errors
    /// The kernel refused, or there are no such pages.
    pub fn zero(&self, w: &GuestWindow, first: usize, pages: usize) -> Result<(), SysError> {
        self.on_pages(&sys::ZEROPAGE, w, (first, pages), 0)
    }

    /// Maps pages that are in the file by now, and lets those go on who wait for them.
    ///
    /// # Errors
    /// The kernel refused, or there are no such pages.
    pub fn go_on(&self, w: &GuestWindow, first: usize, pages: usize) -> Result<(), SysError> {
        self.on_pages(&sys::CONTINUE, w, (first, pages), 0)
    }

    /// On return no store through the window to these pages succeeds before [`Uffd::unprotect`].
    ///
    /// # Errors
    /// The kernel refused, or there are no such pages.
    pub fn protect(&self, w: &GuestWindow, first: usize, pages: usize) -> Result<(), SysError> {
        self.on_pages(&sys::WRITEPROTECT, w, (first, pages), 1)
    }

    /// Lets stores pass again, those that wait included.
    ///
    /// # Errors
    /// The kernel refused, or there are no such pages.
    pub fn unprotect(&self, w: &GuestWindow, first: usize, pages: usize) -> Result<(), SysError> {
        self.on_pages(&sys::WRITEPROTECT, w, (first, pages), 0)
    }

    /// The next touch of the window that waits, if one does. Never blocks.
    ///
    /// # Errors
    /// The descriptor can't be read.
    pub fn next_touch(&self, window: &GuestWindow) -> Result<Option<Touch>, SysError> {
        const PAGE_FAULT: u64 = 0x12;
        loop {
            let mut message = [0_u64; 4];
            match (&self.file).read(message.as_mut_bytes()) {
                Ok(_) if message[0] & 0xff == PAGE_FAULT => {
                    if let Some(page) = window.page_at(message[2]) {
                        return Ok(Some(Touch { page, bits: message[1] }));
                    }
                }
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(SysError::io("read(userfaultfd)", &e)),
            }
        }
    }
}
