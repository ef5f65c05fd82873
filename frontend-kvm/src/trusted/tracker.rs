//! Write protection over the guest's whole window, laid while the guest runs.
//!
//! Protecting a gigabyte takes milliseconds, so it is not done while the guest stands still. First
//! the tracker *arms*: chunk by chunk, with the guest running; a store meanwhile frees its page,
//! and sharing a page or taking it back maps it anew. Both are noted. Then the guest is paused and
//! the tracker *freezes*: only what was noted is protected again. So the pause is as long as the
//! guest's working set is large, not its memory.

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

/// Pages that have to be protected again at the moment, because meanwhile...
#[derive(Default)]
struct Early {
    /// ... the guest stored to them, which freed them.
    stored: Vec<usize>,
    /// ... they were shared or taken back, and so mapped anew. Nobody watches the new mapping yet.
    mapped: Vec<usize>,
}

enum Mode {
    /// Stores free their page; it is noted here.
    Arming(Early),
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
    /// Ready to watch; it watches nothing yet.
    ///
    /// # Errors
    /// The system refused.
    pub(super) fn new(memory: &Arc<GuestMemory>, uffd: &Arc<Uffd>) -> Result<Self, SysError> {
        let stop = EventFd::new(libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
        let stop = stop.map_err(|e| SysError::io("eventfd", &e))?;
        let (memory, uffd) = (Arc::clone(memory), Arc::clone(uffd));
        let mode = Mutex::new(Mode::Arming(Early::default()));
        let tracked = Arc::new(Tracked { memory, uffd, mode, stop });
        let served = Arc::clone(&tracked);
        let server = std::thread::Builder::new()
            .name("pageveil-stores".into())
            .spawn(move || served.serve())
            .map_err(|e| SysError::io("clone", &e))?;
        Ok(Self { tracked, server: Some(server) })
    }

    /// Who has to be told about every change of a page from before [`Tracker::arm`] on: a page
    /// that is mapped anew is not protected any more.
    pub(super) fn changes(&self) -> Arc<dyn Witness> {
        Arc::clone(&self.tracked) as Arc<dyn Witness>
    }

    /// Protects every page while the guest runs.
    ///
    /// # Errors
    /// The system refused; drop the tracker, and nothing stays protected.
    pub(super) fn arm(&self) -> Result<(), SysError> {
        let (window, pages) = (self.tracked.memory.window(), self.tracked.memory.pages());
        self.tracked.uffd.register(window, 0, pages, Uffd::WRITE_PROTECT)?;
        (0..pages).step_by(CHUNK).try_for_each(|first| {
            let some = CHUNK.min(pages - first);
            each_that_is_watched(first, some, &|first, pages| self.protect(first, pages))
        })
    }

    /// Ends arming. The guest must be paused and no change under way: what its memory holds now is
    /// what `witness` secures, page by page, before the guest's next store to it.
    ///
    /// # Errors
    /// The system refused; give up and drop the tracker.
    pub(super) fn freeze(&self, witness: Arc<dyn Witness>) -> Result<usize, SysError> {
        let mut mode = self.tracked.lock();
        let Early { mut stored, mapped } =
            match std::mem::replace(&mut *mode, Mode::Frozen(witness)) {
                Mode::Arming(early) => early,
                Mode::Frozen(_) => Early::default(),
            };
        for page in &mapped {
            let window = self.tracked.memory.window();
            self.tracked.uffd.register(window, *page, 1, Uffd::WRITE_PROTECT)?;
        }
        stored.extend(mapped);
        stored.sort_unstable();
        stored.dedup();
        for run in stored.chunk_by(|a, b| a + 1 == *b) {
            if let Some(first) = run.first() {
                each_that_is_watched(*first, run.len(), &|first, pages| {
                    self.protect(first, pages)
                })?;
            }
        }
        Ok(stored.len())
    }

    /// Lets stores to these pages pass: they are secured.
    ///
    /// # Errors
    /// The system refused.
    pub(super) fn release(&self, first: usize, pages: usize) -> Result<(), SysError> {
        each_that_is_watched(first, pages, &|first, pages| self.tracked.free(first, pages))
    }

    fn protect(&self, first: usize, pages: usize) -> Result<(), SysError> {
        self.tracked.uffd.protect(self.tracked.memory.window(), first, pages)
    }
}

/// Asks for something for pages of which some may have been mapped anew since they were watched:
/// for those there is nothing to do, and the kernel says so by `ENOENT` for all of them.
fn each_that_is_watched(
    first: usize,
    pages: usize,
    ask: &impl Fn(usize, usize) -> Result<(), SysError>,
) -> Result<(), SysError> {
    match ask(first, pages) {
        Err(SysError { errno: libc::ENOENT, .. }) if pages == 1 => Ok(()),
        Err(SysError { errno: libc::ENOENT, .. }) => {
            let half = pages / 2;
            each_that_is_watched(first, half, ask)?;
            each_that_is_watched(first + half, pages - half, ask)
        }
        other => other,
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
                early.stored.push(page);
                // Under the lock: a freeze in between would miss the page.
                return self.let_pass(page);
            }
            Mode::Frozen(witness) => Arc::clone(witness),
        };
        drop(mode);
        if let Some(gfn) = self.memory.gfn_of(page) {
            witness.secure(gfn);
        }
        self.let_pass(page)
    }

    /// Frees a page and whoever waits for it, even if it was mapped anew meanwhile.
    fn let_pass(&self, page: usize) -> Result<(), SysError> {
        match self.free(page, 1) {
            Err(SysError { errno: libc::ENOENT, .. }) => {
                self.uffd.wake(self.memory.window(), page, 1)
            }
            other => other,
        }
    }

    fn free(&self, first: usize, pages: usize) -> Result<(), SysError> {
        self.uffd.unprotect(self.memory.window(), first, pages)
    }
}

/// While arming: notes which pages are mapped anew.
impl Witness for Tracked {
    fn secure(&self, gfn: Gfn) {
        if let (Mode::Arming(early), Ok(page)) = (&mut *self.lock(), self.memory.index_of(gfn, 1)) {
            early.mapped.push(page);
        }
    }
}
