//! The monitor: what it does when whoever runs above it comes out.
//!
//! There are two levels above: the hypervisor, and a guest of the hypervisor's. Both run by VMRUN
//! of the monitor's; the hypervisor's own VMRUN comes out and is carried out here (nested
//! virtualisation: the manual, chapter 15, where it says what each instruction does). All decisions
//! are made on the monitor's own copies; the [machine](Machine) acts.

use core::fmt;

use view_core::key::RootKey;
use view_core::{Epoch, Frame, Frames, Owner};
use zeroize::Zeroize;

use crate::desk::{Desk, HypervisorView};
use crate::exit_code::ExitCode;
use crate::hypervisor_table::HypervisorTable;
use crate::machine::Machine;
use crate::memory::ENTRIES;
use crate::msr::{Msrs, Offered};
use crate::permission_map::insisted::Whom;
use crate::permission_map::{IoMap, MsrMap};
use crate::platform::Staging;
use crate::ports::Ports;
use crate::stopped::Stopped;
use crate::switched::{Extended, Switched};
use crate::table::NestedTable;
use crate::veiled::{Storage, Veiled};
use crate::vmcb::{ControlArea, Event, EventKind, Intercept, Intercepts, TlbControl, Vmcb};

mod calls;
mod counts;
mod guest;
mod hypervisor;
mod vmrun;

pub use counts::{Cost, Counts, Work};

/// How many launched guests there can be at once.
pub const GUESTS: usize = 4;

/// What the monitor begins with.
#[derive(Debug)]
pub struct Setting<'m> {
    /// The hypervisor's view, and the frames for all tables.
    pub views: HypervisorView,
    /// A table for guests that are not launched, from the same frames.
    pub shadow: NestedTable,
    /// Who owns which frame; frames behind these are devices'.
    pub owners: &'m [Owner],
    /// How many frames there are.
    pub frames_end: u64,
    /// Room for guests.
    pub storage: [Storage<'m>; GUESTS],
    /// Where all keys come from.
    pub root_key: RootKey,
    /// How many ASIDs the CPU has: the hypervisor is told of one fewer.
    pub asids: u32,
    /// How many bits an address has.
    pub address_bits: u32,
    /// What the hypervisor is offered in MSRs.
    pub msrs: Offered,
    /// The machine's ports of power.
    pub ports: Ports,
}

/// The monitor and what it knows of both levels above it.
#[derive(Debug)]
pub struct Monitor<'m> {
    setting: Setting<'m>,
    staging: Staging,
    /// The hypervisor's control block.
    hypervisor: Vmcb,
    /// The control block of the guest that runs, or ran last.
    guest: Vmcb,
    switched: Switched,
    level: Level,
    /// MSRs as the hypervisor has them.
    msrs: Msrs,
    maps: Maps,
    /// Whose proposals the shadow has.
    shadowed: Option<(Frame, u32)>,
    launched: [Option<Launched<'m>>; GUESTS],
    /// Control blocks and roots of guests that were ended while the hypervisor ran: it learns of it
    /// when it enters them.
    ended: [Option<(Frame, Frame)>; GUESTS],
    epoch: Epoch,
    /// How many frames for tables are to be left before anything is done.
    tables_kept: usize,
    counts: Counts,
    /// How many lines were said of what is refused: a hypervisor does not flood the console.
    refusals: u32,
}

/// A launched guest, and its virtual CPU.
#[derive(Debug)]
struct Launched<'m> {
    memory: Veiled<'m>,
    /// Where the hypervisor has the control block of the virtual CPU.
    block: Frame,
    /// The root of the tables that the hypervisor had for it last.
    root: Frame,
    /// Its registers, while the hypervisor is to answer an exit.
    stopped: Option<Stopped>,
    /// With these.
    extended: Extended,
    xcr0: u64,
    breakpoints: [u64; 4],
}

/// Who runs.
#[derive(Clone, Copy, Debug)]
enum Level {
    Hypervisor,
    Guest(Entered),
}

/// What the hypervisor asked for when it entered the guest.
#[derive(Clone, Copy, Debug)]
struct Entered {
    /// Its control block.
    block: Frame,
    /// What it wants to see.
    wanted: Intercepts,
    io_map: Frame,
    msr_map: Frame,
    tables: HypervisorTable,
    /// XCR0 and DR0 to DR3 as the hypervisor left them.
    xcr0: u64,
    breakpoints: [u64; 4],
    /// Which launched guest it is, if it is one.
    launched: Option<usize>,
}

/// The maps of ports and MSRs that both levels run under.
#[derive(Debug)]
struct Maps {
    insisted_io: IoMap,
    insisted_msr: MsrMap,
    insisted_guest_msr: MsrMap,
    joined_io: IoMap,
    joined_msr: MsrMap,
    /// Whose maps were joined.
    joined: Option<(Frame, Frame)>,
}

/// What is to happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Enter whoever is next.
    Enter,
    /// Stop here: every guest's memory is scrubbed.
    End(End),
}

/// Why the monitor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The hypervisor's CPU shut down: that is how it starts anew, or breaks.
    Shutdown,
    /// The hypervisor has the machine start anew.
    Reset,
    /// The hypervisor has it sleep, or switched off.
    Off,
    /// The CPU does not take the hypervisor's control block: the monitor is wrong.
    Invalid,
    /// The hypervisor came out for a reason that nobody asked for.
    Unexpected(ExitCode),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shutdown => f.write_str("the hypervisor shut down"),
            Self::Reset => f.write_str("the hypervisor resets the machine"),
            Self::Off => f.write_str("the hypervisor puts the machine to sleep, or off"),
            Self::Invalid => f.write_str("the CPU refuses the hypervisor's control block"),
            Self::Unexpected(code) => write!(f, "the hypervisor came out by {code:?}"),
        }
    }
}

/// Exceptions that the monitor gives the hypervisor (the manual, 8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exception {
    InvalidOpcode,
    GeneralProtection,
}

impl<'m> Monitor<'m> {
    /// The hypervisor's ASID, and that of all guests.
    const HYPERVISOR_ASID: u32 = 1;
    const GUEST_ASID: u32 = 2;

    /// A monitor whose hypervisor begins with these registers.
    pub fn new(setting: Setting<'m>, save: crate::vmcb::StateSaveArea, switched: Switched) -> Self {
        let mut hypervisor = Vmcb::zeroed();
        hypervisor.save = save;
        let control = &mut hypervisor.control;
        control.intercepts = hypervisor::intercepts();
        control.asid = Self::HYPERVISOR_ASID;
        control.nested_features = ControlArea::NESTED_PAGING;
        control.nested_cr3 = setting.views.host.root().number() << 12;
        // What a guest has once it is launched, and beside that what a few pages need.
        let pages = setting.storage.iter().map(|storage| storage.slots.len()).max().unwrap_or(0);
        Self {
            staging: Staging::default(),
            hypervisor,
            guest: Vmcb::zeroed(),
            switched,
            level: Level::Hypervisor,
            msrs: Msrs::new(setting.msrs),
            maps: Maps::new(&setting.ports),
            shadowed: None,
            launched: [const { None }; GUESTS],
            ended: [None; GUESTS],
            epoch: Epoch(0),
            tables_kept: pages / ENTRIES + 16,
            counts: Counts::new(),
            refusals: 0,
            setting,
        }
    }

    /// Whom to enter, and with what.
    pub fn next<M: Machine>(&mut self, machine: &mut M) -> (&mut Vmcb, &mut Switched) {
        // What was taken from the hypervisor is taken from guests that it made alone.
        let forgets = machine.take_flush();
        if forgets {
            self.setting.shadow.clear(machine, &mut self.setting.views.pool);
        }
        self.switched.interrupts = u64::from(self.lets_interrupts_through());
        let maps = &self.maps;
        let (vmcb, io_map, msr_map) = match self.level {
            Level::Hypervisor => (&mut self.hypervisor, &maps.insisted_io, &maps.insisted_msr),
            Level::Guest(_) => (&mut self.guest, &maps.joined_io, &maps.joined_msr),
        };
        self.counts.end(machine.ticks());
        let flush = if forgets { TlbControl::FlushAll } else { TlbControl::Nothing };
        vmcb.control.tlb_control = flush as u32;
        vmcb.control.io_map = core::ptr::from_ref(io_map).addr() as u64;
        vmcb.control.msr_map = core::ptr::from_ref(msr_map).addr() as u64;
        (vmcb, &mut self.switched)
    }

    /// While the hypervisor's global flag is clear nothing comes through, and while a guest runs
    /// what the hypervisor's own flag lets through (the manual, 15.17 and 15.21.4).
    fn lets_interrupts_through(&self) -> bool {
        const RFLAGS_IF: u64 = 1 << 9;
        matches!(self.level, Level::Guest(_)) && self.hypervisor.save.rflags & RFLAGS_IF != 0
    }

    /// Whoever ran came out.
    pub fn on_exit<M: Machine>(&mut self, machine: &mut M) -> Action {
        let began = machine.ticks();
        if self.setting.views.pool.left() < self.tables_kept {
            self.keep_tables(machine);
        }
        match self.level {
            Level::Hypervisor => {
                let work = Work::Hypervisor(self.hypervisor.control.exit());
                self.counts.begin(work, began);
                self.on_hypervisor_exit(machine)
            }
            Level::Guest(entered) => {
                self.counts.begin(Work::Guest(self.guest.control.exit()), began);
                self.on_guest_exit(machine, &entered);
                Action::Enter
            }
        }
    }

    /// Before anything needs a table: where few frames are left for tables, those are given up that
    /// are made again when somebody asks. So no launched guest is stopped for what others use.
    fn keep_tables<M: Machine>(&mut self, machine: &mut M) {
        let Setting { views, shadow, .. } = &mut self.setting;
        shadow.clear(machine, &mut views.pool);
        if views.pool.left() < self.tables_kept {
            views.host.clear(machine, &mut views.pool);
        }
        machine.flush();
    }

    /// How often either level came out, why, and what that cost.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Scrubs every launched guest's memory. Nothing may run afterwards.
    pub fn scrub<M: Machine>(&mut self, machine: &mut M) {
        for number in 0..GUESTS {
            self.end_guest(machine, number);
        }
        // What was switched last may have been a guest's.
        self.guest.zeroize();
        self.switched.general.zeroize();
        self.switched.extended.zeroize();
    }

    fn end_guest<M: Machine>(&mut self, machine: &mut M, number: usize) {
        if let Some(guest) = self.launched.get_mut(number).and_then(Option::take) {
            guest.memory.end(&mut self.desk(machine));
        }
    }

    fn desk<'d, M: Machine>(&'d mut self, machine: &'d mut M) -> Desk<'d, 'm, M> {
        desk(&mut self.setting, &mut self.staging, machine)
    }

    /// Says that something is refused, unless that was said too often.
    fn refuse<M: Machine>(&mut self, machine: &mut M, line: fmt::Arguments<'_>) {
        const MOST: u32 = 200;
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= MOST {
            machine.say(format_args!("monitor: refused: {line}"));
        }
    }

    /// The hypervisor goes on behind the instruction that it came out by.
    fn skip(&mut self, bytes: u64) {
        let Vmcb { control, save } = &mut self.hypervisor;
        let is_told = control.next_rip > save.rip;
        save.rip = if is_told { control.next_rip } else { save.rip.wrapping_add(bytes) };
        control.interrupt_state &= !ControlArea::INTERRUPT_SHADOW;
    }

    fn raise(&mut self, exception: Exception) {
        let (vector, error_code) = match exception {
            Exception::InvalidOpcode => (6, None),
            Exception::GeneralProtection => (13, Some(0)),
        };
        self.hypervisor.control.event = Event::new(EventKind::Exception, vector, error_code);
    }

    /// STGI and CLGI without a CPU that has virtual ones: while the flag is clear, physical
    /// interrupts are held back by the monitor's own flag (the manual, 15.21.4).
    fn set_interrupts(&mut self, on: bool) {
        use crate::vmcb::VirtualInterrupt;
        let control = &mut self.hypervisor.control;
        control.virtual_interrupt = control.virtual_interrupt.with(VirtualInterrupt::MASKING, !on);
    }
}

fn desk<'d, 'm, M: Machine>(
    setting: &'d mut Setting<'m>,
    staging: &'d mut Staging,
    machine: &'d mut M,
) -> Desk<'d, 'm, M> {
    Desk { machine, views: &mut setting.views, staging, owners: setting.owners }
}

impl<'m> Setting<'m> {
    /// Who owns which frame.
    const fn frames(&self) -> Frames<'m> {
        Frames::new(self.owners)
    }
}

impl Maps {
    fn new(ports: &Ports) -> Self {
        let mut maps = Self {
            insisted_io: IoMap::empty(),
            insisted_msr: MsrMap::empty(),
            insisted_guest_msr: MsrMap::empty(),
            joined_io: IoMap::empty(),
            joined_msr: MsrMap::empty(),
            joined: None,
        };
        maps.insisted_io.insist_all();
        ports.to_insist_on().for_each(|port| maps.insisted_io.insist(port));
        maps.insisted_msr.insist_against(Whom::Hypervisor);
        maps.insisted_guest_msr.insist_against(Whom::Guest);
        maps
    }
}

/// What neither level does unseen, whatever the hypervisor wants.
const OF_BOTH: [Intercept; 13] = [
    Intercept::Init,
    Intercept::Invd,
    Intercept::Io,
    Intercept::Msr,
    Intercept::Shutdown,
    Intercept::Vmrun,
    Intercept::Vmmcall,
    Intercept::Vmload,
    Intercept::Vmsave,
    Intercept::Stgi,
    Intercept::Clgi,
    Intercept::Skinit,
    Intercept::Invlpga,
];

/// What no guest does unseen.
fn insisted_of_guests() -> Intercepts {
    let of_guests = [Intercept::Intr, Intercept::Nmi, Intercept::Smi];
    Intercepts::of(&OF_BOTH).or(Intercepts::of(&of_guests))
}
