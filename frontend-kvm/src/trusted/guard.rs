//! The one gate to a guest's pages: every wish of the management side and every act of the guest
//! is decided by the core here, and carried out by the platform.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use view_core::suite::Stream;
use view_core::whitelist::{Doorbell as DoorbellRule, DoorbellFact, NoEvidence, Rule};
use view_core::{
    Act, Batch, Gfn, NotRunnable, Page, PageState, Perm, Plan, Receipt, Refused, Request,
    Unclaimed, Vm,
};

use super::platform::{KvmPlatform, Shared};
use super::views::ViewFault;
use crate::abi::code;
use crate::exit::{Doorbell, GuestEvent, Malformed};
use crate::machine::{Handler, OnFault, Reply};

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

/// How many of the guest's calls came to nothing, and what was said last on its console.
#[derive(Debug, Default)]
pub struct Heard {
    /// The console, newest bytes last; bounded.
    pub console: VecDeque<u8>,
    /// The exit code, once the guest ended.
    pub ended: Option<u8>,
    /// Doorbells that were refused.
    pub refused: u64,
    /// The latest malformed call.
    pub malformed: Option<Malformed>,
    /// What no fact proved.
    pub no_evidence: Option<NoEvidence>,
}

/// A VM's table, its views, and who must be told before a page changes.
pub struct Guard {
    vm: Vm<'static>,
    shared: Arc<Shared>,
    witness: RwLock<Option<Arc<dyn Witness>>>,
    /// Pages with a replica out, oldest first.
    replicas: Mutex<VecDeque<Gfn>>,
    /// The open pages, so that nobody has to search for them.
    open: Mutex<BTreeSet<Gfn>>,
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
            replicas: Mutex::new(VecDeque::new()),
            open: Mutex::new(BTreeSet::new()),
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
        lock(&self.open).iter().copied().collect()
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
        self.witnessed(gfn, || self.carry_out(self.decide(gfn, |claim| claim.act(act))?))
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

    /// Seals many pages for a stream, batch by batch: `each` sees what was done to each.
    ///
    /// # Errors
    /// The first denial; what came before it is done.
    pub fn export(
        &self,
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
            let mut platform = KvmPlatform::new(Arc::clone(&self.shared));
            let receipts = batch.run(&mut platform).map_err(Denied::Fault)?;
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
        let state = self.state(gfn)?;
        match state {
            PageState::Private | PageState::Replica => {
                let done = self.request(gfn, Request::Export(Stream::View))?;
                let bytes = done.wire.unwrap_or_else(|| Box::new(Page::zeroed()));
                Ok(Look { state, sealed: done.receipt.sealed, bytes })
            }
            PageState::Open { .. } | PageState::Sealed => {
                self.request(gfn, Request::Map(Perm::Read))?;
                let mut bytes = Box::new(Page::zeroed());
                self.shared.views.read_view(gfn, &mut bytes).map_err(Denied::Fault)?;
                Ok(Look { state, sealed: None, bytes })
            }
            PageState::Free
            | PageState::Building
            | PageState::PagedOut
            | PageState::Scrubbing
            | PageState::Poisoned => {
                Ok(Look { state, sealed: None, bytes: Box::new(Page::zeroed()) })
            }
        }
    }

    /// Stores bytes into an open page, as far as its permissions allow.
    ///
    /// # Errors
    /// [`Denied`]; nothing was stored.
    pub fn write(&self, gfn: Gfn, offset: usize, bytes: &[u8]) -> Result<(), Denied> {
        self.witnessed(gfn, || {
            let map = Request::Map(Perm::ReadWrite);
            let plan = self.decide(gfn, |claim| claim.request(map))?;
            if plan.after().terms().is_none() {
                return Err(Denied::Refused(gfn.number(), Refused::NotOpen));
            }
            self.carry_out(plan)?;
            self.shared.views.write_open(gfn, offset, bytes).map_err(Denied::Fault)
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
                self.request(gfn, Request::Map(Perm::Read)).map(|_| ())
            }
            PageState::Free
            | PageState::Building
            | PageState::PagedOut
            | PageState::Scrubbing
            | PageState::Poisoned => {
                self.shared.views.show_copy(gfn, &Page::zeroed()).map_err(Denied::Fault)
            }
        }
    }

    /// [`Request::Map`], and room for it: when the pool is full, the oldest replica goes.
    fn show_replica(&self, gfn: Gfn) -> Result<(), Denied> {
        loop {
            match self.request(gfn, Request::Map(Perm::Read)) {
                Ok(_) => {
                    lock(&self.replicas).push_back(gfn);
                    return Ok(());
                }
                Err(Denied::Refused(_, Refused::PoolFull)) => {
                    let oldest = lock(&self.replicas).pop_front();
                    let oldest = oldest.ok_or(Denied::Refused(gfn.number(), Refused::PoolFull))?;
                    // It may be gone already: then there is room.
                    let _ = self.request(oldest, Request::Unmap);
                }
                Err(denied) => return Err(denied),
            }
        }
    }

    /// Closes what is due. Call it now and then.
    pub fn expire(&self) {
        let due: Vec<Gfn> = self.vm.leases().due(self.ticks()).collect();
        for gfn in due {
            // Whoever holds the page now is changing it; what is still due then is due next time.
            let _ = self.act(gfn, Act::Unshare);
        }
    }

    /// Tells `witness` about every page that is about to change, from now on. On return no change
    /// is under way; `while_still` runs before the next one.
    pub fn watch<T>(
        &self,
        witness: Option<Arc<dyn Witness>>,
        while_still: impl FnOnce() -> T,
    ) -> T {
        let mut current = self.witness.write().unwrap_or_else(PoisonError::into_inner);
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

    fn state(&self, gfn: Gfn) -> Result<PageState, Denied> {
        self.vm.state(gfn).ok_or(Denied::NoSuchPage(gfn.number()))
    }

    fn decide<'v>(
        &'v self,
        gfn: Gfn,
        decide: impl Fn(view_core::Claim<'v>) -> Result<Plan<'v>, Refused>,
    ) -> Result<Plan<'v>, Denied> {
        let asked = Instant::now();
        loop {
            match self.vm.claim(gfn) {
                Ok(claim) => {
                    return decide(claim).map_err(|no| Denied::Refused(gfn.number(), no));
                }
                Err(Unclaimed::NoSuchPage) => return Err(Denied::NoSuchPage(gfn.number())),
                Err(Unclaimed::Busy) if asked.elapsed() > PATIENCE => {
                    return Err(Denied::Busy(gfn.number()));
                }
                Err(Unclaimed::Busy) => std::thread::yield_now(),
            }
        }
    }

    fn carry_out(&self, plan: Plan<'_>) -> Result<Done, Denied> {
        let gfn = plan.gfn();
        let mut batch = Batch::<1>::new();
        let _ = batch.push(plan);
        let mut platform = KvmPlatform::new(Arc::clone(&self.shared));
        let receipts = batch.run(&mut platform).map_err(Denied::Fault)?;
        let receipt = receipts.iter().next().ok_or(Denied::NoSuchPage(gfn.number()))?;
        receipts.commit();
        if receipt.state.terms().is_some() {
            lock(&self.open).insert(gfn);
        } else {
            lock(&self.open).remove(&gfn);
        }
        if receipt.state == PageState::Poisoned {
            return Err(Denied::Forged(gfn.number()));
        }
        Ok(Done { receipt, wire: platform.take_wire(gfn) })
    }

    /// What a doorbell leads to, as the code that the guest gets.
    fn ring(&self, doorbell: Doorbell) -> u32 {
        let words = |call, gfn: Gfn, perm, mask, expiry| DoorbellFact {
            vm: self.vm.number(),
            call,
            gfn: gfn.number(),
            perm,
            mask,
            expiry,
        };
        let fact = match doorbell {
            Doorbell::Share { gfn, perm, mask, expiry } => {
                let code = u64::from(perm.code());
                words(DoorbellRule::SHARE, gfn, code, u64::from(mask.number()), expiry)
            }
            Doorbell::Unshare { gfn } => words(DoorbellRule::UNSHARE, gfn, 0, 0, 0),
            Doorbell::Exclude { first, count } => return self.exclude(first, count),
            Doorbell::Step(_) => return code::DONE,
        };
        self.ring_fact(&fact)
    }

    fn exclude(&self, first: Gfn, count: u64) -> u32 {
        for number in first.number()..first.number().saturating_add(count) {
            let call = DoorbellRule::EXCLUDE;
            let vm = self.vm.number();
            let fact = DoorbellFact { vm, call, gfn: number, perm: 0, mask: 0, expiry: 0 };
            match self.ring_fact(&fact) {
                code::DONE => {}
                other => return other,
            }
        }
        code::DONE
    }

    fn ring_fact(&self, fact: &DoorbellFact) -> u32 {
        let answer = match DoorbellRule.infer(&self.vm, fact) {
            Ok(proposal) => {
                let (gfn, act) = proposal.act();
                match self.act(gfn, act) {
                    Ok(_) => code::DONE,
                    Err(Denied::Busy(_)) => code::BUSY,
                    Err(Denied::NoSuchPage(_)) => code::BAD_PAGE,
                    Err(Denied::Refused(..) | Denied::Fault(_) | Denied::Forged(_)) => {
                        code::REFUSED
                    }
                }
            }
            Err(no) => {
                self.heard().no_evidence = Some(no);
                match no {
                    NoEvidence::NoSuchPage(_) => code::BAD_PAGE,
                    NoEvidence::NoSuchPermission(_) => code::BAD_PERM,
                    NoEvidence::NoSuchMask(_) => code::BAD_MASK,
                    NoEvidence::WrongVm | NoEvidence::NoSuchCall(_) => code::REFUSED,
                }
            }
        };
        if answer != code::DONE {
            self.heard().refused += 1;
        }
        answer
    }

    fn console(&self, byte: u8) {
        const KEPT: usize = 4096;
        let console = &mut self.heard().console;
        if console.len() == KEPT {
            console.pop_front();
        }
        console.push_back(byte);
    }
}

impl Handler for Guard {
    fn event(&self, _vcpu: u8, event: GuestEvent) -> Reply {
        let answer = match event {
            GuestEvent::Doorbell(doorbell) => self.ring(doorbell),
            GuestEvent::Console(byte) => {
                self.console(byte);
                code::DONE
            }
            GuestEvent::End(byte) => {
                self.heard().ended = Some(byte);
                code::DONE
            }
            GuestEvent::Malformed(bad) => {
                let mut heard = self.heard();
                heard.malformed = Some(bad);
                heard.refused += 1;
                bad.what.code()
            }
            GuestEvent::Crashed(_) | GuestEvent::Unknown(_) => code::NOBODY,
        };
        // [I9] A poisoned page ends the guest: its vCPU parks and is never resumed.
        match self.vm.runnable() {
            Ok(()) => Reply::Answer(answer),
            Err(_) => Reply::Pause(answer),
        }
    }

    fn fault(&self, _vcpu: u8) -> OnFault {
        if let Err(NotRunnable::Stopped(_)) = self.vm.runnable() {
            return OnFault::Stop;
        }
        // KVM does not say which page it was: what is sealed in place comes back.
        let closed: Vec<Gfn> = self.shared.views.closed().collect();
        for gfn in closed {
            if self.vm.state(gfn) == Some(PageState::Sealed)
                && let Err(Denied::Forged(_) | Denied::Fault(_)) = self.act(gfn, Act::Touch)
            {
                return OnFault::Stop;
            }
        }
        std::thread::yield_now();
        OnFault::Retry
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
