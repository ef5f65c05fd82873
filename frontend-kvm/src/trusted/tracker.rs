//! Write protection over the guest's whole window, laid while the guest runs.
//!
//! Protecting a gigabyte takes milliseconds, so it is not done while the guest stands still. First
//! the tracker *arms*: chunk by chunk, with the guest running; a store meanwhile frees its page and
//! puts it on a list. Then the guest is paused, the tracker *freezes*: only the pages of that list
//! are protected again. So the pause is as long as the guest's working set is large, not its memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use view_core::Gfn;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::poll::PollContext;

use super::guard::Witness;
use crate::SysError;
use crate::memory::GuestMemory;
use crate::sys::Uffd;

/// Pages protected by one call while the guest runs.
const CHUNK: usize = 4096;

enum Mode {
    /// Stores free their page; it is noted here.
    Arming(Vec<usize>),
    /// Stores wait until their page is secured.
    Frozen(Arc<dyn Witness>),
}

struct Tracked {
    memory: Arc<GuestMemory>,
    uffd: Arc<Uffd>,
    mode: Mutex<Mode>,
    stop: EventFd,
}

/// The guest's stores, under watch. Dropped, it lets them pass freely again.
pub(super) struct Tracker {
    tracked: Arc<Tracked>,
    server: Option<JoinHandle<Result<(), SysError>>>,
}

impl std::fmt::Debug for Tracker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tracker")
    }
}

impl Tracker {
    /// Protects every page while the guest runs.
    ///
    /// # Errors
    /// The system refused; nothing stays protected.
    pub(super) fn arm(memory: &Arc<GuestMemory>, uffd: &Arc<Uffd>) -> Result<Self, SysError> {
        let stop = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        let stop = stop.map_err(|e| SysError::io("eventfd", &e))?;
        let (memory, uffd) = (Arc::clone(memory), Arc::clone(uffd));
        let tracked = Tracked { memory, uffd, mode: Mutex::new(Mode::Arming(Vec::new())), stop };
        let tracked = Arc::new(tracked);
        let pages = tracked.memory.pages();
        tracked.uffd.register(tracked.memory.window(), 0, pages, Uffd::WRITE_PROTECT)?;
        let served = Arc::clone(&tracked);
        let server = std::thread::Builder::new()
            .name("pageveil-stores".into())
            .spawn(move || served.serve())
            .map_err(|e| SysError::io("clone", &e))?;
        // From here on, dropping it takes every protection back.
        let this = Self { tracked, server: Some(server) };
        for first in (0..pages).step_by(CHUNK) {
            this.protect(first, CHUNK.min(pages - first))?;
        }
        Ok(this)
    }

    /// Ends arming. The guest must be paused: what its memory holds now is what `witness` secures,
    /// page by page, before the guest's next store to it.
    ///
    /// # Errors
    /// The system refused; give up and drop the tracker.
    pub(super) fn freeze(&self, witness: Arc<dyn Witness>) -> Result<usize, SysError> {
        let mut mode = self.tracked.lock();
        let early = match std::mem::replace(&mut *mode, Mode::Frozen(witness)) {
            Mode::Arming(mut early) => {
                early.sort_unstable();
                early.dedup();
                early
            }
            Mode::Frozen(_) => Vec::new(),
        };
        for run in early.chunk_by(|a, b| a + 1 == *b) {
            if let Some(first) = run.first() {
                self.protect(*first, run.len())?;
            }
        }
        Ok(early.len())
    }

    /// Lets stores to these pages pass: they are secured.
    ///
    /// # Errors
    /// The system refused.
    pub(super) fn release(&self, first: usize, pages: usize) -> Result<(), SysError> {
        self.tracked.uffd.unprotect(self.tracked.memory.window(), first, pages)
    }

    fn protect(&self, first: usize, pages: usize) -> Result<(), SysError> {
        self.tracked.uffd.protect(self.tracked.memory.window(), first, pages)
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        let Tracked { memory, uffd, stop, .. } = &*self.tracked;
        // Unregistering frees every page and wakes whoever waits, so it comes first.
        let _ = uffd.unregister(memory.window(), 0, memory.pages());
        let _ = stop.write(1);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}

impl Tracked {
    fn lock(&self) -> std::sync::MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) -> Result<(), SysError> {
        const STORE: u32 = 0;
        const STOP: u32 = 1;
        let failed = |e: vmm_sys_util::errno::Error| SysError::new("epoll", e.errno());
        let poll = PollContext::new().map_err(failed)?;
        poll.add(&*self.uffd, STORE).map_err(failed)?;
        poll.add(&self.stop, STOP).map_err(failed)?;
        loop {
            let events = poll.wait().map_err(failed)?;
            while let Some(touch) = self.uffd.next_touch(self.memory.window())? {
                self.store(touch.page)?;
            }
            if events.iter_readable().any(|event| event.token() == STOP) {
                return Ok(());
            }
        }
    }

    /// The guest wants to store to a page.
    fn store(&self, page: usize) -> Result<(), SysError> {
        let mut mode = self.lock();
        let witness = match &mut *mode {
            Mode::Arming(early) => {
                early.push(page);
                // Under the lock: a freeze in between would miss the page.
                return self.uffd.unprotect(self.memory.window(), page, 1);
            }
            Mode::Frozen(witness) => Arc::clone(witness),
        };
        drop(mode);
        if let Some(gfn) = self.memory.gfn_of(page) {
            witness.secure(Gfn::clone(&gfn));
        }
        self.uffd.unprotect(self.memory.window(), page, 1)
    }
}
