//! A monitor with a hypervisor and guests that tests play: whoever is to run reaches memory through
//! the tables that the monitor has for it, and comes out where a CPU would.

use std::collections::BTreeMap;
use std::ops::Range;

use frontend_bare::desk::{TABLE_FRAMES, withhold};
use frontend_bare::exit_code::ExitCode;
use frontend_bare::general::General;
use frontend_bare::memory::HostMemory;
use frontend_bare::monitor::{Action, End, Monitor, Setting};
use frontend_bare::msr::Offered;
use frontend_bare::pool::Pool;
use frontend_bare::ports::Ports;
use frontend_bare::switched::{Extended, Switched};
use frontend_bare::table::{Levels, NestedTable};
use frontend_bare::veiled::Storage;
use frontend_bare::views::Views;
use frontend_bare::vmcb::{Event, EventKind, Intercept, StateSaveArea, Vmcb, efer};
use view_core::key::RootKey;
use view_core::whitelist::Lease;
use view_core::{Frame, Frames, Owner, Ownership, Page, Slot};
use zerocopy::IntoBytes;

use crate::machine::Mock;

/// How many pages a guest of these tests can have.
pub(crate) const GUEST_PAGES_MAX: usize = 64;

/// Frames that are no memory but a device's.
pub(crate) const DEVICE: Range<u64> = 0x1e0..0x200;

/// Bits of what a nested page fault says.
const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const FINAL: u64 = 1 << 32;

/// What a machine has.
#[derive(Clone, Debug)]
pub(crate) struct Size {
    pub(crate) frames: u64,
    /// The monitor's frames.
    pub(crate) own: Range<u64>,
    /// Those of them that are for tables, at the end.
    pub(crate) tables: u64,
}

impl Size {
    /// As much as tests of one thing need: two large pages of the hypervisor's, and the monitor.
    pub(crate) const COMMON: Self = Self { frames: 1536, own: 1024..1344, tables: 300 };
}

/// Why an access did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Whoever ran has an exception for it.
    Raised(u8),
    /// A guest ran, and the hypervisor has to see to it now.
    Left,
}

/// A monitor, and what is above it.
pub(crate) struct Rig {
    pub(crate) machine: Mock,
    monitor: Box<Monitor<'static>>,
    owners: &'static [Owner],
    /// Whether the CPU says where instructions end.
    pub(crate) says_next: bool,
    /// The block that was entered last.
    entered: u64,
    /// What the hypervisor keeps of its guests' registers, by their blocks.
    kept: BTreeMap<u64, (General, Extended)>,
    pub(crate) ended: Option<End>,
}

fn leaked<T>(count: usize, make: impl Fn() -> T) -> &'static [T] {
    Vec::leak((0..count).map(|_| make()).collect())
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::of(&Size::COMMON)
    }

    pub(crate) fn of(size: &Size) -> Self {
        let mut machine = Mock::new(size.frames, size.own.clone());
        let tables = size.own.end - size.tables..size.own.end;
        let mut pool: Pool<TABLE_FRAMES> =
            Pool::new(tables.map(|number| Frame::new(number).unwrap()));
        let mut table = || NestedTable::new(&mut machine, &mut pool, Levels::Four).unwrap();
        let (host, shadow) = (table(), table());
        let owners = leaked(usize::try_from(size.frames).unwrap(), Owner::new);
        withhold(owners, |number| !DEVICE.contains(&number));
        let storage =
            || Storage { slots: leaked(GUEST_PAGES_MAX, Slot::new), leases: leaked(4, Lease::new) };
        let setting = Setting {
            views: Views::new(host, pool),
            shadow,
            owners,
            frames_end: size.frames,
            storage: std::array::from_fn(|_| storage()),
            root_key: RootKey::new([7; 32]),
            asids: 16,
            address_bits: 40,
            msrs: Offered { efer: HYPERVISOR_EFER & !efer::LMA, x2apic: false },
            ports: Ports::default(),
        };
        let monitor = Box::new(Monitor::new(setting, hypervisor(), Switched::initial()));
        let (kept, ended) = (BTreeMap::new(), None);
        let says_next = false;
        let mut rig = Self { machine, monitor, owners, says_next, entered: 0, kept, ended };
        rig.write_msr(0xc000_0080, HYPERVISOR_EFER | efer::SVME);
        rig
    }

    /// Whoever is to run, with its registers.
    pub(crate) fn cpu(&mut self) -> (&mut Vmcb, &mut Switched) {
        let (vmcb, switched) = self.monitor.next(&mut self.machine);
        match vmcb.control.tlb_control {
            0 => {}
            1 => self.machine.forget(),
            other => panic!("TLB_CONTROL {other}"),
        }
        vmcb.control.tlb_control = 0;
        (vmcb, switched)
    }

    fn tables(&mut self) -> (u32, u64) {
        let control = &self.cpu().0.control;
        (control.asid, control.nested_cr3 >> 12)
    }

    /// Whether a guest runs.
    pub(crate) fn is_in_guest(&mut self) -> bool {
        self.tables().0 != 1
    }

    /// The root of the tables that whoever runs is on.
    pub(crate) fn root(&mut self) -> u64 {
        self.tables().1
    }

    pub(crate) fn owner(&self, frame: u64) -> Option<Ownership> {
        Frames::new(self.owners).owner(Frame::new(frame).unwrap())
    }

    /// Whether a frame belongs to some guest that was launched.
    pub(crate) fn is_owned(&self, frame: u64) -> bool {
        matches!(self.owner(frame), Some(Ownership::Owned(..)))
    }

    /// Whoever runs comes out.
    pub(crate) fn exit(&mut self, code: ExitCode, infos: [u64; 2]) {
        assert_eq!(self.ended, None, "nobody runs any more");
        let was_in_guest = self.is_in_guest();
        let control = &mut self.cpu().0.control;
        control.exit_code = code.raw();
        [control.exit_info_1, control.exit_info_2] = infos;
        control.event = Event::NONE;
        if let Action::End(end) = self.monitor.on_exit(&mut self.machine) {
            self.ended = Some(end);
            self.monitor.scrub(&mut self.machine);
            return;
        }
        if was_in_guest && !self.is_in_guest() {
            let switched = &self.cpu().1;
            let kept = (switched.general.clone(), switched.extended.clone());
            self.kept.insert(self.entered, kept);
        }
        self.cpu().0.control.exit_event = Event::NONE;
    }

    /// The same by an instruction of so many bytes.
    pub(crate) fn exit_by(&mut self, by: Intercept, infos: [u64; 2], length: u64) {
        let says_next = self.says_next;
        let Vmcb { control, save } = self.cpu().0;
        if says_next {
            control.next_rip = save.rip.wrapping_add(length);
        }
        self.exit(ExitCode::By(by), infos);
    }

    /// The exception that whoever runs next finds.
    pub(crate) fn raised(&mut self) -> Option<u8> {
        let event = self.cpu().0.control.event;
        let is_exception = event.is_valid() && event.kind() == Some(EventKind::Exception);
        is_exception.then(|| event.vector())
    }

    /// Where an address of whoever runs leads.
    ///
    /// # Panics
    /// If the same access comes out over and over.
    fn access(&mut self, page: u64, write: bool) -> Result<u64, Missed> {
        for _ in 0..4 {
            let tables = self.tables();
            let fault = match self.machine.translate(tables, page, write) {
                Ok(frame) => return Ok(frame),
                Err(fault) => fault,
            };
            let present = if fault.present { PRESENT } else { 0 };
            let info = FINAL | USER | present | if write { WRITE } else { 0 };
            self.exit(ExitCode::NestedPageFault, [info, page << 12]);
            if let Some(vector) = self.raised() {
                self.cpu().0.control.event = Event::NONE;
                return Err(Missed::Raised(vector));
            }
            if self.tables().0 != tables.0 {
                return Err(Missed::Left);
            }
        }
        panic!("page {page:#x} comes out over and over, write: {write}");
    }

    fn read(&mut self, page: u64, index: usize) -> Result<u64, Missed> {
        let frame = self.access(page, false)?;
        Ok(self.machine.word(frame, index))
    }

    fn write(&mut self, page: u64, index: usize, word: u64) -> Result<(), Missed> {
        let frame = self.access(page, true)?;
        self.machine.set_word(frame, index, word);
        Ok(())
    }
}

/// The hypervisor's acts.
impl Rig {
    pub(crate) fn host_read(&mut self, frame: u64, index: usize) -> Result<u64, Missed> {
        assert!(!self.is_in_guest());
        self.read(frame, index)
    }

    pub(crate) fn host_write(&mut self, frame: u64, index: usize, to: u64) -> Result<(), Missed> {
        assert!(!self.is_in_guest());
        self.write(frame, index, to)
    }

    /// A write by which nothing changes, as kernels do it to have a page there.
    pub(crate) fn host_touch(&mut self, frame: u64) -> Result<(), Missed> {
        assert!(!self.is_in_guest());
        self.access(frame, true).map(drop)
    }

    pub(crate) fn host_read_page(&mut self, frame: u64) -> Result<Page, Missed> {
        assert!(!self.is_in_guest());
        let mut page = Page::zeroed();
        let frame = self.access(frame, false)?;
        self.machine.read(Frame::new(frame).unwrap(), &mut page);
        Ok(page)
    }

    pub(crate) fn host_write_page(&mut self, frame: u64, page: &Page) -> Result<(), Missed> {
        assert!(!self.is_in_guest());
        let frame = self.access(frame, true)?;
        self.machine.write(Frame::new(frame).unwrap(), page);
        Ok(())
    }

    /// Copies a page, as a hypervisor moves it.
    pub(crate) fn host_copy(&mut self, from: u64, to: u64) {
        let page = self.host_read_page(from).unwrap();
        self.host_write_page(to, &page).unwrap();
    }

    fn with_operand(&mut self, by: Intercept, address: u64) {
        assert!(!self.is_in_guest());
        self.cpu().0.save.rax = address;
        self.exit_by(by, [0; 2], 3);
    }

    /// VMLOAD, VMRUN or VMSAVE; the exception that it raises.
    pub(crate) fn svm(&mut self, by: Intercept, address: u64) -> Option<u8> {
        self.with_operand(by, address);
        self.raised()
    }

    /// Enters a guest as hypervisors do: with its registers, and as they were when it came out.
    /// True if it runs.
    pub(crate) fn enter(&mut self, block: u64) -> bool {
        if let Some((general, extended)) = self.kept.get(&block).cloned() {
            let switched = self.cpu().1;
            (switched.general, switched.extended) = (general, extended);
        }
        self.with_operand(Intercept::Vmload, block << 12);
        self.entered = block;
        self.with_operand(Intercept::Vmrun, block << 12);
        self.is_in_guest()
    }

    pub(crate) fn write_msr(&mut self, msr: u32, value: u64) {
        let (vmcb, switched) = self.cpu();
        (vmcb.save.rax, switched.general.rdx) = (value & 0xffff_ffff, value >> 32);
        switched.general.rcx = msr.into();
        self.exit_by(Intercept::Msr, [1, 0], 2);
    }

    pub(crate) fn read_msr(&mut self, msr: u32) -> u64 {
        self.cpu().1.general.rcx = msr.into();
        self.exit_by(Intercept::Msr, [0, 0], 2);
        let (vmcb, switched) = self.cpu();
        switched.general.rdx << 32 | vmcb.save.rax
    }

    /// A control block in the hypervisor's memory, as it finds it.
    pub(crate) fn block(&mut self, frame: u64) -> Vmcb {
        Vmcb::of_page(&self.host_read_page(frame).unwrap()).clone()
    }

    /// The same, changed.
    pub(crate) fn change_block(&mut self, frame: u64, change: impl FnOnce(&mut Vmcb)) {
        let mut page = self.host_read_page(frame).unwrap();
        change(Vmcb::of_page_mut(&mut page));
        self.host_write_page(frame, &page).unwrap();
    }

    /// What the hypervisor keeps of a guest's registers, to change them.
    pub(crate) fn kept(&mut self, block: u64) -> &mut (General, Extended) {
        self.kept.get_mut(&block).unwrap()
    }

    /// A register of those, changed.
    pub(crate) fn change_kept(&mut self, block: u64, index: usize) {
        if let Some((general, _)) = self.kept.get_mut(&block) {
            let (words, _) = general.as_mut_bytes().as_chunks_mut::<8>();
            words[index][0] ^= 1;
        }
    }

    /// A block is to serve another guest.
    pub(crate) fn forget_kept(&mut self, block: u64) {
        self.kept.remove(&block);
    }

    /// Whether some line on the console has this.
    pub(crate) fn said(&self, what: &str) -> bool {
        self.machine.console.iter().any(|line| line.contains(what))
    }
}

/// A guest's acts.
impl Rig {
    pub(crate) fn guest_read(&mut self, gfn: u64, index: usize) -> Result<u64, Missed> {
        assert!(self.is_in_guest());
        self.read(gfn, index)
    }

    pub(crate) fn guest_write(&mut self, gfn: u64, index: usize, to: u64) -> Result<(), Missed> {
        assert!(self.is_in_guest());
        self.write(gfn, index, to)
    }

    /// Puts an instruction where the guest is, and has it come out by it.
    pub(crate) fn guest_does(&mut self, bytes: &[u8], by: Intercept, infos: [u64; 2]) {
        assert!(self.is_in_guest());
        let rip = self.cpu().0.save.rip;
        let mut words = [0; 2];
        for (word, part) in words.iter_mut().zip(bytes.chunks(8)) {
            *word = part.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        for (index, word) in (rip as usize % 4096 / 8..).zip(words) {
            self.guest_write(rip >> 12, index, word).unwrap();
        }
        self.exit_by(by, infos, bytes.len() as u64);
    }

    pub(crate) fn guest_halts(&mut self) {
        self.guest_does(&[0xf4], Intercept::Hlt, [0; 2]);
    }

    /// A call of the monitor; `None` if the hypervisor runs then.
    pub(crate) fn call(&mut self, number: u64, operands: [u64; 3]) -> Option<u64> {
        assert!(self.is_in_guest());
        let rip = self.cpu().0.save.rip;
        let (vmcb, switched) = self.cpu();
        vmcb.save.rax = number;
        let general = &mut switched.general;
        [general.rbx, general.rcx, general.rdx] = operands;
        self.exit_by(Intercept::Vmmcall, [0; 2], 3);
        if !self.is_in_guest() {
            return None;
        }
        let (vmcb, switched) = self.cpu();
        assert_eq!(vmcb.save.rip, rip.wrapping_add(3));
        let general = &switched.general;
        assert_eq!([general.rbx, general.rcx, general.rdx], operands);
        // Where the next one is put.
        vmcb.save.rip = rip;
        Some(vmcb.save.rax)
    }
}

/// EFER as a 64-bit kernel has it.
const HYPERVISOR_EFER: u64 = efer::SCE | efer::LME | efer::LMA | efer::NXE;

/// A hypervisor's registers: a 64-bit kernel's.
fn hypervisor() -> StateSaveArea {
    let mut save = Vmcb::zeroed().save;
    save.efer = HYPERVISOR_EFER | efer::SVME;
    (save.cr0, save.cr3, save.cr4) = (0x8005_0033, 0x1000, 0x6f0);
    (save.rip, save.rflags) = (0x1000, 2);
    save
}
