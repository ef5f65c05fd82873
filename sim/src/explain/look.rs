//! One moment of a run as plain data: the only place here that looks into a world.

use view_core::{Ownership, PageState, Perm, VmNumber};

use crate::bytes::{Bytes, Seal};
use crate::event::{PageRef, Phys};
use crate::machine::{CPUS, Noted, Tlb};
use crate::world::{Ghost, Just, World};

/// Everything that a step shows.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) life: usize,
    pub(super) ticked: bool,
    pub(super) vms: Vec<VmLook>,
    pub(super) pages: Vec<PageLook>,
    pub(super) places: Vec<PlaceLook>,
    /// What each CPU remembers.
    pub(super) tlbs: Vec<Tlb>,
    /// How many steps each CPU's batch has taken.
    pub(super) flights: [Option<u8>; CPUS],
    /// How many plans each CPU's batch has.
    pub(super) plans: [usize; CPUS],
    /// Pages of batches whose platform said that what was opened is not genuine.
    pub(super) refused: Vec<PageRef>,
    /// Every seal that the management side was ever given.
    pub(super) known: Vec<Seal>,
    pub(super) just: Just,
    pub(super) noted: Noted,
}

/// One VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VmLook {
    pub(super) number: u8,
    pub(super) launched: bool,
    /// Whether the core lets its CPUs run.
    pub(super) may_run: bool,
    /// Whether the frontend lets them; a wrong one may not ask.
    pub(super) runs: bool,
}

/// One page.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageLook {
    pub(super) page: PageRef,
    pub(super) state: PageState,
    /// The frame that backs it.
    pub(super) frame: Option<Phys>,
    pub(super) version: u64,
    pub(super) busy: bool,
    pub(super) ghost: Ghost,
    pub(super) table: Option<Phys>,
    pub(super) replica: Option<Phys>,
    /// What a page-in would fetch.
    pub(super) handed: Bytes,
}

/// One frame or replica.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaceLook {
    pub(super) place: Phys,
    pub(super) bytes: Bytes,
    /// Whose frame it is; replicas have none.
    pub(super) owner: Option<Ownership>,
    /// What the management side's table allows.
    pub(super) host: Option<Perm>,
}

/// A way to reach a frame or a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    Table,
    Cpu(usize),
}

impl Look {
    /// Looks at a world.
    pub(super) fn at_world(world: &World<'_>) -> Self {
        let vms = (0_u8..).zip(world.config.pages).map(|(number, _)| VmLook {
            number,
            launched: world.launched[usize::from(number)],
            may_run: world.vm(number).runnable().is_ok(),
            runs: world.runs(number),
        });
        Self {
            life: world.life,
            ticked: world.ticked,
            vms: vms.collect(),
            pages: world.config.page_refs().map(|page| page_look(world, page)).collect(),
            places: Phys::all().filter_map(|place| place_look(world, place)).collect(),
            tlbs: world.machine.tlbs.to_vec(),
            flights: std::array::from_fn(|cpu| {
                world.flights[cpu].as_ref().map(|flight| flight.steps)
            }),
            plans: std::array::from_fn(|cpu| {
                world.flights[cpu].as_ref().map_or(0, |flight| flight.asks.len())
            }),
            refused: refused(world),
            known: world.machine.known.to_vec(),
            just: world.just.clone(),
            noted: world.machine.noted.clone(),
        }
    }

    pub(super) fn page(&self, page: PageRef) -> &PageLook {
        let found = self.pages.iter().find(|look| look.page == page);
        found.expect("events name pages that there are")
    }

    pub(super) fn vm(&self, number: u8) -> &VmLook {
        let found = self.vms.iter().find(|look| look.number == number);
        found.expect("pages belong to VMs that there are")
    }

    /// A frame or replica within the configuration's bounds.
    pub(super) fn place(&self, place: Phys) -> Option<&PlaceLook> {
        self.places.iter().find(|look| look.place == place)
    }

    pub(super) fn bytes(&self, place: Phys) -> Bytes {
        self.place(place).map_or(Bytes::PUBLIC, |look| look.bytes)
    }

    /// What the management side may do with a place, by table or by what a CPU remembers.
    pub(super) fn host(&self, place: Phys, via: Via) -> Option<Perm> {
        match via {
            Via::Table => self.place(place)?.host,
            Via::Cpu(cpu) => self.tlbs[cpu].host[place.index()],
        }
    }

    /// Where a guest finds its page, by table or by what a CPU remembers.
    pub(super) fn guest(&self, page: PageRef, via: Via) -> Option<Phys> {
        match via {
            Via::Table => self.page(page).table,
            Via::Cpu(cpu) => self.tlbs[cpu].guest[page.index()],
        }
    }

    /// The table and every CPU.
    pub(super) fn vias(&self) -> impl Iterator<Item = Via> + use<> {
        [Via::Table].into_iter().chain((0..self.tlbs.len()).map(Via::Cpu))
    }

    /// Whether a CPU remembers more of a place than the management side's table says.
    pub(super) fn host_is_stale(&self, place: Phys, via: Via) -> bool {
        via != Via::Table && self.host(place, via) > self.host(place, Via::Table)
    }

    /// Whether a CPU finds a page where its table does not say.
    pub(super) fn guest_is_stale(&self, page: PageRef, via: Via) -> bool {
        let found = self.guest(page, via);
        found.is_some() && found != self.guest(page, Via::Table)
    }

    pub(super) fn host_vias(&self, place: Phys) -> impl Iterator<Item = Via> + '_ {
        self.vias().filter(move |via| self.host(place, *via).is_some())
    }

    pub(super) fn guest_vias(&self, page: PageRef) -> impl Iterator<Item = (Via, Phys)> + '_ {
        self.vias().filter_map(move |via| Some((via, self.guest(page, via)?)))
    }

    /// Whether this frame is owned by this page.
    pub(super) fn owns(&self, page: PageRef, place: Phys) -> bool {
        let owner = self.place(place).and_then(|look| look.owner);
        owner.is_some_and(|owner| is_owned(owner, page))
    }
}

fn refused(world: &World<'_>) -> Vec<PageRef> {
    let refused = world.flights.iter().flatten().filter(|flight| flight.was_refused());
    refused.flat_map(|flight| &flight.asks).map(|asked| asked.page).collect()
}

fn page_look(world: &World<'_>, page: PageRef) -> PageLook {
    let state = world.state(page);
    PageLook {
        page,
        state,
        frame: frame_of(world, page, state),
        version: world.version(page),
        busy: world.is_busy(page),
        ghost: *world.ghost(page),
        table: world.machine.guest_table[page.index()],
        replica: world.machine.replica(page),
        handed: world.machine.handed[page.index()],
    }
}

/// A row says where its page is while nobody holds it; then the table of frames does.
fn frame_of(world: &World<'_>, page: PageRef, state: PageState) -> Option<Phys> {
    if world.is_busy(page) {
        let mut frames = 0..world.config.frames;
        let owned = frames.find(|number| is_owned(world.ownership(*number), page));
        return owned.map(Phys::Frame);
    }
    let framed = !matches!(state, PageState::Free | PageState::PagedOut);
    framed.then(|| world.frame(page))
}

fn is_owned(owner: Ownership, by: PageRef) -> bool {
    let (vm, gfn) = (u16::from(by.vm), u64::from(by.gfn));
    matches!(owner, Ownership::Owned(VmNumber(of), number)
        if of == vm && number.number() == gfn)
}

fn place_look(world: &World<'_>, place: Phys) -> Option<PlaceLook> {
    let owner = match place {
        Phys::Frame(number) if number < world.config.frames => Some(world.ownership(number)),
        Phys::Replica(number) if number < world.config.replicas => None,
        Phys::Frame(_) | Phys::Replica(_) => return None,
    };
    let host = world.machine.host_table[place.index()];
    Some(PlaceLook { place, bytes: world.machine.at(place), owner, host })
}
