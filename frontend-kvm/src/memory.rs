//! The guest's memory: one memory file, seen twice.
//!
//! The guest runs on the *window*, whose single pages can be switched to another file's page,
//! closed and restored while it runs. The trusted process reads and writes through the *alias*,
//! which always shows the guest's own pages. Neither ever becomes a Rust reference to bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use view_core::{Gfn, Page};

use crate::sys::{GuestWindow, Mapping, MemFd, PAGE, SysError, WORDS};

/// Why the guest's memory can't be used as asked. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The guest has no such page.
    #[error("page {page:#x} is behind the end of the guest's {pages} pages")]
    NoSuchPage {
        /// The first page that isn't there.
        page: u64,
        /// How many there are.
        pages: u64,
    },
    /// The system refused.
    #[error("page {page:#x}: {error}")]
    Sys {
        /// The page.
        page: u64,
        /// The system's answer.
        error: SysError,
    },
}

/// A guest's memory, from guest frame 0 on.
#[derive(Debug)]
pub struct GuestMemory {
    file: MemFd,
    alias: Mapping,
    window: Arc<GuestWindow>,
}

impl GuestMemory {
    /// `pages` pages of zeroes.
    ///
    /// # Errors
    /// The system has no memory or no descriptor left.
    pub fn new(pages: usize) -> Result<Self, SysError> {
        let file = MemFd::create(c"pageveil-guest", pages)?;
        // Nobody opens it a second time, should the descriptor ever be within reach.
        file.close_to_others()?;
        let alias = Mapping::shared(&file)?;
        let window = Arc::new(GuestWindow::new(file.try_clone()?)?);
        Ok(Self { file, alias, window })
    }

    /// How many pages there are.
    pub const fn pages(&self) -> usize {
        self.alias.pages()
    }

    /// Where the guest runs, for a userfaultfd.
    pub fn window(&self) -> &GuestWindow {
        &self.window
    }

    /// The memory file itself, for who decides whose it is.
    pub(crate) const fn file(&self) -> &MemFd {
        &self.file
    }

    pub(crate) fn share_window(&self) -> Arc<GuestWindow> {
        Arc::clone(&self.window)
    }

    /// Which page of the window is `gfn`, if `pages` pages from there on are the guest's.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPage`].
    pub fn index_of(&self, gfn: Gfn, pages: usize) -> Result<usize, MemoryError> {
        let limit = self.pages() as u64;
        let end = gfn.number().saturating_add(pages as u64);
        match usize::try_from(gfn.number()) {
            Ok(index) if end <= limit => Ok(index),
            Ok(_) | Err(_) => {
                Err(MemoryError::NoSuchPage { page: gfn.number().max(limit), pages: limit })
            }
        }
    }

    /// Which guest frame is at page `index` of the window.
    pub fn gfn_of(&self, index: usize) -> Option<Gfn> {
        if index < self.pages() { Gfn::new(index as u64).ok() } else { None }
    }

    /// Copies a page out, once. A guest that runs may be storing: then words are old or new.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPage`].
    pub fn read_page(&self, gfn: Gfn, into: &mut Page) -> Result<(), MemoryError> {
        copy_out(self.words(gfn)?, into);
        Ok(())
    }

    /// Copies a page in.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPage`].
    pub fn write_page(&self, gfn: Gfn, from: &Page) -> Result<(), MemoryError> {
        copy_in(self.words(gfn)?, from);
        Ok(())
    }

    /// One word of a page.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPage`].
    pub fn read_word(&self, gfn: Gfn, word: u64) -> Result<u64, MemoryError> {
        let words = self.words(gfn)?;
        Ok(words[word as usize % words.len()].load(Ordering::Acquire))
    }

    /// Stores one word of a page.
    ///
    /// # Errors
    /// [`MemoryError::NoSuchPage`].
    pub fn write_word(&self, gfn: Gfn, word: u64, value: u64) -> Result<(), MemoryError> {
        let words = self.words(gfn)?;
        words[word as usize % words.len()].store(value, Ordering::Release);
        Ok(())
    }

    /// Gives a page back to the host. The guest and the alias read zeroes from now on.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn punch(&self, gfn: Gfn) -> Result<(), MemoryError> {
        let index = self.index_of(gfn, 1)?;
        self.file.punch(index, 1).map_err(at(gfn))
    }

    /// Shows the guest page `from` of `other` in place of its own page, which only the alias
    /// reaches from now on. On return no vCPU reaches the page that was there.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn switch(&self, gfn: Gfn, other: &MemFd, from: usize) -> Result<(), MemoryError> {
        let index = self.index_of(gfn, 1)?;
        self.window.switch(index, other, from).map_err(at(gfn))
    }

    /// Shows the guest page `from` of another guest's memory, or of its own, in place of its page.
    /// On return no vCPU of this guest reaches the page that was there.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn show(&self, gfn: Gfn, other: &Self, from: Gfn) -> Result<(), MemoryError> {
        self.switch(gfn, &other.file, other.index_of(from, 1)?)
    }

    /// Shows the guest its own page again. On return no vCPU reaches the page that was there.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn restore(&self, gfn: Gfn) -> Result<(), MemoryError> {
        let index = self.index_of(gfn, 1)?;
        self.window.restore(index).map_err(at(gfn))
    }

    /// Takes a page from the guest. A vCPU that touches it comes to `Handler::fault`.
    ///
    /// # Errors
    /// No such page, or the system refused.
    pub fn close(&self, gfn: Gfn) -> Result<(), MemoryError> {
        let index = self.index_of(gfn, 1)?;
        self.window.close(index).map_err(at(gfn))
    }

    /// Copies bytes in from the start of page `first` on; the rest of the last page stays.
    pub(crate) fn write_bytes(&self, first: Gfn, bytes: &[u8]) -> Result<(), MemoryError> {
        let start = self.index_of(first, bytes.len().div_ceil(PAGE))?;
        for (chunk, index) in bytes.chunks(PAGE).zip(start..) {
            let Some(gfn) = self.gfn_of(index) else { break };
            let mut page = Page::zeroed();
            self.read_page(gfn, &mut page)?;
            page.bytes_mut()[..chunk.len()].copy_from_slice(chunk);
            self.write_page(gfn, &page)?;
        }
        Ok(())
    }

    fn words(&self, gfn: Gfn) -> Result<&[AtomicU64; WORDS], MemoryError> {
        let index = self.index_of(gfn, 1)?;
        let pages = self.pages() as u64;
        self.alias.words(index).ok_or(MemoryError::NoSuchPage { page: gfn.number(), pages })
    }
}

impl Mapping {
    /// Copies page `index` out, once. False: there is no such page.
    #[must_use]
    pub fn read_page(&self, index: usize, into: &mut Page) -> bool {
        self.words(index).map(|words| copy_out(words, into)).is_some()
    }

    /// Copies page `index` in. False: there is no such page.
    #[must_use]
    pub fn write_page(&self, index: usize, from: &Page) -> bool {
        self.words(index).map(|words| copy_in(words, from)).is_some()
    }
}

fn copy_out(words: &[AtomicU64; WORDS], into: &mut Page) {
    let (chunks, _) = into.bytes_mut().as_chunks_mut::<8>();
    for (word, chunk) in words.iter().zip(chunks) {
        *chunk = word.load(Ordering::Relaxed).to_le_bytes();
    }
}

fn copy_in(words: &[AtomicU64; WORDS], from: &Page) {
    let (chunks, _) = from.bytes().as_chunks::<8>();
    for (word, chunk) in words.iter().zip(chunks) {
        word.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
}

fn at(gfn: Gfn) -> impl Fn(SysError) -> MemoryError {
    move |error| MemoryError::Sys { page: gfn.number(), error }
}
