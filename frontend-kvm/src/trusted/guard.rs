//! The one gate to a guest's pages: every wish of the management side and every act of the guest
//! is decided by the core here, and carried out by the platform.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use view_core::key::Spent;
use view_core::suite::Stream;
use view_core::{
    Act, Batch, Claim, Gfn, Page, PageState, Perm, Plan, Receipt, Refused, Request, Unclaimed, Vm,
};

use super::ears::Heard;
use super::ledger::Ledger;
use super::platform::{KvmPlatform, Shared};
use super::views::ViewFault;

/// How long a page that somebody else holds is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pages that go through their phases together.
const BATCH: usize = 64;

/// Why something was not done to a page. The page is as it was, except after a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The guest has no such page.
    #[error("the guest has no page {0:#x}")]
    NoSuchPage(u64),
    /// Somebody else holds the page for too long.
    #[error("page {0:#x} is busy; try again")]
    Busy(u64),
    /// The core refused.
    #[error("page {0:#x}: {1}")]
    Refused(u64, Refused),
    /// The stream's key may not seal any more.
    #[error("the key of this epoch is spent; restore a snapshot, which begins a new one")]
    KeySpent,
    /// The system failed half way: the page is poisoned and the guest stopped.
    #[error("{0}; the page is closed for good and the guest stopped")]
    Fault(ViewFault),
    /// What came back is not what went out: the page is poisoned and the guest stopped.
    #[error("page {0:#x} came back changed; it is closed for good and the guest stopped")]
    Forged(u64),
}

/// What was done to a page.
#[derive(Debug)]
pub struct Done {
    /// What became of it.
    pub receipt: Receipt,
    /// The sealed bytes, if they were asked for.
    pub wire: Option<Box<Page>>,
}

/// What the management side gets to see of a page.
#[derive(Debug)]
pub struct Look {
    /// What the page is.
    pub state: PageState,
    /// The identity and tag of the seal, if the bytes are sealed.
    pub sealed: Option<(view_core::suite::PageId, view_core::suite::Tag)>,
    /// The bytes: sealed, open, masked, or zeroes for a page that nothing backs.
    pub bytes: Box<Page>,
}

/// Told about a page before anything about it changes. A snapshot in progress is one.
pub trait Witness: Send + Sync {
    /// On return the page may change.
    fn secure(&self, gfn: Gfn);
}

/// A VM's table, its views, and who must be told before a page changes.
pub struct Guard {
    vm: Vm<'static>,
    shared: Arc<Shared>,
    witness: RwLock<Option<Arc<dyn Witness>>>,
    ledger: Mutex<Ledger>,
    /// Pages shared since a witness was there: each may cost the kernel a mapping of its own.
    shares_watched: AtomicU64,
    heard: Mutex<Heard>,
    started: Instant,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guard").field("vm", &self.vm.number()).finish_non_exhaustive()
    }
}

impl Guard {
    /// A gate to a VM whose pages are all free.
    pub fn new(vm: Vm<'static>, shared: Arc<Shared>) -> Self {
        Self {
            vm,
            shared,
            witness: RwLock::new(None),
            ledger: Mutex::new(Ledger::default()),
            shares_watched: AtomicU64::new(0),
            heard: Mutex::new(Heard::default()),
            started: Instant::now(),
        }
    }

    /// The table.
    pub const fn vm(&self) -> &Vm<'static> {
        &self.vm
    }

    /// What threads share.
    pub const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What the guest said and did so far.
    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        lock(&self.heard)
    }

    /// The pages that are open right now.
    pub fn open_pages(&self) -> Vec<Gfn> {
        lock(&self.ledger).open().collect()
    }

    /// Milliseconds since the gate was made: the ticks of expiries.
    pub fn ticks(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Carries out a wish of the management side.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn request(&self, gfn: Gfn, request: Request) -> Result<Done, Denied> {
        let decide = || self.decide(gfn, |claim| claim.request(request));
        match request {
            Request::Map(_) | Request::Export(_) => self.carry_out(decide()?),
            Request::Unmap
            | Request::Seal
            | Request::PageOut
            | Request::PageIn(_)
            | Request::Destroy => self.witnessed(gfn, || self.carry_out(decide()?)),
        }
    }

    /// Carries out an act of the guest, or of this process for it.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn act(&self, gfn: Gfn, act: Act) -> Result<Done, Denied> {
        self.witnessed(gfn, || {
            let plan = self.decide(gfn, |claim| claim.act(act))?;
            if matches!(act, Act::Share(..)) {
                self.shares_watched.fetch_add(1, Ordering::Relaxed);
            }
            self.carry_out(plan)
        })
    }

    /// Carries out the same act for every page of the guest, batch by batch.
    ///
    /// # Errors
    /// The first denial; what came before it is done.
    pub fn act_on_all(&self, act: impl Fn(Gfn) -> Act) -> Result<(), Denied> {
        let mut gfns = self.vm.gfns().peekable();
        let mut platform = KvmPlatform::new(Arc::clone(&self.shared));
        while gfns.peek().is_some() {
            let mut batch = Batch::<BATCH>::new();
            for gfn in gfns.by_ref().take(BATCH) {
                let _ = batch.push(self.decide(gfn, |claim| claim.act(act(gfn)))?);
            }
            batch.run(&mut platform).map_err(Denied::Fault)?.commit();
        }
        Ok(())
    }

    /// Seals many pages for a stream, batch by batch, on the caller's handle, whose staging is kept
    /// from call to call: `each` sees what was done to each.
    ///
    /// # Errors
    /// The first denial; what came before it is done.
    pub fn export(
        &self,
        platform: &mut KvmPlatform,
        gfns: &[Gfn],
        stream: Stream,
        mut each: impl FnMut(Done),
    ) -> Result<(), Denied> {
        for some in gfns.chunks(BATCH) {
            let mut batch = Batch::<BATCH>::new();
            for gfn in some {
                let plan = self.decide(*gfn, |claim| claim.request(Request::Export(stream)))?;
                // A batch takes as many plans as a chunk has pages.
                let _ = batch.push(plan);
            }
            let receipts = batch.run(platform).map_err(Denied::Fault)?;
            for receipt in receipts.iter() {
                let wire = platform.take_wire(receipt.gfn);
                each(Done { receipt, wire });
            }
            receipts.commit();
        }
        Ok(())
    }

    /// What the management side sees of a page, without a mapping.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn look(&self, gfn: Gfn) -> Result<Look, Denied> {
        let state = Cell::new(PageState::Free);
        let plan = self.decide(gfn, |claim| {
            state.set(claim.entry().state);
            // What is open or sealed already is shown as it is, the rest as a sealed copy.
            let as_is = matches!(state.get(), PageState::Open { .. } | PageState::Sealed);
            let map = Request::Map(Perm::Read);
            claim.request(if as_is { map } else { Request::Export(Stream::View) })
        });
        let (state, mut bytes) = (state.get(), Box::new(Page::zeroed()));
        let plan = match plan {
            Ok(plan) => plan,
            // Nothing backs it, or nobody sees it any more: zeroes.
            Err(Denied::Refused(..)) => return Ok(Look { state, sealed: None, bytes }),
            Err(denied) => return Err(denied),
        };
        // While the page is held, so that what is read is what the state says. A hole in the view
        // file is not read: that would fill it, and who maps it would find zeroes.
        let as_is = matches!(state, PageState::Open { .. } | PageState::Sealed);
        let read = || match as_is {
            true => self.shared.views.read_view(gfn, &mut bytes).map_err(Denied::Fault),
            false => Ok(()),
        };
        let done = self.carry_out_and(plan, read)?;
        Ok(match done.wire {
            Some(wire) => Look { state, sealed: done.receipt.sealed, bytes: wire },
            None => Look { state, sealed: None, bytes },
        })
    }

    /// Stores bytes into an open page, as far as its permissions allow.
    ///
    /// # Errors
    /// [`Denied`]; nothing was stored.
    pub fn write(&self, gfn: Gfn, offset: usize, bytes: &[u8]) -> Result<(), Denied> {
        self.witnessed(gfn, || {
            let plan = self.decide(gfn, |claim| {
                let open = claim.entry().state.terms().is_some();
                if open {
                    claim.request(Request::Map(Perm::ReadWrite))
                } else {
                    Err(Refused::NotOpen)
                }
            })?;
            // Before the commit, while the page is still held: nobody closes it in between.
            let store = || self.shared.views.write_open(gfn, offset, bytes).map_err(Denied::Fault);
            self.carry_out_and(plan, store).map(|_| ())
        })
    }

    /// Puts what the management side may see of a page where its mapping finds it.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn show(&self, gfn: Gfn) -> Result<(), Denied> {
        match self.state(gfn)? {
            PageState::Private => self.show_replica(gfn),
            // Shown already, to whoever mapped the view file first.
            PageState::Replica => Ok(()),
            PageState::Open { .. } | PageState::Sealed => {
                // What it is by now is decided under its claim.
                self.request(gfn, Request::Map(Perm::Read)).map(|_| ())
            }
            PageState::Free
            | PageState::Building
            | PageState::PagedOut
            | PageState::Scrubbing
            | PageState::Poisoned => self.show_zeroes(gfn),
        }
    }

    /// Nothing backs it, or nobody sees it any more. Under its claim, so that no page of the guest
    /// is at this place of the view file by then.
    fn show_zeroes(&self, gfn: Gfn) -> Result<(), Denied> {
        let claim = self.claim(gfn)?;
        if let PageState::Private
        | PageState::Replica
        | PageState::Open { .. }
        | PageState::Sealed = claim.entry().state
        {
            return Ok(());
        }
        self.shared.views.show_copy(gfn, &Page::zeroed()).map_err(Denied::Fault)
    }

    /// [`Request::Map`], and room for it: when the pool is full, the oldest replica goes.
    fn show_replica(&self, gfn: Gfn) -> Result<(), Denied> {
        loop {
            match self.request(gfn, Request::Map(Perm::Read)) {
                Ok(_) => return Ok(()),
                Err(Denied::Refused(_, Refused::PoolFull)) => {
                    let oldest = lock(&self.ledger).oldest_replica();
                    let oldest = oldest.ok_or(Denied::Refused(gfn.number(), Refused::PoolFull))?;
                    // It may be gone already: then there is room.
                    let _ = self.request(oldest, Request::Unmap);
                    lock(&self.ledger).forget_replica(oldest);
                }
                Err(denied) => return Err(denied),
            }
        }
    }

    /// Closes what is due. Call it now and then; it waits for nobody: what somebody holds is due
    /// next time too.
    pub fn expire(&self) {
        let due: Vec<Gfn> = self.vm.leases().due(self.ticks()).collect();
        for gfn in due {
            let _ = self.witnessed(gfn, || {
                let claim = self.vm.claim(gfn).map_err(|_| Denied::Busy(gfn.number()))?;
                let plan = claim.act(Act::Unshare);
                self.carry_out(plan.map_err(|no| Denied::Refused(gfn.number(), no))?)
            });
        }
    }

    /// Whether the guest opened so many pages during a snapshot that more have to wait for its end.
    /// The kernel bounds the mappings of a process, and pages mapped anew while stores are watched
    /// do not merge with their neighbours.
    pub fn is_crowded(&self) -> bool {
        const SHARES_MAX: u64 = 8192;
        let watched = self.witness.read().unwrap_or_else(PoisonError::into_inner).is_some();
        watched && self.shares_watched.load(Ordering::Relaxed) >= SHARES_MAX
    }

    /// Tells `witness` about every page that is about to change, from now on. On return no change
    /// is under way; `while_still` runs before the next one.
    pub fn watch<T>(
        &self,
        witness: Option<Arc<dyn Witness>>,
        while_still: impl FnOnce() -> T,
    ) -> T {
        let mut current = self.witness.write().unwrap_or_else(PoisonError::into_inner);
        if current.is_none() || witness.is_none() {
            self.shares_watched.store(0, Ordering::Relaxed);
        }
        *current = witness;
        while_still()
    }

    fn witnessed<T>(&self, gfn: Gfn, change: impl FnOnce() -> T) -> T {
        let witness = self.witness.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(witness) = &*witness {
            witness.secure(gfn);
        }
        change()
    }

    /// What a page is. One on which steps are under way shows as poisoned to onlookers, so that
    /// one is waited for.
    ///
    /// # Errors
    /// [`Denied::NoSuchPage`] and [`Denied::Busy`].
    pub fn state(&self, gfn: Gfn) -> Result<PageState, Denied> {
        let glanced = self.vm.state(gfn).ok_or(Denied::NoSuchPage(gfn.number()))?;
        if matches!(glanced, PageState::Scrubbing | PageState::Poisoned) {
            return self.claim(gfn).map(|claim| claim.entry().state);
        }
        Ok(glanced)
    }

    fn claim(&self, gfn: Gfn) -> Result<Claim<'_>, Denied> {
        let asked = Instant::now();
        loop {
            match self.vm.claim(gfn) {
                Ok(claim) => return Ok(claim),
                Err(Unclaimed::NoSuchPage) => return Err(Denied::NoSuchPage(gfn.number())),
                Err(Unclaimed::Busy) if asked.elapsed() > PATIENCE => {
                    return Err(Denied::Busy(gfn.number()));
                }
                Err(Unclaimed::Busy) => std::thread::yield_now(),
            }
        }
    }

    fn decide<'v>(
        &'v self,
        gfn: Gfn,
        decide: impl FnOnce(Claim<'v>) -> Result<Plan<'v>, Refused>,
    ) -> Result<Plan<'v>, Denied> {
        let plan = decide(self.claim(gfn)?).map_err(|no| Denied::Refused(gfn.number(), no))?;
        // Before the first step: what a spent key would have sealed is let go as it was.
        if let Some(id) = plan.seal_id() {
            self.shared.wear.add(id.stream, 1).map_err(|Spent| Denied::KeySpent)?;
        }
        Ok(plan)
    }

    fn carry_out(&self, plan: Plan<'_>) -> Result<Done, Denied> {
        self.carry_out_and(plan, || Ok(()))
    }

    /// Carries a plan out; `also` is done while the page is still held.
    fn carry_out_and(
        &self,
        plan: Plan<'_>,
        also: impl FnOnce() -> Result<(), Denied>,
    ) -> Result<Done, Denied> {
        let gfn = plan.gfn();
        let mut batch = Batch::<1>::new();
        let _ = batch.push(plan);
        let mut platform = KvmPlatform::new(Arc::clone(&self.shared));
        let receipts = batch.run(&mut platform).map_err(Denied::Fault)?;
        let receipt = receipts.iter().next().ok_or(Denied::NoSuchPage(gfn.number()))?;
        let also = also();
        lock(&self.ledger).note(gfn, receipt.state);
        receipts.commit();
        if receipt.state == PageState::Poisoned {
            return Err(Denied::Forged(gfn.number()));
        }
        also.map(|()| Done { receipt, wire: platform.take_wire(gfn) })
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
