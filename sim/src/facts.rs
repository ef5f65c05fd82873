//! What is so in a state, gathered once for all invariants: pages, frames, and who reaches what.
//!
//! Sets of places are bits, a frame or a place of the pool each, in the order of [`Phys::at`].

use view_core::{Gfn, Ownership, PageState, VmNumber};

use crate::event::{PageRef, Phys};
use crate::machine::{FRAMES, PAGES, PLACES, VM_PAGES, VMS};
use crate::world::{Ghost, World, is_busy};

/// A set of places.
pub(crate) type Places = u32;

/// A page as it is now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageFacts {
    pub(crate) page: PageRef,
    /// What onlookers see of it.
    pub(crate) state: PageState,
    pub(crate) busy: bool,
    /// Its VM's CPUs may run.
    pub(crate) runs: bool,
    /// The frame that its row names, if there is such a frame.
    pub(crate) frame: Places,
    /// Where its guest may find it, by table or by what a CPU remembers.
    pub(crate) reaches: Places,
    /// Its frame is its own.
    pub(crate) owns_frame: bool,
    /// Its frame was its own, and is nobody's until it was wiped.
    pub(crate) quarantined: bool,
}

/// Everything that invariants of states look at.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'w, 't> {
    pub(crate) world: &'w World<'t>,
    pub(crate) pages: heapless::Vec<PageFacts, PAGES>,
    /// What holds bytes that an owner stored in private.
    pub(crate) secrets: Places,
    /// What the management side reaches, by table or by what a CPU remembers.
    pub(crate) host_reaches: Places,
    /// What no page owns or is about to own.
    pub(crate) nobodys: Places,
    /// Frames that some page of each VM owns.
    pub(crate) of_vm: [Places; VMS],
    owned: Owned,
}

/// Frames that are not nobody's, a set for each page.
#[derive(Clone, Copy, Debug, Default)]
struct Owned {
    by_page: [Places; PAGES],
    quarantined: [Places; PAGES],
}

/// The places of a set.
pub(crate) fn members(places: Places) -> impl Iterator<Item = Phys> {
    (0..PLACES).filter(move |place| places >> place & 1 != 0).map(Phys::at)
}

fn set(is: impl Fn(usize) -> bool) -> Places {
    (0..PLACES).fold(0, |places, place| places | Places::from(is(place)) << place)
}

impl<'w, 't> Facts<'w, 't> {
    pub(crate) fn of(world: &'w World<'t>) -> Self {
        let machine = &world.machine;
        let mut nobodys = 0;
        for (place, of) in (FRAMES..).zip(&machine.replica_of) {
            nobodys |= Places::from(of.is_none()) << place;
        }
        let (mut owned, mut of_vm) = (Owned::default(), [0; VMS]);
        for frame in 0..world.config.frames {
            let place = 1 << frame;
            match world.ownership(frame) {
                Ownership::Free | Ownership::Offered(..) => nobodys |= place,
                Ownership::Owned(vm, gfn) => {
                    of_vm[usize::from(vm.0)] |= place;
                    owned.by_page[index(vm, gfn)] |= place;
                }
                Ownership::Quarantined(vm, gfn) => owned.quarantined[index(vm, gfn)] |= place,
            }
        }
        let mut runs = [false; VMS];
        for (vm, runs) in (0..).zip(&mut runs) {
            *runs = world.vm(vm).runnable().is_ok();
        }
        let pages = world.config.page_refs();
        Self {
            world,
            pages: pages.map(|page| page_facts(world, page, &owned, &runs)).collect(),
            secrets: set(|place| machine.memory[place].is_secret()),
            host_reaches: set(|place| machine.reaches(place)),
            nobodys,
            of_vm,
            owned,
        }
    }

    /// Pages that are their owner's alone. One whose steps are under way shows another state.
    pub(crate) fn quiet(&self) -> impl Iterator<Item = &PageFacts> {
        self.pages
            .iter()
            .filter(|page| matches!(page.state, PageState::Private | PageState::Replica))
    }

    /// Pages of guests that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = &PageFacts> {
        self.pages.iter().filter(|page| page.runs)
    }

    /// The frames that a page owns.
    pub(crate) fn of_page(&self, page: PageRef) -> Places {
        self.owned.by_page[page.index()]
    }

    /// What only the checker knows of a page.
    pub(crate) fn ghost(&self, page: &PageFacts) -> &Ghost {
        self.world.ghost(page.page)
    }
}

fn index(vm: VmNumber, gfn: Gfn) -> usize {
    usize::from(vm.0) * VM_PAGES + usize::try_from(gfn.number()).unwrap_or(PAGES)
}

fn page_facts(world: &World<'_>, page: PageRef, owned: &Owned, runs: &[bool; VMS]) -> PageFacts {
    let [control, ..] = world.words(page);
    let (frame, at) = (control >> FRAME_SHIFT, page.index());
    let frame = if frame < FRAMES as u64 { 1 << frame } else { 0 };
    let place = |place: Option<Phys>| place.map_or(0, |place| 1 << place.index());
    let remembered = world.machine.tlbs.iter().map(|tlb| place(tlb.guest[at]));
    PageFacts {
        page,
        state: world.state(page),
        busy: is_busy(control),
        runs: runs[usize::from(page.vm)],
        frame,
        reaches: remembered.fold(place(world.machine.guest_table[at]), |all, one| all | one),
        owns_frame: owned.by_page[at] & frame != 0,
        quarantined: owned.quarantined[at] & frame != 0,
    }
}

/// Where a row's first word names the frame.
const FRAME_SHIFT: u32 = 24;
