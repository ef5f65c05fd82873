//! One platform over the machines of several VMs, with one pool of replicas for all of them. One
//! call may be told to fail.

use std::collections::BTreeSet;

use view_core::suite::Tag;
use view_core::suite::siv_cmac_512::SivCmac512;
use view_core::{Copies, Gfn, OpenStep, Perm, Place, Platform, SealStep, Target, View, What};

use crate::event::{FaultTime, PageRef};
use crate::software::{NoSuchPage, Software};

/// The machines, each with one VM, and when the next call fails.
#[derive(Debug)]
pub(super) struct Faulty<'a> {
    pub(super) machines: &'a mut [Software<'static, SivCmac512>],
    pub(super) fault: Option<FaultTime>,
    /// Whose replicas are out, and how many there may be.
    pub(super) pool: &'a mut BTreeSet<PageRef>,
    pub(super) room: usize,
}

/// What fails is about no page at all.
const NO_PAGE: NoSuchPage = NoSuchPage(Gfn::MAX);

impl Faulty<'_> {
    fn call(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<(), NoSuchPage>,
    ) -> Result<(), NoSuchPage> {
        match self.fault.take() {
            Some(FaultTime::Early) => Err(NO_PAGE),
            Some(FaultTime::Late) => work(self).and(Err(NO_PAGE)),
            None => work(self),
        }
    }

    /// A place in the pool for the page's replica, if there is one.
    fn enter(&mut self, page: PageRef) -> Result<(), NoSuchPage> {
        let fits = self.pool.contains(&page) || self.pool.len() < self.room;
        if fits {
            self.pool.insert(page);
            Ok(())
        } else {
            Err(NO_PAGE)
        }
    }

    fn of(&mut self, page: &Target) -> Result<&mut Software<'static, SivCmac512>, NoSuchPage> {
        self.machines.get_mut(usize::from(page.vm.0)).ok_or(NoSuchPage(page.gfn))
    }
}

impl Platform for Faulty<'_> {
    type Fault = NoSuchPage;

    fn withdraw(&mut self, page: &Target, view: View) -> Result<(), NoSuchPage> {
        self.call(|all| all.of(page)?.withdraw(page, view))
    }

    fn fence(&mut self) -> Result<(), NoSuchPage> {
        self.call(|all| all.machines.iter_mut().try_for_each(Platform::fence))
    }

    fn fetch(&mut self, page: &Target) -> Result<(), NoSuchPage> {
        self.call(|all| all.of(page)?.fetch(page))
    }

    fn seal(&mut self, steps: &[SealStep], tags: &mut [Tag]) -> Result<(), NoSuchPage> {
        self.call(|all| {
            steps.iter().zip(tags).try_for_each(|(step, tag)| {
                if step.to == Place::Replica {
                    all.enter(PageRef::of(&step.target))?;
                }
                all.of(&step.target)?.seal(&[*step], std::slice::from_mut(tag))
            })
        })
    }

    fn open(&mut self, steps: &[OpenStep], genuine: &mut [bool]) -> Result<(), NoSuchPage> {
        self.call(|all| {
            steps.iter().zip(genuine).try_for_each(|(step, genuine)| {
                all.of(&step.target)?.open(&[*step], std::slice::from_mut(genuine))
            })
        })
    }

    fn scrub(&mut self, page: &Target, copies: Copies) -> Result<(), NoSuchPage> {
        self.call(|all| {
            if copies != Copies::Original {
                all.pool.remove(&PageRef::of(page));
            }
            all.of(page)?.scrub(page, copies)
        })
    }

    fn grant(
        &mut self,
        page: &Target,
        view: View,
        what: What,
        perm: Perm,
    ) -> Result<(), NoSuchPage> {
        self.call(|all| all.of(page)?.grant(page, view, what, perm))
    }
}
