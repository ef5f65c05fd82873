//! A launched VM of the shipped core, made anew for each event of a study.

use view_core::whitelist::{Lease, Leases};
use view_core::{
    Act, Batch, Epoch, Frame, Frames, Gfn, Mask, Owner, Platform, Receipt, Refused, Slot, Vm,
    VmConfig, VmNumber,
};

use crate::obliging::Obliging;

/// The page with this number.
pub(super) fn gfn(number: u64) -> Gfn {
    Gfn::new(number).expect("small")
}

/// The frame with this number.
pub(super) fn frame(number: u64) -> Frame {
    Frame::new(number).expect("small")
}

/// A VM whose page `n` is in frame `frames[n]`.
pub(super) fn launched<'s>(
    number: u16,
    frames: &[u8],
    (slots, owners, leases): (&'s [Slot], &'s [Owner], &'s [Lease]),
    masks: &'s [Mask<'s>],
) -> Vm<'s> {
    let vm = Vm::new(VmConfig {
        number: VmNumber(number),
        epoch: Epoch(1),
        pages: frames.len() as u64,
        slots,
        frames: Frames::new(owners),
        leases: Leases::new(leases),
        masks,
        replicas_max: 1,
    });
    let vm = vm.expect("rows of its own");
    vm.launch().expect("nothing is being built");
    for (page, number) in vm.gfns().zip(frames) {
        let frame = frame((*number).into());
        vm.frames().offer(frame, vm.number(), page).expect("a free frame");
        act(&vm, page, Act::Accept(frame), &mut Obliging).expect("offered to it");
    }
    vm
}

/// What the owner or the trusted side does to a page, carried out.
pub(super) fn act<P: Platform>(
    vm: &Vm<'_>,
    page: Gfn,
    act: Act,
    platform: &mut P,
) -> Result<Receipt, Refused> {
    let mut batch = Batch::<1>::new();
    let plan = vm.claim(page).expect("nobody else is there").act(act)?;
    assert!(batch.push(plan).is_ok(), "the batch is empty");
    let receipts = batch.run(platform).ok().expect("the platform never fails");
    let receipt = receipts.iter().next().expect("a plan was carried out");
    receipts.commit();
    Ok(receipt)
}
