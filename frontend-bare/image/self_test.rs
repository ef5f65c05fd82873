//! The image shows on the machine that it boots on what it is for: a guest reads what it stored,
//! and whoever manages it reads sealed bytes in the same place, by the same CPU.
//!
//! Both are a few instructions in protected mode without paging; what they reach is decided by two
//! sets of nested tables, which the shipped core and the shipped platform keep.

use frontend_bare::ciphers::Ciphers;
use frontend_bare::exit_code::ExitCode;
use frontend_bare::machine::Machine;
use frontend_bare::memory::HostMemory;
use frontend_bare::platform::{BarePlatform, Staging};
use frontend_bare::pool::Pool;
use frontend_bare::switched::Switched;
use frontend_bare::table::{Levels, NestedTable};
use frontend_bare::views::Views;
use frontend_bare::vmcb::{ControlArea, Intercept, Intercepts, Segment, Vmcb, efer};
use view_core::key::{RootKey, Salt};
use view_core::whitelist::{Lease, Leases};
use view_core::{
    Act, Batch, Claim, Epoch, Frame, Frames, Gfn, Page, Perm, Plan, Refused, Request, Slot, Vm,
    VmConfig, VmId, VmNumber,
};

use crate::below::Below;
use crate::console::say;
use crate::start::OWNERS;
use crate::sys::{Cpu, Identity, own_frames, try_write_msr};

/// Frames that the test needs: for the guest, for the manager's code, and for tables and copies.
pub(crate) const FRAMES: u64 = GUEST_PAGES + 1 + POOL as u64;
const GUEST_PAGES: u64 = 2;
const POOL: usize = 24;

/// What the guest keeps, and what its manager tries to put in place of it.
const SECRET: u32 = 0x5ec2_e700;
const PLANTED: u32 = 0xbad_f00d;

/// `mov eax, [ebx]; vmmcall; mov [ebx], ecx; vmmcall; hlt`
const CODE: [u8; 11] = [0x8b, 0x03, 0x0f, 0x01, 0xd9, 0x89, 0x0b, 0x0f, 0x01, 0xd9, 0xf4];
const LOADS: u64 = 0;
const STORES: u64 = 5;

/// What a run of two instructions came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// It was done; what was loaded.
    Done(u32),
    /// Nested tables did not let it.
    Fault,
    /// Something else.
    Otherwise(ExitCode),
}

/// One small guest, or its manager.
struct Runner {
    vmcb: Vmcb,
    registers: Switched,
}

impl Runner {
    /// In protected mode without paging, its nested tables below this root.
    fn new(asid: u32, root: Frame) -> Self {
        let mut vmcb = Vmcb::zeroed();
        let control = &mut vmcb.control;
        control.intercepts =
            Intercepts::of(&[Intercept::Vmrun, Intercept::Vmmcall, Intercept::Shutdown]);
        control.asid = asid;
        control.nested_features = ControlArea::NESTED_PAGING;
        control.nested_cr3 = root.number() << 12;
        let save = &mut vmcb.save;
        let flat = |attributes| Segment { selector: 8, attributes, limit: u32::MAX, base: 0 };
        save.cs = flat(0xc9b);
        for segment in [&mut save.ds, &mut save.es, &mut save.ss, &mut save.fs, &mut save.gs] {
            *segment = flat(0xc93);
        }
        save.tr = Segment { selector: 0, attributes: 0x8b, limit: 0xffff, base: 0 };
        (save.efer, save.cr0, save.rflags) = (efer::SVME, 0x11, 2);
        (save.dr6, save.dr7, save.g_pat) = (0xffff_0ff0, 0x400, 0x0007_0406_0007_0406);
        Self { vmcb, registers: Switched::initial() }
    }

    /// Two instructions, from `rip` to the VMMCALL behind them.
    fn run(&mut self, cpu: &mut Cpu<'_>, machine: &mut Below, rip: u64, at: u64) -> Came {
        self.vmcb.save.rip = rip;
        self.registers.general.rbx = at;
        self.registers.general.rcx = u64::from(PLANTED);
        self.vmcb.control.tlb_control = u32::from(machine.take_flush());
        cpu.run(&mut self.vmcb, &mut self.registers);
        match self.vmcb.control.exit() {
            ExitCode::By(Intercept::Vmmcall) => Came::Done(self.vmcb.save.rax as u32),
            ExitCode::NestedPageFault => Came::Fault,
            other @ (ExitCode::By(_)
            | ExitCode::AvicIncompleteIpi
            | ExitCode::AvicUnaccelerated
            | ExitCode::Vmgexit
            | ExitCode::Invalid
            | ExitCode::Unknown(_)) => Came::Otherwise(other),
        }
    }
}

/// Where things are: the guest sees its pages from 0 on, the manager all of memory as it is.
struct Places {
    /// The first of the guest's frames: its code, then its secret.
    guest: u64,
    manager: u64,
}

type Bare<'b> = BarePlatform<'b, Below, POOL, 2>;

/// The test, in [`FRAMES`] frames from `first` on.
pub(crate) fn run(cpu: &mut Cpu<'_>, memory: Identity, first: u64) -> Result<(), &'static str> {
    // No CPU takes this, and the monitor goes on: the register has no upper half, if it is there.
    const PKRS: u32 = 0x6e1;
    expect(!try_write_msr(PKRS, 1 << 32), "an MSR took what it cannot")?;
    let places = Places { guest: first, manager: first + GUEST_PAGES };
    let slots = [const { Slot::new() }; 2];
    let leases = [const { Lease::new() }; 2];
    let vm = Vm::new(VmConfig {
        number: VmNumber(0),
        epoch: Epoch(1),
        pages: GUEST_PAGES,
        slots: &slots,
        frames: Frames::new(&OWNERS),
        leases: Leases::new(&leases),
        masks: &[],
        replicas_max: 1,
    })
    .map_err(|_| "the core takes no such VM")?;
    let mut machine = Below::new(memory, own_frames());
    let mut pool =
        Pool::new((places.manager + 1..first + FRAMES).filter_map(|n| Frame::new(n).ok()));
    let mut table = || NestedTable::new(&mut machine, &mut pool, Levels::Four);
    let (guest, host) = (table(), table());
    let (mut guest, host) = (guest.map_err(|_| EMPTY)?, host.map_err(|_| EMPTY)?);
    let mut views = Views::new(host, pool);
    let ciphers = Ciphers::new(&RootKey::new([7; 32]), &VmId([1; 16]), (Epoch(1), &Salt([2; 16])));
    let mut platform: Bare<'_> = BarePlatform {
        host: &mut machine,
        views: &mut views,
        guest: &mut guest,
        ciphers: &ciphers,
        masks: &[],
        staging: &mut Staging::default(),
    };
    build(&vm, &mut platform, &places)?;
    two_views(cpu, &vm, &mut platform, &places)
}

const EMPTY: &str = "no frame is left for a table";

/// Accepts and fills the guest's pages, and lets the VM run.
fn build(vm: &Vm<'_>, platform: &mut Bare<'_>, places: &Places) -> Result<(), &'static str> {
    for page in 0..GUEST_PAGES {
        let frame = number(places.guest + page)?;
        vm.frames().offer(frame, vm.number(), gfn(page)?).map_err(|_| "a frame is taken")?;
        carry_out(vm, platform, page, |claim| claim.act(Act::Accept(frame)))?;
        let mut bytes = Page::zeroed();
        match page {
            0 => bytes.bytes_mut()[..CODE.len()].copy_from_slice(&CODE),
            _ => bytes.bytes_mut()[..4].copy_from_slice(&SECRET.to_le_bytes()),
        }
        platform.host.write(frame, &bytes);
        carry_out(vm, platform, page, |claim| claim.act(Act::Launch))?;
    }
    vm.launch().map_err(|_| "the VM does not launch")?;
    // The manager's own code, where it sees it.
    let manager = number(places.manager)?;
    let mut bytes = Page::zeroed();
    bytes.bytes_mut()[..CODE.len()].copy_from_slice(&CODE);
    platform.host.write(manager, &bytes);
    let mapping = (gfn(places.manager)?, manager, Perm::Read);
    platform.views.host.map(platform.host, &mut platform.views.pool, mapping).map_err(|_| EMPTY)
}

/// One place, two views.
fn two_views(
    cpu: &mut Cpu<'_>,
    vm: &Vm<'_>,
    platform: &mut Bare<'_>,
    places: &Places,
) -> Result<(), &'static str> {
    let mut guest = Runner::new(1, platform.guest.root());
    let mut manager = Runner::new(2, platform.views.host.root());
    let (code, page) = (places.manager << 12, (places.guest + 1) << 12);
    let mut guest_loads =
        |cpu: &mut Cpu<'_>, machine: &mut Below| guest.run(cpu, machine, LOADS, 0x1000);
    expect(guest_loads(cpu, platform.host) == Came::Done(SECRET), "the guest lost its secret")?;
    let load = manager.run(cpu, platform.host, code + LOADS, page);
    expect(load == Came::Fault, "the manager reached a private page")?;
    carry_out(vm, platform, 1, |claim| claim.request(Request::Map(Perm::Read)))?;
    let Came::Done(sealed) = manager.run(cpu, platform.host, code + LOADS, page) else {
        return Err("the manager found no replica");
    };
    expect(sealed != SECRET, "the manager read the secret")?;
    let store = manager.run(cpu, platform.host, code + STORES, page);
    expect(store == Came::Fault, "the manager wrote to a replica")?;
    expect(guest_loads(cpu, platform.host) == Came::Done(SECRET), "the guest lost its secret")?;
    carry_out(vm, platform, 1, |claim| claim.request(Request::Unmap))?;
    let load = manager.run(cpu, platform.host, code + LOADS, page);
    expect(load == Came::Fault, "the manager kept a replica that was withdrawn")?;
    say(format_args!(
        "monitor: guest reads {SECRET:#x}, its manager {sealed:#x} in the same place"
    ));
    Ok(())
}

fn carry_out<'v>(
    vm: &'v Vm<'v>,
    platform: &mut Bare<'_>,
    page: u64,
    decide: impl FnOnce(Claim<'v>) -> Result<Plan<'v>, Refused>,
) -> Result<(), &'static str> {
    let claim = vm.claim(gfn(page)?).map_err(|_| "a page is held")?;
    let plan = decide(claim).map_err(|_| "the core refuses")?;
    let mut batch = Batch::<1>::new();
    batch.push(plan).map_err(|_| "a batch has no room")?;
    batch.run(platform).map_err(|_| "the platform failed")?.commit();
    Ok(())
}

fn expect(holds: bool, otherwise: &'static str) -> Result<(), &'static str> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn gfn(number: u64) -> Result<Gfn, &'static str> {
    Gfn::new(number).map_err(|_| "no such page")
}

fn number(number: u64) -> Result<Frame, &'static str> {
    Frame::new(number).map_err(|_| "no such frame")
}
