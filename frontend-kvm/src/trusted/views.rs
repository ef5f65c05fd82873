//! Both views of a guest's memory as the host's kernel keeps them.
//!
//! The guest's own memory file never leaves this process. What the management side sees is a
//! second file of the same size, the *view file*: a page of it is a hole, a sealed replica, a
//! masked copy, or an open page, on which then the guest runs too. Punching the page out of the
//! view file takes it from every process that has it mapped, on every CPU, before the call
//! returns. Whoever kept the page otherwise keeps a page that nobody writes to any more.

use std::fs::{File, Permissions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use view_core::{Gfn, Page, Perm};

use crate::SysError;
use crate::memory::{GuestMemory, MemoryError};
use crate::sys::{Mapping, MemFd, PAGE};

/// What could not be done to a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewFault {
    /// The guest's memory could not be changed as asked.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The view file could not be changed as asked.
    #[error("the management side's view: {0}")]
    View(#[from] SysError),
    /// The management side handed over nothing for this page.
    #[error("page {0:#x}: nothing was handed over")]
    NothingHandedOver(u64),
    /// The management side was not granted stores to this page.
    #[error("page {0:#x} is not open for stores")]
    NotWritable(u64),
}

/// What a guest page is to the guest right now.
#[derive(Debug, Default)]
struct Showing {
    /// The guest runs on the view file's page.
    open: AtomicBool,
    /// The management side may have bytes stored into that page.
    writable: AtomicBool,
    /// The guest is shown nothing.
    closed: AtomicBool,
}

/// A guest's memory file and view file. A page is changed only by who holds its claim.
#[derive(Debug)]
pub struct Views {
    memory: Arc<GuestMemory>,
    view: MemFd,
    /// The view file again, to store into it.
    writer: File,
    /// The view file again, through which nobody can store.
    reader: File,
    alias: Mapping,
    showing: Vec<Showing>,
}

impl Views {
    /// A view file full of holes beside a guest's memory.
    ///
    /// # Errors
    /// The system has no memory or no descriptor left.
    pub fn new(memory: Arc<GuestMemory>) -> Result<Self, SysError> {
        let pages = memory.pages();
        let view = MemFd::create(c"pageveil-view", pages)?;
        let alias = Mapping::shared(&view)?;
        let writer = view.as_fd().try_clone_to_owned().map_err(|e| SysError::io("fcntl", &e))?;
        let writer = File::from(writer);
        // Who is handed the reader can open the file again, but only with the rights of its mode,
        // and only its owner can change that.
        let mode = Permissions::from_mode(0o400);
        writer.set_permissions(mode).map_err(|e| SysError::io("fchmod", &e))?;
        let reader = File::open(format!("/proc/self/fd/{}", writer.as_raw_fd()));
        let reader = reader.map_err(|e| SysError::io("open(/proc/self/fd)", &e))?;
        let showing = (0..pages).map(|_| Showing::default()).collect();
        Ok(Self { memory, view, writer, reader, alias, showing })
    }

    /// The guest's memory.
    pub const fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// The view file, open for reading only.
    pub const fn reader(&self) -> &File {
        &self.reader
    }

    /// Makes both files a user's, before this process becomes that user. Who is handed the reader
    /// and is not that user can't give itself the right to store.
    ///
    /// # Errors
    /// We may not give them away.
    pub fn give_to(&self, user: u32) -> Result<(), SysError> {
        let give = |file: &MemFd| std::os::unix::fs::fchown(file, Some(user), Some(user));
        [self.memory.file(), &self.view]
            .into_iter()
            .try_for_each(|file| give(file).map_err(|e| SysError::io("fchown", &e)))
    }

    /// Copies the guest's page as the guest sees it, once.
    ///
    /// # Errors
    /// No such page.
    pub fn read_guest(&self, gfn: Gfn, into: &mut Page) -> Result<(), ViewFault> {
        if self.showing(gfn)?.open.load(Ordering::Acquire) {
            self.read_view(gfn, into)
        } else {
            Ok(self.memory.read_page(gfn, into)?)
        }
    }

    /// Copies the page as the management side sees it: zeroes for a hole.
    ///
    /// # Errors
    /// No such page.
    pub fn read_view(&self, gfn: Gfn, into: &mut Page) -> Result<(), ViewFault> {
        let index = self.memory.index_of(gfn, 1)?;
        let words = self.alias.words(index).ok_or_else(|| no_such_page(gfn, &self.memory))?;
        let (chunks, _) = into.bytes_mut().as_chunks_mut::<8>();
        for (word, chunk) in words.iter().zip(chunks) {
            *chunk = word.load(Ordering::Relaxed).to_le_bytes();
        }
        Ok(())
    }

    /// Stores into an open page for the management side, within one page.
    ///
    /// # Errors
    /// No such page, or the page is not open for stores: nothing was stored.
    pub fn write_open(&self, gfn: Gfn, offset: usize, bytes: &[u8]) -> Result<(), ViewFault> {
        if !self.showing(gfn)?.writable.load(Ordering::Acquire) {
            return Err(ViewFault::NotWritable(gfn.number()));
        }
        self.store(gfn, offset, bytes)
    }

    /// Puts bytes at the page of the view file.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn show_copy(&self, gfn: Gfn, copy: &Page) -> Result<(), ViewFault> {
        self.store(gfn, 0, copy.bytes())
    }

    /// Makes the view file's page the guest's page too. The guest is kept out while the bytes
    /// move, so none of its stores is lost. From now on `perm` is what the management side may do.
    ///
    /// # Errors
    /// No such page, or the system refused: the guest may be closed out of the page.
    pub fn open_live(&self, gfn: Gfn, perm: Perm) -> Result<(), ViewFault> {
        let showing = self.showing(gfn)?;
        let writable = perm == Perm::ReadWrite;
        if showing.open.load(Ordering::Acquire) {
            showing.writable.store(writable, Ordering::Release);
            return Ok(());
        }
        self.memory.close(gfn)?;
        let mut page = Page::zeroed();
        self.memory.read_page(gfn, &mut page)?;
        self.show_copy(gfn, &page)?;
        self.memory.switch(gfn, &self.view, self.memory.index_of(gfn, 1)?)?;
        showing.open.store(true, Ordering::Release);
        showing.writable.store(writable, Ordering::Release);
        Ok(())
    }

    /// Copy, switch: the guest runs on its own page again. What the management side still has
    /// mapped is a page that nobody writes to; [`punch`](Self::punch) takes it away too.
    ///
    /// # Errors
    /// No such page, or the system refused: the guest may be closed out of the page.
    pub fn close_live(&self, gfn: Gfn) -> Result<(), ViewFault> {
        let showing = self.showing(gfn)?;
        showing.writable.store(false, Ordering::Release);
        if !showing.open.load(Ordering::Acquire) {
            return Ok(());
        }
        self.memory.close(gfn)?;
        let mut page = Page::zeroed();
        self.read_view(gfn, &mut page)?;
        self.memory.write_page(gfn, &page)?;
        // Unless the page was taken from the guest too.
        if !showing.closed.load(Ordering::Acquire) {
            self.memory.restore(gfn)?;
        }
        showing.open.store(false, Ordering::Release);
        Ok(())
    }

    /// Takes `pages` pages from `first` on from every process that maps the view file. On return
    /// none reaches them.
    ///
    /// # Errors
    /// No such pages, or the system refused.
    pub fn punch(&self, first: Gfn, pages: usize) -> Result<(), ViewFault> {
        let index = self.memory.index_of(first, pages)?;
        self.view.punch(index, pages).map_err(ViewFault::View)
    }

    /// Shows the guest nothing at this page. On return no vCPU reaches it.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn close_guest(&self, gfn: Gfn) -> Result<(), ViewFault> {
        self.memory.close(gfn)?;
        self.showing(gfn)?.closed.store(true, Ordering::Release);
        Ok(())
    }

    /// Shows the guest its own page, if it was shown nothing.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn reopen_guest(&self, gfn: Gfn) -> Result<(), ViewFault> {
        let showing = self.showing(gfn)?;
        if showing.closed.load(Ordering::Acquire) {
            self.memory.restore(gfn)?;
            showing.closed.store(false, Ordering::Release);
        }
        Ok(())
    }

    /// The pages at which the guest is shown nothing.
    pub fn closed(&self) -> impl Iterator<Item = Gfn> {
        let closed = self.showing.iter().enumerate();
        closed
            .filter(|(_, showing)| showing.closed.load(Ordering::Acquire))
            .filter_map(|(index, _)| self.memory.gfn_of(index))
    }

    /// Stores into the view file, within one page.
    fn store(&self, gfn: Gfn, offset: usize, bytes: &[u8]) -> Result<(), ViewFault> {
        let index = self.memory.index_of(gfn, 1)?;
        if offset.checked_add(bytes.len()).is_none_or(|end| end > PAGE) {
            return Err(ViewFault::View(SysError::new("pwrite", libc::ERANGE)));
        }
        let at = (index * PAGE + offset) as u64;
        self.writer.write_all_at(bytes, at).map_err(|e| SysError::io("pwrite", &e).into())
    }

    fn showing(&self, gfn: Gfn) -> Result<&Showing, ViewFault> {
        let index = self.memory.index_of(gfn, 1)?;
        self.showing.get(index).ok_or_else(|| no_such_page(gfn, &self.memory))
    }
}

fn no_such_page(gfn: Gfn, memory: &GuestMemory) -> ViewFault {
    let pages = memory.pages() as u64;
    ViewFault::Memory(MemoryError::NoSuchPage { page: gfn.number(), pages })
}
