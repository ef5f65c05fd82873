//! A sealed image of a running guest, as it was at one moment.
//!
//! The guest stands still only while its vCPU is saved, its open pages are sealed, and the pages
//! that it stored to during arming are protected again. Then it runs on, and a store to a page that
//! was not sealed yet has it sealed first.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use view_core::image::{Header, ImageRoot};
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::suite::{PageCipher, Stream};
use view_core::{Act, Gfn, Page, PageState, Receipt};
use zeroize::Zeroizing;

use super::TrustedVm;
use super::guard::{Denied, Done, Guard, Witness};
use super::platform::KvmPlatform;
use super::tracker::Tracker;
use crate::SysError;
use crate::image_file::{self, ImageFileError, SealedPages};
use crate::machine::MachineError;

/// Pages that are sealed together, by one thread. A store to one of them waits for all of them, and
/// longer runs gain little. A second thread waits for a CPU that the guest is on: with one, a
/// snapshot took twice as long on two CPUs.
const RUN: usize = 64;

/// Why there is no image. The guest runs on, unless a page was poisoned.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another one is being taken.
    #[error("another snapshot is being taken; try again when it is done")]
    Busy,
    /// The image can't be written; what was written is no image.
    #[error("no image: {0}")]
    File(#[from] ImageFileError),
    /// The kernel lets only this process's own stores be watched, not its guest's.
    #[error(
        "no image: userfaultfd serves no guests here; see /proc/sys/vm/unprivileged_userfaultfd"
    )]
    NotServed,
    /// A page could not be sealed.
    #[error("no image: {0}")]
    Denied(#[from] Denied),
    /// Stores could not be watched.
    #[error("no image: {0}")]
    Sys(#[from] SysError),
    /// The vCPU could not be saved.
    #[error("no image: {0}")]
    Machine(#[from] MachineError),
}

/// What is told of a snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// How long the guest stood still.
    pub stall: Duration,
    /// How many pages the image has.
    pub pages: u64,
    /// The image's name: pin it, and no other image passes.
    pub root: ImageRoot,
}

impl TrustedVm {
    /// Writes a sealed image of this moment while the guest runs.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn snapshot(&self, sink: &mut impl Write) -> Result<Told, SnapshotError> {
        let Ok(_one) = self.snapshots.try_lock() else { return Err(SnapshotError::Busy) };
        if !self.uffd.serves_guests() {
            return Err(SnapshotError::NotServed);
        }
        self.bring_back_sealed()?;
        let job = Arc::new(Job::new(Arc::clone(&self.guard)));
        let tracker = Tracker::new(self.machine.memory(), &self.uffd)?;
        self.guard.watch(Some(tracker.changes()), || ());
        let watching = Watching(&self.guard);
        tracker.arm()?;
        let (stall, state) = self.freeze(&job, &tracker)?;
        let told = self.stream(&job, &tracker, &state, sink)?;
        drop(watching);
        Ok(Told { stall, ..told })
    }

    /// Pages that are sealed in place are opened, so that all are sealed for the image alike.
    fn bring_back_sealed(&self) -> Result<(), SnapshotError> {
        let sealed: Vec<Gfn> = self.guard.shared().views.closed().collect();
        for gfn in sealed {
            if self.guard.vm().state(gfn) == Some(PageState::Sealed) {
                self.guard.act(gfn, Act::Touch)?;
            }
        }
        Ok(())
    }

    /// The moment: everything between pause and resume. Its length is what the guest notices.
    fn freeze(
        &self,
        job: &Arc<Job>,
        tracker: &Tracker,
    ) -> Result<(Duration, Zeroizing<Vec<u8>>), SnapshotError> {
        self.machine.pause();
        let still = Instant::now();
        let frozen = self.guard.watch(Some(Arc::clone(job) as Arc<dyn Witness>), || {
            tracker.freeze(Arc::clone(job) as Arc<dyn Witness>)?;
            for gfn in self.guard.open_pages() {
                job.secure(gfn);
            }
            Ok::<_, SnapshotError>(self.machine.save(0)?.to_bytes())
        });
        // A guest that ended stays what it is; its memory is still an image. One that was stopped
        // is not entered again: that is asked before every entry.
        let _ = self.machine.resume();
        Ok((still.elapsed(), frozen?))
    }

    fn stream(
        &self,
        job: &Job,
        tracker: &Tracker,
        state: &[u8],
        sink: &mut impl Write,
    ) -> Result<Told, SnapshotError> {
        let pages = self.guard.vm().pages();
        let header = self.header(pages, state.len() as u64);
        let key = &self.guard.shared().ciphers.epoch;
        let mut platform = KvmPlatform::new(Arc::clone(self.guard.shared()));
        let next = |first| job.next::<SnapshotError>(first, tracker, &mut platform);
        let root = image_file::write(sink, key, &header, state, next)?;
        Ok(Told { stall: Duration::ZERO, pages, root })
    }

    fn header(&self, pages: u64, state_len: u64) -> Header {
        Header {
            vm: self.incarnation.vm,
            epoch: self.incarnation.epoch,
            salt: self.incarnation.salt,
            suite: SivCmac512::SUITE,
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed),
            pages,
            state_len,
        }
    }
}

/// Stops telling a job about changes, however the snapshot ends.
struct Watching<'g>(&'g Guard);

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.0.watch(None, || ());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    BeingSealed,
    Sealed,
}

struct Pages {
    stages: Vec<Stage>,
    /// Sealed before their turn.
    early: BTreeMap<usize, (Receipt, Option<Box<Page>>)>,
    failed: Option<Denied>,
}

/// Which pages are sealed, and those that were sealed before their turn.
struct Job {
    guard: Arc<Guard>,
    pages: Mutex<Pages>,
    changed: Condvar,
}

impl Job {
    fn new(guard: Arc<Guard>) -> Self {
        let count = usize::try_from(guard.vm().pages()).unwrap_or_default();
        let stages = vec![Stage::Waiting; count];
        let pages = Pages { stages, early: BTreeMap::new(), failed: None };
        Self { guard, pages: Mutex::new(pages), changed: Condvar::new() }
    }

    /// The page at `first`, or as many as can be sealed together from there on.
    fn next<E: From<Denied> + From<SysError>>(
        &self,
        first: usize,
        tracker: &Tracker,
        platform: &mut KvmPlatform,
    ) -> Result<SealedPages, E> {
        let mut pages = self.settled(first);
        if let Some(denied) = pages.failed {
            return Err(denied.into());
        }
        if let Some(early) = pages.early.remove(&first) {
            return Ok(vec![early]);
        }
        let rest = pages.stages.iter_mut().skip(first).take(RUN);
        let run = rest.take_while(|stage| **stage == Stage::Waiting);
        let count = run.map(|stage| *stage = Stage::BeingSealed).count();
        drop(pages);
        let gfns: Vec<Gfn> = (first..first + count).filter_map(gfn_at).collect();
        let mut done = Vec::with_capacity(count);
        let each = |Done { receipt, wire }| done.push((receipt, wire));
        let sealed = self.guard.export(platform, &gfns, Stream::Image, each);
        let mut pages = self.lock();
        for stage in pages.stages.iter_mut().skip(first).take(count) {
            *stage = Stage::Sealed;
        }
        pages.failed = pages.failed.or(sealed.err());
        self.changed.notify_all();
        drop(pages);
        sealed?;
        tracker.release(first, count)?;
        Ok(done)
    }

    /// The pages, once nobody is sealing this one.
    fn settled(&self, page: usize) -> MutexGuard<'_, Pages> {
        let mut pages = self.lock();
        while pages.failed.is_none() && pages.stages.get(page) == Some(&Stage::BeingSealed) {
            pages = self.changed.wait(pages).unwrap_or_else(PoisonError::into_inner);
        }
        pages
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Job {
    fn secure(&self, gfn: Gfn) {
        let Ok(page) = usize::try_from(gfn.number()) else { return };
        let mut pages = self.settled(page);
        match pages.stages.get_mut(page) {
            Some(stage) if *stage == Stage::Waiting => *stage = Stage::BeingSealed,
            Some(_) | None => return,
        }
        if pages.failed.is_some() {
            return;
        }
        drop(pages);
        let mut done = None;
        let mut platform = KvmPlatform::new(Arc::clone(self.guard.shared()));
        let each = |Done { receipt, wire }| done = Some((receipt, wire));
        let sealed = self.guard.export(&mut platform, &[gfn], Stream::Image, each);
        let mut pages = self.lock();
        if let Some(stage) = pages.stages.get_mut(page) {
            *stage = Stage::Sealed;
        }
        if let Some(done) = done {
            pages.early.insert(page, done);
        }
        pages.failed = pages.failed.or(sealed.err());
        self.changed.notify_all();
    }
}

fn gfn_at(page: usize) -> Option<Gfn> {
    Gfn::new(page as u64).ok()
}
