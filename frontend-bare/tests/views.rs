//! Copies that the hypervisor finds in place of pages: what they show, and that they end.

mod common;

use common::{Machine, ciphers};
use frontend_bare::memory::HostMemory;
use frontend_bare::platform::{BarePlatform, Staging};
use frontend_bare::pool::Pool;
use frontend_bare::table::{Levels, NestedTable};
use frontend_bare::views::{ViewFault, Views};
use view_core::{
    Field, Frame, Gfn, Mask, MaskId, PAGE_SIZE, Page, Perm, Platform, Target, View, VmNumber, What,
};

const MASKS: &[Mask<'_>] = &[Mask(&[Field::fixed::<8, 8>()])];
const POOL: u64 = 12;

fn target(page: u64) -> Target {
    Target { vm: VmNumber(0), gfn: Gfn::new(page).unwrap(), frame: Frame::new(page).unwrap() }
}

/// Pages 0 to 3 in frames of the same numbers, full of ones, and a platform for them.
fn with_platform<R>(
    then: impl FnOnce(&mut BarePlatform<'_, Machine, { POOL as usize }, 2>) -> R,
) -> R {
    let mut machine = Machine::new(4 + POOL);
    let mut pool = Pool::new((4..4 + POOL).map(|number| Frame::new(number).unwrap()));
    let mut guest = NestedTable::new(&mut machine, &mut pool, Levels::Four).unwrap();
    let host = NestedTable::new(&mut machine, &mut pool, Levels::Four).unwrap();
    for frame in 0..4 {
        let mut page = Page::zeroed();
        page.bytes_mut().fill(1);
        machine.write(Frame::new(frame).unwrap(), &page);
    }
    then(&mut BarePlatform {
        host: &mut machine,
        views: &mut Views::new(host, pool),
        guest: &mut guest,
        ciphers: &ciphers(),
        masks: MASKS,
        staging: &mut Staging::default(),
    })
}

fn mask(number: u8) -> What {
    What::Masked(MaskId::new(number).unwrap())
}

#[test]
fn under_a_mask_its_fields_show_and_nothing_else() {
    with_platform(|platform| {
        platform.grant(&target(0), View::Management, mask(1), Perm::ReadWrite).unwrap();
        let (at, perm) = platform.views.host.find(platform.host, target(0).gfn).unwrap();
        assert_eq!(perm, Perm::Read, "a copy is never to be written");
        let shown = platform.host.page(at).bytes();
        assert!(
            shown.iter().enumerate().all(|(at, byte)| *byte == u8::from((8..16).contains(&at)))
        );
        platform.grant(&target(1), View::Management, mask(2), Perm::Read).unwrap();
        let (at, _) = platform.views.host.find(platform.host, target(1).gfn).unwrap();
        assert_eq!(platform.host.page(at).bytes(), &[0; PAGE_SIZE], "there is no such mask");
    });
}

/// A CPU may still read a copy that was taken away, until it has forgotten it.
#[test]
fn a_masked_copy_ends_when_all_cpus_have_forgotten_it() {
    with_platform(|platform| {
        let free = platform.views.pool.left();
        platform.grant(&target(0), View::Management, mask(1), Perm::Read).unwrap();
        let (at, _) = platform.views.host.find(platform.host, target(0).gfn).unwrap();
        let taken = platform.views.pool.left();
        platform.withdraw(&target(0), View::Management).unwrap();
        assert_eq!(platform.views.host.find(platform.host, target(0).gfn), None);
        assert_eq!(platform.views.pool.left(), taken, "given away under who still reads it");
        platform.fence().unwrap();
        assert_eq!(platform.views.pool.left(), taken + 1);
        assert_eq!(platform.host.page(at).bytes(), &[0; PAGE_SIZE]);
        // Three tables of the hypervisor's stay.
        assert_eq!(platform.views.pool.left(), free - 3);
    });
}

#[test]
fn more_copies_than_there_is_room_for_are_refused() {
    with_platform(|platform| {
        for page in [0, 1] {
            platform.grant(&target(page), View::Management, mask(1), Perm::Read).unwrap();
        }
        let third = platform.grant(&target(2), View::Management, mask(1), Perm::Read);
        assert_eq!(third, Err(ViewFault::NoCopy(target(2))));
        assert_eq!(platform.views.host.find(platform.host, target(2).gfn), None);
        let replica = platform.grant(&target(3), View::Management, What::Replica, Perm::Read);
        assert_eq!(replica, Err(ViewFault::NoCopy(target(3))), "nothing was sealed");
    });
}

/// A table's frame may serve as something else next: nobody may still walk it then.
#[test]
fn tables_that_are_given_up_are_forgotten_before_their_frames_serve_again() {
    with_platform(|platform| {
        let far = |number: u64| Target { gfn: Gfn::new(number << 27).unwrap(), ..target(0) };
        let grant = |platform: &mut BarePlatform<'_, _, _, _>, page: &Target| {
            platform.grant(page, View::Owner, What::Plain, Perm::ReadWrite).unwrap();
        };
        // Three tables each.
        for number in 0..3 {
            grant(platform, &far(number));
        }
        let remembered = (target(0).frame, Perm::ReadWrite);
        platform.host.remembered.insert((View::Owner, far(0).gfn), remembered);
        grant(platform, &far(3));
        assert_eq!(platform.guest.find(platform.host, far(0).gfn), None, "given up");
        assert!(platform.host.remembered.is_empty(), "a CPU goes on with a table that is none");
    });
}
