//! What can be asked of a userfaultfd, and the write tracker that snapshots stand on.
//!
//! A [`WriteTracker`] protects pages against the guest's stores and shows each of them to a
//! callback once, before its bytes change. It knows nothing of what the callback does with them.

use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use view_core::Gfn;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::poll::PollContext;
use zerocopy::IntoBytes;

use crate::memory::{GuestMemory, MemoryError};
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

/// Why pages can't be tracked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrackError {
    /// The kernel's answer.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The pages aren't the guest's.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Only user-mode touches would arrive: a guest's store would fail instead of waiting.
    #[error("userfaultfd serves this process only, not its guest")]
    UserModeOnly,
    /// The thread that serves stores has gone; the pages it left protected stay protected.
    #[error("the thread that serves the guest's stores has gone")]
    Gone,
}

/// What a tracked page is shown to. Called at most once a page; the guest's store waits for it.
pub type Visit = Box<dyn FnMut(Gfn) + Send>;

struct Visits {
    visit: Visit,
    seen: Vec<bool>,
    /// Every page below was seen.
    next: usize,
    left: usize,
}

struct Tracked {
    memory: Arc<GuestMemory>,
    uffd: Uffd,
    first: usize,
    pages: usize,
    visits: Mutex<Visits>,
    stop: EventFd,
}

/// Shows pages to a callback, each at most once and before the guest's next store to it.
///
/// Stores of the trusted process through [`GuestMemory`] are not seen: it knows what it stores.
/// A page that is switched while it is tracked is not protected any more.
pub struct WriteTracker {
    tracked: Arc<Tracked>,
    server: Option<JoinHandle<Result<(), SysError>>>,
}

impl fmt::Debug for WriteTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tracked { first, pages, .. } = *self.tracked;
        f.debug_struct("WriteTracker").field("first", &first).field("pages", &pages).finish()
    }
}

impl WriteTracker {
    /// Protects `pages` pages from `first` on. On return every store of the guest to one of them
    /// waits until `visit` was called for it. For a consistent snapshot, pause the guest first.
    ///
    /// # Errors
    /// See [`TrackError`]; no page is left protected.
    pub fn start(
        memory: &Arc<GuestMemory>,
        first: Gfn,
        pages: usize,
        visit: Visit,
    ) -> Result<Self, TrackError> {
        let first = memory.index_of(first, pages)?;
        let uffd = Uffd::open(Uffd::FEATURE_WP_SHMEM)?;
        if !uffd.serves_guests() {
            return Err(TrackError::UserModeOnly);
        }
        let stop = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        let stop = stop.map_err(|e| SysError::io("eventfd", &e))?;
        let visits = Mutex::new(Visits { visit, seen: vec![false; pages], next: 0, left: pages });
        let tracked = Tracked { memory: Arc::clone(memory), uffd, first, pages, visits, stop };
        let tracked = Arc::new(tracked);
        tracked.uffd.register(memory.window(), first, pages, Uffd::WRITE_PROTECT)?;
        // From here on, the drop of the descriptor takes every protection back.
        tracked.uffd.protect(memory.window(), first, pages)?;
        let served = Arc::clone(&tracked);
        let server = std::thread::Builder::new()
            .name("pageveil-writes".into())
            .spawn(move || served.serve())
            .map_err(|e| SysError::io("clone", &e))?;
        Ok(Self { tracked, server: Some(server) })
    }

    /// Visits up to `pages` pages that weren't visited yet, in order. Returns how many are left.
    ///
    /// # Errors
    /// A visited page could not be released; the guest's store to it waits.
    pub fn sweep(&self, pages: usize) -> Result<usize, TrackError> {
        self.alive()?;
        Ok(self.tracked.sweep(pages)?)
    }

    /// How many pages weren't visited yet.
    pub fn left(&self) -> usize {
        self.tracked.lock().left
    }

    /// Visits what is left, then lets the guest store freely.
    ///
    /// # Errors
    /// As [`WriteTracker::sweep`], or what the serving thread met.
    pub fn finish(mut self) -> Result<(), TrackError> {
        self.sweep(usize::MAX)?;
        self.shut_down()
    }

    fn alive(&self) -> Result<(), TrackError> {
        match &self.server {
            Some(server) if !server.is_finished() => Ok(()),
            Some(_) | None => Err(TrackError::Gone),
        }
    }

    fn shut_down(&mut self) -> Result<(), TrackError> {
        let Some(server) = self.server.take() else { return Ok(()) };
        self.tracked.stop.write(1).map_err(|e| SysError::io("write(eventfd)", &e))?;
        let served = server.join().map_err(|_| TrackError::Gone)?;
        let Tracked { memory, uffd, first, pages, .. } = &*self.tracked;
        uffd.unregister(memory.window(), *first, *pages)?;
        Ok(served?)
    }
}

impl Drop for WriteTracker {
    /// Gives up: pages that weren't visited are released unseen.
    fn drop(&mut self) {
        // Nothing to tell to: without the descriptor, which goes now, the kernel protects nothing.
        let _ = self.shut_down();
    }
}

impl Tracked {
    fn lock(&self) -> std::sync::MutexGuard<'_, Visits> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Visits a page if nobody did, then lets stores to it pass.
    fn release(&self, visits: &mut Visits, page: usize) -> Result<(), SysError> {
        let Visits { visit, seen, left, .. } = visits;
        if let Some(seen) = page.checked_sub(self.first).and_then(|at| seen.get_mut(at))
            && !*seen
        {
            *seen = true;
            *left -= 1;
            if let Some(gfn) = self.memory.gfn_of(page) {
                visit(gfn);
            }
        }
        match self.uffd.unprotect(self.memory.window(), page, 1) {
            // The page was switched since: nothing protects it any more.
            Err(SysError { errno: libc::ENOENT, .. }) => Ok(()),
            other => other,
        }
    }

    fn sweep(&self, pages: usize) -> Result<usize, SysError> {
        for _ in 0..pages.min(self.pages) {
            let mut visits = self.lock();
            let unseen = visits.seen.iter().skip(visits.next).position(|seen| !seen);
            let Some(ahead) = unseen else { break };
            visits.next += ahead + 1;
            let page = self.first + visits.next - 1;
            self.release(&mut visits, page)?;
        }
        Ok(self.lock().left)
    }

    fn serve(&self) -> Result<(), SysError> {
        const STORE: u32 = 0;
        const STOP: u32 = 1;
        let poll = PollContext::new().map_err(|e| SysError::new("epoll_create", e.errno()))?;
        let failed = |e: vmm_sys_util::errno::Error| SysError::new("epoll", e.errno());
        poll.add(&self.uffd, STORE).map_err(failed)?;
        poll.add(&self.stop, STOP).map_err(failed)?;
        loop {
            let events = poll.wait().map_err(failed)?;
            while let Some(touch) = self.uffd.next_touch(self.memory.window())? {
                self.release(&mut self.lock(), touch.page)?;
            }
            if events.iter_readable().any(|event| event.token() == STOP) {
                return Ok(());
            }
        }
    }
}
