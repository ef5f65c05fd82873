//! The KVM platform, its guest and its manager, as the suite and the traces drive them.

use std::sync::Arc;

use frontend_kvm::Kvm;
use frontend_kvm::abi::gfn;
use frontend_kvm::guest::place;
use frontend_kvm::harden::SecretBox;
use frontend_kvm::trusted::{Ciphers, Incarnation, KvmPlatform, Shared, ViewFault, Views};
use sim::bytes::Label;
use sim::conformance::real::first_word;
use sim::conformance::{ConformingPlatform, Kept};
use view_core::key::{RootKey, Salt};
use view_core::suite::Tag;
use view_core::{Copies, Epoch, Gfn, OpenStep, Perm, Platform, SealStep, Target, View, VmId, What};

use crate::manager::Manager;
use crate::probe::Probe;

/// Where pages of a trace are, more than any asks for. Some are neighbours and some are not, since
/// neighbours are withdrawn together.
const PAGES: [u64; 4] = [0, 2, 3, 5];

pub(crate) struct Stage {
    probe: Probe,
    shared: Arc<Shared>,
    platform: KvmPlatform,
    manager: Manager,
    kept: Kept,
}

impl Stage {
    pub(crate) fn new(kvm: &Kvm) -> Self {
        let probe = Probe::new(kvm);
        let incarnation = Incarnation { vm: VmId([1; 16]), epoch: Epoch(1), salt: Salt([2; 16]) };
        let ciphers = || Ciphers::new(&RootKey::new([3; 32]), &incarnation);
        let views = Views::new(Arc::clone(probe.machine().memory())).unwrap();
        let shared = Arc::new(Shared::new(views, SecretBox::make(ciphers).unwrap(), &[]));
        // Nobody has accepted a page yet.
        for gfn in pages() {
            shared.views.close_guest(here(gfn)).unwrap();
        }
        let (platform, manager) =
            (KvmPlatform::new(Arc::clone(&shared)), Manager::new(&shared.views));
        Self { probe, shared, platform, manager, kept: Kept::default() }
    }

    /// The manager looks at everything all the time, so that it has mapped what it can before it
    /// is taken away.
    fn keep_looking(&self) {
        for gfn in pages() {
            let _ = self.manager.look(here(gfn));
        }
    }
}

fn pages() -> impl Iterator<Item = Gfn> {
    (0..).take(PAGES.len()).map(|number| Gfn::new(number).unwrap())
}

/// In the guest's working set: its first pages hold its page tables.
fn here(gfn: Gfn) -> Gfn {
    let offset = PAGES.get(usize::try_from(gfn.number()).unwrap());
    place(gfn::WORK + offset.expect("a page that was closed at the start"))
}

fn moved(page: &Target) -> Target {
    Target { gfn: here(page.gfn), ..*page }
}

impl Platform for Stage {
    type Fault = ViewFault;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), ViewFault> {
        self.keep_looking();
        self.platform.withdraw(&moved(page), view)
    }

    fn fence(&mut self) -> Result<(), ViewFault> {
        self.keep_looking();
        self.platform.fence()
    }

    fn fetch(&mut self, page: &Target) -> Result<(), ViewFault> {
        if let Some(sealed) = self.kept.handed(page.gfn) {
            self.shared.hand_over(here(page.gfn), sealed)?;
        }
        self.platform.fetch(&moved(page))
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ViewFault> {
        let there = |step: &SealStep| SealStep { target: moved(&step.target), ..*step };
        self.platform.seal(&steps.iter().map(there).collect::<Vec<_>>(), tags)?;
        self.kept.sealed(steps, |gfn| self.platform.take_wire(here(gfn)));
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ViewFault> {
        let there = |step: &OpenStep| OpenStep { target: moved(&step.target), ..*step };
        self.platform.open(&steps.iter().map(there).collect::<Vec<_>>(), genuine)
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), ViewFault> {
        self.keep_looking();
        self.platform.scrub(&moved(page), copies)
    }

    fn grant(
        &mut self,
        page: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), ViewFault> {
        self.platform.grant(&moved(page), view, what, perm)?;
        if view == View::Management {
            self.kept.granted(page, what, self.manager.look(here(page.gfn)));
        }
        Ok(())
    }
}

impl ConformingPlatform for Stage {
    fn guest_load(&mut self, gfn: Gfn) -> Option<u64> {
        self.probe.load(here(gfn))
    }

    fn guest_store(&mut self, gfn: Gfn, value: u64) -> bool {
        self.probe.store(here(gfn), value)
    }

    fn management_load(&mut self, page: &Target) -> Option<u64> {
        self.manager.look(here(page.gfn)).as_deref().map(first_word)
    }

    /// Managers cannot store through their mapping: they ask the trusted process.
    fn management_store(&mut self, page: &Target, value: u64) -> bool {
        self.shared.views.write_open(here(page.gfn), 0, &value.to_le_bytes()).is_ok()
    }

    fn tamper(&mut self, gfn: Gfn) {
        self.kept.tamper(gfn);
    }

    fn hand(&mut self, gfn: Gfn, seal: Label) -> bool {
        self.kept.hand(gfn, seal)
    }
}
