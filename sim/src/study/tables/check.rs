//! What must hold in every state of the study.

use view_core::{Ownership, PageState};

use super::PAGE_REFS;
use super::memory::Viewer;
use super::state::{Noted, State};
use crate::event::PageRef;
use crate::host::gfn;
use crate::study::spine::{FRAMES, Glance, at};

/// The ids of what does not hold.
pub(super) fn broken(state: &State, noted: &Noted) -> Vec<&'static str> {
    let glance = state.core.glance();
    let checks = [
        ("C1", holds_no_secret(state, noted)),
        ("C2", is_closed(state, &glance, noted)),
        ("C11", stays_with_its_vm(state, &glance, noted)),
        ("I1", finds_what_it_stored(state, &glance)),
        ("I3", finds_its_own(state, &glance)),
        ("I4", stays_home(state, &glance)),
    ];
    checks.into_iter().filter(|(_, holds)| !holds).map(|(id, _)| id).collect()
}

/// The frames that a viewer reaches, or read a table from just now.
fn reached(state: &State, viewer: Viewer, noted: &Noted) -> u32 {
    let touched = noted.touched.filter(|(of, _)| *of == viewer);
    state.machine.memory.reached(viewer) | touched.map_or(0, |(_, frames)| frames)
}

fn holds_no_secret(state: &State, noted: &Noted) -> bool {
    reached(state, Viewer::Management, noted) & state.machine.secret == 0
}

fn is_closed(state: &State, glance: &Glance, noted: &Noted) -> bool {
    let reached = reached(state, Viewer::Management, noted);
    PAGE_REFS.into_iter().all(|page| {
        let quiet = matches!(glance.states[at(page)], PageState::Private | PageState::Replica);
        let frame = state.core.frame(page);
        !quiet || frame.is_none_or(|frame| reached >> frame & 1 == 0)
    })
}

fn stays_with_its_vm(state: &State, glance: &Glance, noted: &Noted) -> bool {
    [0, 1].into_iter().filter(|vm| glance.runs[usize::from(*vm)]).all(|vm| {
        let reached = reached(state, Viewer::Vm(vm), noted);
        (0..FRAMES).filter(|frame| reached >> frame & 1 != 0).all(|frame| {
            let owner = glance.owners[frame];
            !matches!(owner, Ownership::Owned(other, _) if other.0 != u16::from(vm))
        })
    })
}

/// Every page of a VM that runs, with the frames in which its guest may find it.
fn found(state: &State, glance: &Glance) -> impl Iterator<Item = (PageRef, u8)> {
    let runs = glance.runs;
    PAGE_REFS.into_iter().filter(move |page| runs[usize::from(page.vm)]).flat_map(move |page| {
        let frames = state.machine.memory.reaches(Viewer::Vm(page.vm), page.gfn);
        frames.map(move |frame| (page, frame))
    })
}

fn finds_what_it_stored(state: &State, glance: &Glance) -> bool {
    found(state, glance).all(|(page, frame)| {
        let frame = usize::from(frame);
        let words = state.machine.memory.words[frame];
        state.machine.seals[frame].is_none() && words == state.ghosts[at(page)].latest
    })
}

fn finds_its_own(state: &State, glance: &Glance) -> bool {
    found(state, glance).all(|(page, frame)| {
        let owner = glance.owners.get(usize::from(frame));
        matches!(owner, Some(Ownership::Owned(vm, of))
            if vm.0 == u16::from(page.vm) && *of == gfn(page))
    })
}

fn stays_home(state: &State, glance: &Glance) -> bool {
    let homes = |page: PageRef| state.ghosts[at(page)].home;
    let rows = PAGE_REFS.into_iter().filter(|page| glance.runs[usize::from(page.vm)]);
    let mut rows = rows.filter_map(|page| Some((page, state.core.frame(page)?)));
    rows.all(|(page, frame)| homes(page) == Some(frame))
        && found(state, glance).all(|(page, frame)| homes(page) == Some(frame))
}
