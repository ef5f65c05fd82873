//! One VM: its rows, its lists, and whether its CPUs may run.

use core::fmt;

use crate::addr::{Epoch, Frame, Gfn, VmNumber};
use crate::claim::Claim;
use crate::mask::{self, Mask};
use crate::owner::Frames;
use crate::perm::MaskId;
use crate::slot::Slot;
use crate::state::PageState;
use crate::sync::{AtomicU64, Ordering};
use crate::whitelist::Leases;
use crate::wrong::WrongCore;

/// What a VM is made of. All storage is the caller's.
#[derive(Clone, Copy, Debug)]
pub struct VmConfig<'s> {
    /// The VM's place in this host's tables.
    pub number: VmNumber,
    /// Its incarnation; the key of every seal is bound to it.
    pub epoch: Epoch,
    /// How many pages the guest has.
    pub pages: u64,
    /// One row a page.
    pub slots: &'s [Slot],
    /// The host's table of frames.
    pub frames: Frames<'s>,
    /// Room for the pages that are open at once.
    pub leases: Leases<'s>,
    /// Field masks; [`MaskId`] 1 is the first.
    pub masks: &'s [Mask<'s>],
    /// How many replicas may be out at once: the platform's pool has room for as many.
    pub replicas_max: u64,
}

/// Why a table can't be a new VM's. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTable {
    /// It has fewer rows than the guest has pages.
    TooSmall {
        /// Rows that the guest needs.
        needed: u64,
        /// Rows that there are.
        rows: usize,
    },
    /// A row is some VM's already: what it counts and promises would be forgotten.
    InUse(Gfn),
}

impl fmt::Display for BadTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall { needed, rows } => {
                write!(f, "the guest has {needed} pages, the table only {rows} rows")
            }
            Self::InUse(gfn) => {
                write!(
                    f,
                    "the table's row of page {:#x} is in use; a new VM needs zeroed rows",
                    gfn.number()
                )
            }
        }
    }
}

impl core::error::Error for BadTable {}

/// Why a page could not be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// Somebody else holds the page; try again.
    Busy,
    /// The VM has no such page.
    NoSuchPage,
}

impl fmt::Display for Unclaimed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "somebody else holds the page",
            Self::NoSuchPage => "the VM has no such page",
        })
    }
}

impl core::error::Error for Unclaimed {}

/// Why no CPU of a VM may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRunnable {
    /// It was never launched.
    NotLaunched,
    /// So many of its pages are still being built.
    StillBuilding(u64),
    /// This page is poisoned: the VM stops for good.
    Stopped(Gfn),
}

fn check_size(config: &VmConfig<'_>) -> Result<(), BadTable> {
    let rows = config.slots.len();
    if u64::try_from(rows).unwrap_or(u64::MAX) < config.pages {
        return Err(BadTable::TooSmall { needed: config.pages, rows });
    }
    Ok(())
}

/// Set once and for good; after that, no page is ever being built.
const LAUNCHED: u64 = 1 << 63;

/// One VM's table and state. Share it between CPUs by reference.
#[derive(Debug)]
pub struct Vm<'s> {
    config: VmConfig<'s>,
    /// How many pages are being built, and [`LAUNCHED`]: one word, so that neither changes unseen
    /// while the other is looked at.
    building: AtomicU64,
    replicas: AtomicU64,
    /// 0, or one more than the gfn that stopped the VM.
    stopped: AtomicU64,
    #[cfg(feature = "wrong-cores")]
    wrong: Option<WrongCore>,
}

impl<'s> Vm<'s> {
    /// A VM whose pages are all free. Its rows must be zeroed, and nobody else's.
    ///
    /// # Errors
    /// [`BadTable`] if there are fewer rows than pages, or one is in use.
    pub fn new(config: VmConfig<'s>) -> Result<Self, BadTable> {
        check_size(&config)?;
        let gfns = (0..config.pages).map_while(|number| Gfn::new(number).ok());
        let used = gfns.zip(config.slots).find(|(_, slot)| slot.words() != [0; 4]);
        if let Some((gfn, _)) = used {
            return Err(BadTable::InUse(gfn));
        }
        Self::resume(config, [0; 3])
    }

    /// A VM that goes on where another left off: with its rows, its lists and its
    /// [`words`](Self::words). A monitor that replaces itself under running guests keeps them so.
    ///
    /// What they say is believed: they come from memory that only the trusted side can write, and
    /// the platform maps exactly what they say. A page that was held stays held for ever.
    ///
    /// # Errors
    /// [`BadTable::TooSmall`].
    pub fn resume(config: VmConfig<'s>, words: [u64; 3]) -> Result<Self, BadTable> {
        check_size(&config)?;
        let [building, replicas, stopped] = words.map(AtomicU64::new);
        Ok(Self {
            config,
            building,
            replicas,
            stopped,
            #[cfg(feature = "wrong-cores")]
            wrong: None,
        })
    }

    /// The same VM with a core that is wrong on purpose. Never for use.
    #[cfg(feature = "wrong-cores")]
    #[must_use = "the VM itself is gone"]
    pub fn made_wrong(self, wrong: WrongCore) -> Self {
        Self { wrong: Some(wrong), ..self }
    }

    /// Makes of the VM what [`words`](Self::words) found, as [`Slot::put_words`] does a row.
    pub fn put_words(&self, words: [u64; 3]) {
        for (to, word) in [&self.building, &self.replicas, &self.stopped].into_iter().zip(words) {
            to.store(word, Ordering::Release);
        }
    }

    /// What [`resume`](Self::resume) needs beside rows and lists: pages being built and whether the
    /// VM is launched, replicas, and what stopped it.
    pub fn words(&self) -> [u64; 3] {
        [&self.building, &self.replicas, &self.stopped].map(|word| word.load(Ordering::Acquire))
    }

    /// The VM's place in this host's tables.
    pub const fn number(&self) -> VmNumber {
        self.config.number
    }

    /// The VM's incarnation.
    pub const fn epoch(&self) -> Epoch {
        self.config.epoch
    }

    /// How many pages the guest has.
    pub const fn pages(&self) -> u64 {
        self.config.pages
    }

    /// Every gfn of the guest, in order.
    pub fn gfns(&self) -> impl Iterator<Item = Gfn> + use<> {
        (0..self.config.pages).map_while(|number| Gfn::new(number).ok())
    }

    /// The host's table of frames.
    pub const fn frames(&self) -> Frames<'s> {
        self.config.frames
    }

    /// The list of open pages' deadlines.
    pub const fn leases(&self) -> Leases<'s> {
        self.config.leases
    }

    /// The fields that a mask shows; `None` for [`MaskId::ALL`] and for masks the VM has not.
    pub fn mask(&self, mask: MaskId) -> Option<&'s Mask<'s>> {
        mask::find(self.config.masks, mask)
    }

    /// What a page is at this moment, for onlookers; `None` if the VM has no such page. A page
    /// that is held shows the state it had, or `Scrubbing` or `Poisoned` once steps are under way.
    pub fn state(&self, gfn: Gfn) -> Option<PageState> {
        Some(self.slot(gfn)?.glance())
    }

    /// Takes a page for one decision.
    ///
    /// # Errors
    /// [`Unclaimed::Busy`] if somebody holds it; never blocks.
    pub fn claim(&self, gfn: Gfn) -> Result<Claim<'_>, Unclaimed> {
        let slot = self.slot(gfn).ok_or(Unclaimed::NoSuchPage)?;
        Claim::take(self, gfn, slot).ok_or(Unclaimed::Busy)
    }

    /// Ends building: from now on accepted pages are the owner's at once.
    ///
    /// # Errors
    /// [`NotRunnable::StillBuilding`] if some page was not launched; nothing changed.
    pub fn launch(&self) -> Result<(), NotRunnable> {
        match self.building.compare_exchange(0, LAUNCHED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) | Err(LAUNCHED) => Ok(()),
            Err(pages) => Err(NotRunnable::StillBuilding(pages)),
        }
    }

    /// Whether the VM's CPUs may run. A platform asks before every entry (spec, I9).
    ///
    /// # Errors
    /// [`NotRunnable`] with the reason.
    pub fn runnable(&self) -> Result<(), NotRunnable> {
        if let Some(gfn) = self.stopped.load(Ordering::Acquire).checked_sub(1) {
            return Err(NotRunnable::Stopped(Gfn::from_low_bits(gfn)));
        }
        let launched = self.is_launched() || self.is_wrong(WrongCore::RunsUnbuilt);
        if launched { Ok(()) } else { Err(NotRunnable::NotLaunched) }
    }

    /// How many replicas are out.
    pub fn replicas(&self) -> u64 {
        self.replicas.load(Ordering::Relaxed)
    }

    /// The frame that backs a page, or the last one that did.
    pub(crate) fn last_frame(&self, gfn: Gfn) -> Option<Frame> {
        self.slot(gfn).map(Slot::last_frame)
    }

    /// Whether the core is wrong on purpose in this way; never in what is shipped.
    #[cfg(not(feature = "wrong-cores"))]
    pub(crate) const fn is_wrong(&self, _: WrongCore) -> bool {
        false
    }

    /// Whether the core is wrong on purpose in this way.
    #[cfg(feature = "wrong-cores")]
    pub(crate) fn is_wrong(&self, how: WrongCore) -> bool {
        self.wrong == Some(how)
    }

    pub(crate) fn is_launched(&self) -> bool {
        self.building.load(Ordering::Acquire) & LAUNCHED != 0
    }

    pub(crate) fn stop(&self, gfn: Gfn) {
        // The first reason stays.
        let reason = gfn.number().saturating_add(1);
        let _ = self.stopped.compare_exchange(0, reason, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(crate) fn reserve_replica(&self) -> bool {
        let max = self.config.replicas_max;
        self.replicas
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |out| {
                if out < max { out.checked_add(1) } else { None }
            })
            .is_ok()
    }

    pub(crate) fn return_replica(&self) {
        let _ = self
            .replicas
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |out| out.checked_sub(1));
    }

    /// Counts one page more, unless the VM is launched.
    pub(crate) fn begin_building(&self) -> bool {
        self.building
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                if word & LAUNCHED == 0 { word.checked_add(1) } else { None }
            })
            .is_ok()
    }

    pub(crate) fn end_building(&self) {
        self.building.fetch_sub(1, Ordering::AcqRel);
    }

    fn slot(&self, gfn: Gfn) -> Option<&'s Slot> {
        if gfn.number() >= self.config.pages {
            return None;
        }
        self.config.slots.get(usize::try_from(gfn.number()).ok()?)
    }
}
