//! What must be reached: a model in which nothing interesting happens proves nothing.

use view_core::{PageState, Perm};

use crate::bytes::{Bytes, Seal};
use crate::event::{Ask, Event, PageRef, Phys, Term};
use crate::world::World;

/// A name, and whether it is so after the last event.
pub type Sometimes = (&'static str, fn(&World<'_>) -> bool);

/// All of them. Each configuration names those that it must reach.
pub const SOMETIMES: &[Sometimes] = &[
    ("a page was filled by the management side and launched", |world| {
        committed(world, |page, ask, _| {
            ask == Ask::Launch && world.ghost(page).latest == Bytes::PUBLIC
        })
    }),
    ("a guest read its page back after it was sealed", |world| {
        committed(world, |page, ask, state| {
            let stored = world.ghost(page).latest.is_secret();
            ask == Ask::Touch && state == PageState::Private && stored
        })
    }),
    ("the management side remembered a mapping that was withdrawn", |world| {
        Phys::all().any(|place| {
            let remembered = |cpu: &crate::machine::Tlb| cpu.host[place.index()].is_some();
            world.machine.host_table[place.index()].is_none()
                && world.machine.tlbs.iter().any(remembered)
        })
    }),
    ("a forged page was refused and the VM stopped", |world| {
        committed(world, |page, ask, state| {
            let stopped = world.vm(page.vm).runnable().is_err();
            ask == Ask::Touch && state == PageState::Poisoned && stopped
        })
    }),
    ("a plan was dropped before its first step", |world| world.just.dropped == Some(false)),
    ("a batch was dropped half way", |world| world.just.dropped == Some(true)),
    ("the management side wrote to an open page", |world| {
        world.just.wrote.is_some()
            && pages(world).any(|page| {
                let open = world.ghost(page).consent == Some(Perm::ReadWrite);
                open && world.just.wrote == Some(world.frame(page))
            })
    }),
    ("a frame was given back and offered again", |world| {
        let mut kept = pages(world).filter(|page| world.state(*page) == PageState::PagedOut);
        kept.any(|page| match world.frame(page) {
            Phys::Frame(number) => {
                matches!(world.ownership(number), view_core::Ownership::Offered(..))
            }
            Phys::Replica(_) => false,
        })
    }),
    ("a page closed because its time was over", |world| {
        committed(world, |page, ask, _| {
            ask == Ask::Unshare && world.ticked && world.vm(page.vm).leases().due(1).count() == 0
        })
    }),
    ("a page closed when it was first unmapped", |world| {
        let once = Ask::Share(Perm::Read, Term::Once);
        world.config.asks.contains(&once)
            && committed(world, |page, ask, state| {
                let was_open = world.version(page) > 1;
                ask == Ask::Unmap && state == PageState::Private && was_open
            })
    }),
    ("an excluded page was exported", |world| {
        world.machine.noted.seals.iter().any(|(seal, _)| seal.terms & 1 << 6 != 0)
    }),
    ("an older page was handed over", |world| {
        handed(world, |page, seal| {
            same_page(page, seal) && u64::from(seal.label.version) < world.version(page)
        })
    }),
    ("a replica was handed over as a page", |world| {
        handed(world, |_, seal| seal.label.stream == view_core::suite::Stream::View)
    }),
    ("the sealed bytes of another page were handed over", |world| {
        handed(world, |page, seal| seal.label.gfn != page.gfn)
    }),
    ("the sealed bytes of another VM were handed over", |world| {
        handed(world, |page, seal| seal.label.vm != page.vm)
    }),
    ("the sealed bytes of an earlier life were handed over", |world| {
        handed(world, |_, seal| usize::from(seal.label.epoch) <= world.life)
    }),
    ("a platform call failed and the page was closed", |world| {
        world.just.faulted && pages(world).any(|page| world.ghost(page).closed)
    }),
    ("two batches were in flight", |world| {
        let begun = |flight: &crate::flight::Flight<'_>| flight.steps > 0;
        world.flights.iter().flatten().filter(|flight| begun(flight)).count() == 2
    }),
    ("a frame changed hands between pages", |world| {
        committed(world, |page, ask, _| {
            let Ask::PageIn(number) = ask else { return false };
            let others = pages(world).filter(|other| *other != page);
            let mut offers = others.map(|other| Event::Offer(number, other));
            let setup = world.config.setup();
            offers.any(|offer| setup.contains(&offer))
        })
    }),
    ("one fence served two pages", |world| {
        world.just.committed.len() == 2
            && world.just.committed.iter().all(|(_, ask, _)| {
                matches!(ask, Ask::Seal | Ask::PageOut | Ask::Unmap | Ask::Unshare)
            })
    }),
];

fn pages(world: &World<'_>) -> impl Iterator<Item = PageRef> + use<> {
    world.config.page_refs()
}

fn committed(world: &World<'_>, is: impl Fn(PageRef, Ask, PageState) -> bool) -> bool {
    world.just.committed.iter().any(|(page, ask, state)| is(*page, *ask, *state))
}

/// Whether a page-in that is under way has fetched such a seal.
fn handed(world: &World<'_>, is: impl Fn(PageRef, &Seal) -> bool) -> bool {
    world.just.committed.iter().any(|(page, ask, _)| {
        let fetched = world.machine.at(world.frame(*page));
        matches!(ask, Ask::PageIn(_)) && matches!(fetched, Bytes::Sealed(seal) if is(*page, &seal))
    })
}

fn same_page(page: PageRef, seal: &Seal) -> bool {
    (seal.label.vm, seal.label.gfn) == (page.vm, page.gfn)
}
