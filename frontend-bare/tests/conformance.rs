//! The monitor's platform under what every platform must pass, on CPUs that remember whatever they
//! once found in a nested table until they are made to forget.

mod common;

use std::collections::BTreeMap;

use common::{Machine, ciphers};
use frontend_bare::ciphers::Ciphers;
use frontend_bare::memory::HostMemory;
use frontend_bare::platform::{BarePlatform, Staging};
use frontend_bare::pool::Pool;
use frontend_bare::table::{Levels, NestedTable};
use frontend_bare::views::{ViewFault, Views};
use sim::bytes::Label;
use sim::conformance::planted::{Plant, Planted};
use sim::conformance::real::first_word;
use sim::conformance::trace::{Told, traces};
use sim::conformance::{ConformingPlatform, Kept, suite};
use view_core::suite::Tag;
use view_core::{Copies, Frame, Gfn, OpenStep, Perm, Platform, SealStep, Target, View, What};

/// Drawn traces that go through the tables.
const SEEDS: u64 = 300;

/// Frames of the hypervisor; those of the monitor follow.
const HOST_FRAMES: u64 = 16;

/// Those of them that guests may have.
const GUEST_FRAMES: u64 = 4;

/// Frames for tables and copies. So few that the guest's tables are often given up for others.
const POOL: usize = 12;

struct Stage {
    machine: Machine,
    views: Views<POOL, 4>,
    ciphers: Ciphers,
    staging: Staging,
    kept: Kept,
    guest: NestedTable,
    /// What the guest was granted: what was given up for other tables is mapped again from here.
    granted: BTreeMap<Gfn, (Target, Perm)>,
}

impl Stage {
    fn new() -> Self {
        let frames = HOST_FRAMES + POOL as u64;
        let mut machine = Machine::new(frames);
        let mut pool = Pool::new((HOST_FRAMES..frames).map(|number| Frame::new(number).unwrap()));
        let guest = NestedTable::new(&mut machine, &mut pool, Levels::Five).unwrap();
        let mut host = NestedTable::new(&mut machine, &mut pool, Levels::Four).unwrap();
        // The hypervisor begins with its memory in large pages.
        let (first, frame) = (Gfn::new(0).unwrap(), Frame::new(0).unwrap());
        host.map_large(&mut machine, &mut pool, (first, frame, Perm::ReadWrite)).unwrap();
        // What it may offer to guests it has given up before.
        for number in 0..GUEST_FRAMES {
            host.unmap(&mut machine, &mut pool, Gfn::new(number).unwrap());
        }
        let views = Views::new(host, pool);
        let (staging, kept) = (Staging::default(), Kept::default());
        Self { machine, views, ciphers: ciphers(), staging, kept, guest, granted: BTreeMap::new() }
    }

    fn platform(&mut self) -> BarePlatform<'_, Machine, POOL, 4> {
        BarePlatform {
            host: &mut self.machine,
            views: &mut self.views,
            guest: &mut self.guest,
            ciphers: &self.ciphers,
            masks: &[],
            staging: &mut self.staging,
        }
    }

    /// What a CPU finds: what it remembers, or what the table says, which it then remembers.
    fn walk(&mut self, view: View, page: Gfn) -> Option<(Frame, Perm)> {
        let remembered = self.machine.remembered.get(&(view, page)).copied();
        if let Some((_, Perm::ReadWrite)) = remembered {
            return remembered;
        }
        let table = if view == View::Owner { &self.guest } else { &self.views.host };
        let found = table.find(&self.machine, page);
        // A CPU that may not by what it remembers walks again before it faults.
        let more = matches!((remembered, found), (None, _) | (_, Some((_, Perm::ReadWrite))));
        if let (true, Some(found)) = (more, found) {
            self.machine.remembered.insert((view, page), found);
            return Some(found);
        }
        remembered
    }

    /// The same for the guest, whose tables may have been given up for others.
    fn guest_walk(&mut self, gfn: Gfn) -> Option<(Frame, Perm)> {
        if let Some(found) = self.walk(View::Owner, gfn) {
            return Some(found);
        }
        let (page, perm) = *self.granted.get(&gfn)?;
        self.views.show_guest(&mut self.machine, &mut self.guest, (&page, perm)).unwrap();
        self.walk(View::Owner, gfn)
    }

    /// Everybody looks at everything all the time.
    fn keep_looking(&mut self) {
        for number in 0..HOST_FRAMES {
            let page = Gfn::new(number).unwrap();
            let _ = (self.walk(View::Management, page), self.guest_walk(page));
        }
    }

    fn host_walk(&mut self, page: &Target) -> Option<(Frame, Perm)> {
        self.walk(View::Management, Gfn::new(page.frame.number()).unwrap())
    }
}

impl Platform for Stage {
    type Fault = ViewFault;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), ViewFault> {
        self.keep_looking();
        if view == View::Owner {
            self.granted.remove(&page.gfn);
        }
        self.platform().withdraw(page, view)
    }

    fn fence(&mut self) -> Result<(), ViewFault> {
        self.keep_looking();
        self.platform().fence()
    }

    fn fetch(&mut self, page: &Target) -> Result<(), ViewFault> {
        if let Some(sealed) = self.kept.handed(page.gfn) {
            self.machine.write(page.frame, &sealed);
        }
        self.platform().fetch(page)
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), ViewFault> {
        self.platform().seal(steps, tags)?;
        self.kept.sealed(steps, |gfn| self.machine.sent.remove(&gfn));
        Ok(())
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), ViewFault> {
        self.platform().open(steps, genuine)
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), ViewFault> {
        self.keep_looking();
        self.platform().scrub(page, copies)
    }

    fn grant(
        &mut self,
        page: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), ViewFault> {
        self.platform().grant(page, view, what, perm)?;
        if view == View::Owner {
            self.granted.insert(page.gfn, (*page, perm));
        } else if let Some((frame, _)) = self.host_walk(page) {
            let shown = Box::new(self.machine.page(frame).clone());
            self.kept.granted(page, what, Some(shown));
        }
        Ok(())
    }
}

impl ConformingPlatform for Stage {
    fn guest_load(&mut self, gfn: Gfn) -> Option<u64> {
        let (frame, _) = self.guest_walk(gfn)?;
        Some(first_word(self.machine.page(frame)))
    }

    fn guest_store(&mut self, gfn: Gfn, value: u64) -> bool {
        let writable = self.guest_walk(gfn).filter(|(_, perm)| *perm == Perm::ReadWrite);
        writable.inspect(|(frame, _)| self.machine.set_word(*frame, 0, value)).is_some()
    }

    fn management_load(&mut self, page: &Target) -> Option<u64> {
        let (frame, _) = self.host_walk(page)?;
        Some(first_word(self.machine.page(frame)))
    }

    fn management_store(&mut self, page: &Target, value: u64) -> bool {
        let writable = self.host_walk(page).filter(|(_, perm)| *perm == Perm::ReadWrite);
        writable.inspect(|(frame, _)| self.machine.set_word(*frame, 0, value)).is_some()
    }

    fn tamper(&mut self, gfn: Gfn) {
        self.kept.tamper(gfn);
    }

    fn hand(&mut self, gfn: Gfn, seal: Label) -> bool {
        self.kept.hand(gfn, seal)
    }
}

#[test]
fn the_monitors_platform_conforms() {
    assert_eq!(suite(Stage::new), Ok(9));
}

#[test]
fn traces_show_on_nested_tables_what_they_show_on_the_simulated_machine() {
    let told = traces(SEEDS, Stage::new).unwrap_or_else(|parted| panic!("{parted}"));
    let Told { traces, loads, raced, .. } = told;
    assert_eq!(told.missed(), [], "nobody ever saw these");
    assert!(traces as u64 > SEEDS && loads > 40_000 && raced > 500, "{told:?}");
}

#[test]
fn every_error_planted_in_the_monitors_platform_is_caught() {
    for plant in Plant::ALL {
        let wrong = || Planted { platform: Stage::new(), plant };
        assert!(suite(wrong).is_err(), "{plant:?} passes the suite");
        assert!(traces(SEEDS, wrong).is_err(), "{plant:?} passes every trace");
    }
}
