//! What every platform must pass: the core drives it, a guest and the management side look.
//!
//! A frontend implements [`ConformingPlatform`] for its platform and calls two functions from a
//! test: [`suite`], where each case is a claim, and [`traces`](trace::traces), where the platform
//! and sim's own machine go through the same events and must show the same. What is observed
//! decides, not what the platform says of itself. That both can fail is shown by platforms that
//! are wrong on purpose ([`planted`]).

pub mod draw;
mod faulty;
mod kept;
pub mod planted;
pub mod real;
mod reference;
pub mod sound;
pub mod trace;

use std::fmt;

use view_core::suite::Stream;
use view_core::whitelist::{Doorbell, DoorbellFact, Lease, Leases, Rule};
use view_core::{
    Act, Batch, Epoch, Frame, Frames, Gfn, Owner, Perm, Plan, Platform, Request, Slot, Target, Vm,
    VmConfig, VmNumber,
};

use crate::bytes::Label;

pub use kept::Kept;

/// What the management side stores, and what it spoils sealed bytes with: the first eight bytes.
pub const PUBLIC: u64 = 9;

/// A platform whose guest and whose management side can be told to look and to store.
///
/// Pages are those of VM 0. A load or store that the view has no mapping for says so; it must not
/// ask the core for one. What is loaded is the first eight bytes of a page, stored ones are small
/// numbers above zero.
pub trait ConformingPlatform: Platform {
    /// The guest loads from its page.
    fn guest_load(&mut self, gfn: Gfn) -> Option<u64>;
    /// The guest stores to its page; whether it could.
    fn guest_store(&mut self, gfn: Gfn, value: u64) -> bool;
    /// The management side loads, by whatever it has mapped or remembers of the page.
    fn management_load(&mut self, page: &Target) -> Option<u64>;
    /// The management side stores; whether it could.
    fn management_store(&mut self, page: &Target, value: u64) -> bool;
    /// The management side spoils the sealed bytes that it will hand over for a page: it puts
    /// [`PUBLIC`] over the first eight.
    fn tamper(&mut self, gfn: Gfn);
    /// The management side will hand over sealed bytes that it was once given, of this page or of
    /// another; false if it was not given these.
    fn hand(&mut self, gfn: Gfn, seal: Label) -> bool;
}

/// A claim that a platform does not keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The claim.
    pub case: &'static str,
    /// What was seen instead.
    pub saw: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.case, self.saw)
    }
}

impl std::error::Error for Failed {}

type Case<P> = (&'static str, fn(&mut Stage<'_, P>) -> Result<(), String>);

/// Runs every case on a platform of its own, which has frames 0 and 1 for VM 0 and room for one
/// replica.
///
/// # Errors
/// The first claim that is not kept.
pub fn suite<P: ConformingPlatform>(mut fresh: impl FnMut() -> P) -> Result<usize, Failed> {
    for (case, check) in cases::<P>() {
        let mut platform = fresh();
        with_vm([2, 2, 1], |vm| {
            let mut stage = Stage { vm, platform: &mut platform };
            vm.launch().expect("no page is being built");
            stage.accept(0, 0).and_then(|()| check(&mut stage))
        })
        .map_err(|saw| Failed { case, saw })?;
    }
    Ok(cases::<P>().len())
}

/// VM 0 of the shipped core, with so many pages, frames and replicas.
fn with_vm<R>([pages, frames, replicas]: [u8; 3], then: impl FnOnce(&Vm<'_>) -> R) -> R {
    let rows = usize::from(pages);
    let slots: Vec<Slot> = (0..rows).map(|_| Slot::new()).collect();
    let owners: Vec<Owner> = (0..frames).map(|_| Owner::new()).collect();
    let leases: Vec<Lease> = (0..rows).map(|_| Lease::new()).collect();
    let config = VmConfig {
        number: VmNumber(0),
        epoch: Epoch(1),
        pages: u64::from(pages),
        slots: &slots,
        frames: Frames::new(&owners),
        leases: Leases::new(&leases),
        masks: &[],
        replicas_max: u64::from(replicas),
    };
    then(&Vm::new(config).expect("as many rows as pages"))
}

fn cases<P: ConformingPlatform>() -> [Case<P>; 9] {
    [
        ("a page starts as zeroes and its owner reads back what it stores", |stage| {
            stage.owner_sees(0, Some(0))?;
            stage.store(0, 7)?;
            stage.owner_sees(0, Some(7))?;
            stage.management_sees_neither(0, 0, &[0, 7])
        }),
        ("a mapped private page shows sealed bytes, and other ones each time", |stage| {
            stage.store(0, 7)?;
            stage.ask(0, Request::Map(Perm::Read))?;
            let first = stage.management(0, 0).ok_or("no replica was mapped")?;
            stage.ask(0, Request::Map(Perm::Read))?;
            let second = stage.management(0, 0).ok_or("no second replica was mapped")?;
            expect(first != 7 && second != 7 && first != second, "what was stored, or twice")?;
            stage.ask(0, Request::Unmap)?;
            stage.management_sees_neither(0, 0, &[7])
        }),
        ("what is written to a replica never reaches the owner", |stage| {
            stage.store(0, 7)?;
            stage.ask(0, Request::Map(Perm::Read))?;
            let page = stage.target(0, 0);
            stage.platform.management_store(&page, 9);
            stage.ask(0, Request::Unmap)?;
            stage.owner_sees(0, Some(7))
        }),
        ("an open page shows what its owner stores, until the owner closes it", |stage| {
            stage.share(0, Perm::Read)?;
            stage.store(0, 7)?;
            let seen = stage.management(0, 0);
            expect(seen == Some(7), "not the open page")?;
            let page = stage.target(0, 0);
            expect(!stage.platform.management_store(&page, 9), "a store to a page to read")?;
            stage.act(0, Act::Unshare)?;
            stage.store(0, 8)?;
            stage.management_sees_neither(0, 0, &[7, 8])?;
            stage.owner_sees(0, Some(8))
        }),
        ("what is written to an open page reaches its owner", |stage| {
            stage.share(0, Perm::ReadWrite)?;
            stage.ask(0, Request::Map(Perm::ReadWrite))?;
            let page = stage.target(0, 0);
            expect(stage.platform.management_store(&page, 9), "no store to the open page")?;
            stage.owner_sees(0, Some(9))
        }),
        ("a page that is sealed in place is gone for its owner until it is touched", |stage| {
            stage.store(0, 7)?;
            stage.ask(0, Request::Seal)?;
            stage.owner_sees(0, None)?;
            stage.management_sees_neither(0, 0, &[7])?;
            stage.act(0, Act::Touch)?;
            stage.owner_sees(0, Some(7))?;
            stage.management_sees_neither(0, 0, &[7])
        }),
        ("a page comes back in another frame as it was", |stage| {
            stage.store(0, 7)?;
            stage.page_out_and_in(1, |_| {})?;
            stage.act(0, Act::Touch)?;
            stage.owner_sees(0, Some(7))?;
            stage.management_sees_neither(0, 1, &[7])
        }),
        ("what was tampered with is given to nobody, and the VM stops", |stage| {
            stage.store(0, 7)?;
            stage.page_out_and_in(1, |platform| platform.tamper(page(0)))?;
            stage.act(0, Act::Touch)?;
            stage.owner_sees(0, None)?;
            stage.management_sees_neither(0, 1, &[7])?;
            expect(stage.vm.runnable().is_err(), "a VM that still runs")
        }),
        ("a page that ends leaves nothing in its frame for the next one", |stage| {
            stage.store(0, 7)?;
            stage.ask(0, Request::Export(Stream::Image))?;
            stage.ask(0, Request::Destroy)?;
            stage.owner_sees(0, None)?;
            stage.management_sees_neither(0, 0, &[7])?;
            stage.accept(1, 0)?;
            stage.owner_sees(1, Some(0))?;
            // Where frames are only numbers, what must be empty is the page that comes back.
            stage.ask(1, Request::Destroy)?;
            stage.accept(0, 0)?;
            stage.owner_sees(0, Some(0))
        }),
    ]
}

struct Stage<'v, P> {
    vm: &'v Vm<'v>,
    platform: &'v mut P,
}

impl<P: ConformingPlatform> Stage<'_, P> {
    fn target(&self, gfn: u64, frame: u64) -> Target {
        Target { vm: self.vm.number(), gfn: page(gfn), frame: frame_number(frame) }
    }

    fn store(&mut self, gfn: u64, value: u64) -> Result<(), String> {
        let stored = self.platform.guest_store(page(gfn), value);
        expect(stored, "a guest that cannot store to its page")
    }

    fn owner_sees(&mut self, gfn: u64, wanted: Option<u64>) -> Result<(), String> {
        let seen = self.platform.guest_load(page(gfn));
        if seen == wanted { Ok(()) } else { Err(format!("the guest saw {seen:?}, not {wanted:?}")) }
    }

    fn management(&mut self, gfn: u64, frame: u64) -> Option<u64> {
        let page = self.target(gfn, frame);
        self.platform.management_load(&page)
    }

    fn management_sees_neither(
        &mut self,
        gfn: u64,
        frame: u64,
        values: &[u64],
    ) -> Result<(), String> {
        let seen = self.management(gfn, frame);
        let leaked = seen.is_some_and(|value| values.contains(&value));
        if leaked { Err(format!("the management side saw {seen:?}")) } else { Ok(()) }
    }

    fn accept(&mut self, gfn: u64, frame: u64) -> Result<(), String> {
        let frame = frame_number(frame);
        let offered = self.vm.frames().offer(frame, self.vm.number(), page(gfn));
        offered.map_err(|frame| format!("{frame:?} is taken"))?;
        self.act(gfn, Act::Accept(frame))
    }

    fn share(&mut self, gfn: u64, perm: Perm) -> Result<(), String> {
        let perm = if perm == Perm::Read { 1 } else { 3 };
        let vm = self.vm.number();
        let fact = DoorbellFact { vm, call: Doorbell::SHARE, gfn, perm, mask: 0, expiry: 0 };
        let proposal = Doorbell.infer(self.vm, &fact).map_err(|no| format!("{no:?}"))?;
        self.act(gfn, proposal.act().1)
    }

    fn page_out_and_in(&mut self, frame: u64, then: impl FnOnce(&mut P)) -> Result<(), String> {
        self.ask(0, Request::PageOut)?;
        self.owner_sees(0, None)?;
        then(self.platform);
        let frame = frame_number(frame);
        let offered = self.vm.frames().offer(frame, self.vm.number(), page(0));
        offered.map_err(|frame| format!("{frame:?} is taken"))?;
        self.ask(0, Request::PageIn(frame))
    }

    fn ask(&mut self, gfn: u64, request: Request) -> Result<(), String> {
        let claim = self.vm.claim(page(gfn)).map_err(|busy| busy.to_string())?;
        self.carry_out(claim.request(request).map_err(|refused| refused.to_string())?)
    }

    fn act(&mut self, gfn: u64, act: Act) -> Result<(), String> {
        let claim = self.vm.claim(page(gfn)).map_err(|busy| busy.to_string())?;
        self.carry_out(claim.act(act).map_err(|refused| refused.to_string())?)
    }

    fn carry_out(&mut self, plan: Plan<'_>) -> Result<(), String> {
        let mut batch = Batch::<1>::new();
        batch.push(plan).map_err(|plan| format!("no room for {plan:?}"))?;
        let run = batch.run(self.platform);
        run.map_err(|_| "a fault of the platform".to_owned())?.commit();
        Ok(())
    }
}

fn expect(holds: bool, saw: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("saw {saw}")) }
}

fn page(number: u64) -> Gfn {
    Gfn::new(number).expect("small")
}

fn frame_number(number: u64) -> Frame {
    Frame::new(number).expect("small")
}
