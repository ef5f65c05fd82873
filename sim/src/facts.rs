//! What is so in a state, gathered once for all invariants: pages, frames, and who reaches what.
//!
//! Sets of places are bits, a frame or a place of the pool each, in the order of [`Phys::at`].

use view_core::{Ownership, PageState, VmNumber};

use crate::event::{PageRef, Phys};
use crate::host::gfn;
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
    /// Whose its frame is.
    pub(crate) owner: Option<Ownership>,
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
    /// Frames that each page owns.
    of_page: [Places; PAGES],
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
        let frames = usize::from(world.config.frames);
        let owners: [Option<Ownership>; FRAMES] = std::array::from_fn(|frame| {
            (frame < frames).then(|| world.ownership(u8::try_from(frame).unwrap_or(u8::MAX)))
        });
        let nobodys = |place: usize| match owners.get(place) {
            Some(owner) => matches!(owner, Some(Ownership::Free | Ownership::Offered(..))),
            None => machine.replica_of[place - FRAMES].is_none(),
        };
        let mut runs = [false; VMS];
        for (vm, runs) in (0..).zip(&mut runs) {
            *runs = world.vm(vm).runnable().is_ok();
        }
        let known = (&owners, &runs);
        let (mut of_vm, mut of_page) = ([0; VMS], [0; PAGES]);
        for (frame, owner) in owners.iter().enumerate() {
            if let Some(Ownership::Owned(vm, gfn)) = owner {
                let (vm, gfn) = (usize::from(vm.0), usize::try_from(gfn.number()).unwrap_or(PAGES));
                of_vm[vm] |= 1 << frame;
                of_page[vm * VM_PAGES + gfn] |= 1 << frame;
            }
        }
        Self {
            world,
            pages: world.config.page_refs().map(|page| page_facts(world, page, known)).collect(),
            secrets: set(|place| machine.memory[place].is_secret()),
            host_reaches: set(|place| machine.reaches(place)),
            nobodys: set(nobodys),
            of_vm,
            of_page,
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
        self.of_page[page.index()]
    }

    /// What only the checker knows of a page.
    pub(crate) fn ghost(&self, page: &PageFacts) -> &Ghost {
        self.world.ghost(page.page)
    }
}

impl PageFacts {
    /// Whether its frame is its own, in this way.
    pub(crate) fn is_its(&self, owner: fn(VmNumber, view_core::Gfn) -> Ownership) -> bool {
        let vm = VmNumber(u16::from(self.page.vm));
        self.owner == Some(owner(vm, gfn(self.page)))
    }
}

fn page_facts(
    world: &World<'_>,
    page: PageRef,
    (owners, runs): (&[Option<Ownership>; FRAMES], &[bool; VMS]),
) -> PageFacts {
    let [control, ..] = world.words(page);
    let frame = usize::try_from(control >> 24).unwrap_or(PLACES);
    let reaches = world.machine.guest_reaches(page);
    PageFacts {
        page,
        state: world.state(page),
        busy: is_busy(control),
        runs: runs[usize::from(page.vm)],
        frame: if frame < FRAMES { 1 << frame } else { 0 },
        reaches: reaches.fold(0, |places, place| places | 1 << place.index()),
        owner: owners.get(frame).copied().flatten(),
    }
}
