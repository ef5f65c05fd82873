//! Starts an unmodified Linux above the monitor, out of the module that the loader brought along,
//! and stays beneath it until it ends.

use core::ops;

use frontend_bare::desk::{TABLE_FRAMES, withhold};
use frontend_bare::linux::{self, Bytes, Files, Header, Machine, NoPlace, NotLinux, Plan};
use frontend_bare::machine::Machine as _;
use frontend_bare::monitor::{Action, End, Monitor, Setting};
use frontend_bare::msr::Offered;
use frontend_bare::payload::{self, NotAPayload};
use frontend_bare::pool::Pool;
use frontend_bare::start_info::{Module, RANGES_MAX, Range, StartInfo};
use frontend_bare::switched::Switched;
use frontend_bare::table::{Levels, NestedTable};
use frontend_bare::veiled::Storage;
use frontend_bare::views::Views;
use frontend_bare::vmcb::Vmcb;
use heapless::Vec;
use view_core::key::RootKey;
use view_core::whitelist::Lease;
use view_core::{Frame, Owner, Slot};

use crate::below::Below;
use crate::console::say;
use crate::guards;
use crate::sys::{Cpu, Identity, copied, own_frames, random};

/// The most memory that the monitor was built for: 2 GiB.
const FRAMES: usize = 1 << 19;
/// The most pages that a guest can have: 64 MiB.
const GUEST_PAGES: usize = 1 << 14;
/// The most pages that it can have open.
const OPEN_PAGES: usize = 64;

/// Who owns which frame of this machine.
pub(crate) static OWNERS: [Owner; FRAMES] = [const { Owner::new() }; FRAMES];
static SLOTS: [[Slot; GUEST_PAGES]; frontend_bare::monitor::GUESTS] =
    [const { [const { Slot::new() }; GUEST_PAGES] }; frontend_bare::monitor::GUESTS];
static LEASES: [[Lease; OPEN_PAGES]; frontend_bare::monitor::GUESTS] =
    [const { [const { Lease::new() }; OPEN_PAGES] }; frontend_bare::monitor::GUESTS];

/// Why nothing was started.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NotStarted {
    /// The module is no payload.
    Payload(NotAPayload),
    /// Its kernel is none.
    Kernel(NotLinux),
    /// There is no place for it.
    Place(NoPlace),
    /// There is more memory than the monitor was built for, in frames.
    TooMuchMemory(u64),
    /// The CPU has no source of randomness, from which keys could come.
    NoRandom,
}

impl core::fmt::Display for NotStarted {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Payload(why) => write!(f, "the module is no payload: {why}"),
            Self::Kernel(why) => write!(f, "the payload's kernel is none: {why:?}"),
            Self::Place(NoPlace::NoRoom { part, size }) => {
                write!(f, "{size} bytes of memory in one piece are needed for the {part:?}")
            }
            Self::Place(why) => write!(f, "the payload has no place: {why:?}"),
            Self::TooMuchMemory(frames) => {
                write!(f, "{frames} frames of memory, {FRAMES} at most")
            }
            Self::NoRandom => f.write_str("this CPU has no RDRAND, from which keys could come"),
        }
    }
}

/// The module that the loader brought along, if it did.
pub(crate) fn module(info: &StartInfo) -> Option<Module> {
    (info.modules > 0).then(|| copied::<Module>(info.module_list)).flatten()
}

/// Starts what is in the module, and comes back when it has ended.
#[inline(never)] // its frame holds keys, and is wiped when it is left
pub(crate) fn run(
    cpu: &mut Cpu<'_>,
    (info, module): (&StartInfo, &Module),
    found: &guards::Machine,
) -> Result<End, NotStarted> {
    if !found.random {
        return Err(NotStarted::NoRandom);
    }
    let ranges = ranges(info);
    let frames_end = ranges.iter().filter_map(Range::frames).map(|range| range.end).max();
    let frames_end = frames_end.unwrap_or(0);
    if frames_end > FRAMES as u64 {
        return Err(NotStarted::TooMuchMemory(frames_end));
    }
    let memory: Vec<_, { RANGES_MAX as usize }> = ranges.iter().filter_map(Range::frames).collect();
    withhold(&OWNERS, |number| memory.iter().any(|frames| frames.contains(&number)));
    let image = own_frames();
    let own = image.start..image.end + TABLE_FRAMES as u64;
    let mut memory = Identity { end: frames_end };
    let (start, files) = place(info, module, (&ranges, own.clone()), &mut memory)?;
    say(format_args!(
        "monitor: starts a kernel of {} bytes with {} bytes beside it; frames {:#x} to {:#x} are \
         the monitor's",
        files.kernel.size,
        files.initrd.map_or(0, |initrd| initrd.size),
        own.start,
        own.end
    ));
    let mut vmcb = Vmcb::zeroed();
    start.fill(&mut vmcb.save);
    let mut switched = Switched::initial();
    switched.general.rsi = start.rsi;
    let mut below = Below::new(memory, own.clone());
    let setting = setting(&mut below, (image.end..own.end, frames_end), found);
    let mut monitor = Monitor::new(setting, vmcb.save, switched);
    let end = loop {
        let (vmcb, switched) = monitor.next(&mut below);
        cpu.run(vmcb, switched);
        if let Action::End(end) = monitor.on_exit(&mut below) {
            break end;
        }
    };
    monitor.scrub(&mut below);
    say(format_args!("monitor: {end}; work: {}", monitor.counts()));
    Ok(end)
}

fn ranges(info: &StartInfo) -> Vec<Range, { RANGES_MAX as usize }> {
    let range = |index: u32| {
        let offset = u64::from(index) * size_of::<Range>() as u64;
        copied::<Range>(info.memory_map.checked_add(offset)?)
    };
    (0..info.memory_ranges).filter_map(range).collect()
}

/// Puts kernel, initial file system and command line where they begin.
fn place(
    info: &StartInfo,
    module: &Module,
    (ranges, monitor): (&[Range], ops::Range<u64>),
    memory: &mut Identity,
) -> Result<(linux::Start, Files), NotStarted> {
    let short = NotStarted::Payload(NotAPayload::Short(module.size));
    let header = copied::<payload::Header>(module.address).ok_or(short)?;
    let header = header.checked(module.size).map_err(NotStarted::Payload)?;
    let bytes = |part: payload::Part| Bytes {
        address: module.address + part.offset(),
        size: part.length(),
    };
    let (initrd, command_line) = (bytes(header.initrd()), bytes(header.command_line()));
    let initrd = (initrd.size > 0).then_some(initrd);
    let files = Files { kernel: bytes(header.kernel()), initrd, command_line };
    let first: [u8; Header::FILE_BYTES] = copied(files.kernel.address).ok_or(short)?;
    let kernel = Header::of(&first).map_err(NotStarted::Kernel)?;
    let machine = Machine { ranges, monitor };
    let plan = Plan::of(&kernel, &files, &machine).map_err(NotStarted::Place)?;
    let start = plan.carry_out(&kernel, &machine, info.rsdp, memory).map_err(NotStarted::Place)?;
    Ok((start, files))
}

fn setting(
    below: &mut Below,
    (tables, frames_end): (ops::Range<u64>, u64),
    found: &guards::Machine,
) -> Setting<'static> {
    let mut pool = Pool::new(tables.filter_map(|number| Frame::new(number).ok()));
    let mut table = || match NestedTable::new(below, &mut pool, Levels::Four) {
        Ok(table) => table,
        Err(_) => unreachable!("there are frames for tables"),
    };
    let (host, shadow) = (table(), table());
    let halves = [random(), random()];
    let mut root_key = [0; 32];
    for (byte, from) in root_key.iter_mut().zip(halves.as_flattened()) {
        *byte = *from;
    }
    let storage = |number: usize| Storage { slots: &SLOTS[number], leases: &LEASES[number] };
    Setting {
        views: Views::new(host, pool),
        shadow,
        owners: &OWNERS,
        frames_end,
        storage: core::array::from_fn(storage),
        root_key: RootKey::new(root_key),
        asids: found.asids,
        address_bits: found.address_bits,
        msrs: Offered::of(|function, subfunction| below.cpuid(function, subfunction)),
        ports: found.ports.clone(),
    }
}
