//! Guests of the hypervisor's, and how it makes them.

use frontend_bare::calls;
use frontend_bare::exit_code::ExitCode;
use frontend_bare::vmcb::{Intercept, Intercepts, Segment, VirtualInterrupt, Vmcb, efer};

use crate::rig::Rig;

/// The hypervisor's maps of ports and MSRs, in which nothing is set.
const IO_MAP: u64 = 2;
const MSR_MAP: u64 = 5;

/// How many frames each guest takes.
const STRIDE: u64 = 32;

/// How many pages each has.
pub(crate) const PAGES: u64 = 16;

/// How many of them are its image.
pub(crate) const IMAGE: u64 = 8;

/// The page that has its code.
pub(crate) const CODE: u64 = 1;

const PRESENT_WRITABLE_USER: u64 = 7;

/// One guest: its number gives all its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guest(pub(crate) u64);

impl Guest {
    /// Where its control block is.
    pub(crate) const fn block(self) -> u64 {
        (self.0 + 1) * STRIDE
    }

    /// Table of a level, the root at level 4.
    pub(crate) const fn table(self, level: u64) -> u64 {
        self.block() + 5 - level
    }

    /// Where a page is at first.
    pub(crate) const fn frame(self, gfn: u64) -> u64 {
        self.block() + 8 + gfn
    }

    /// A frame that nobody uses.
    pub(crate) const fn spare(self, which: u64) -> u64 {
        self.block() + 8 + PAGES + which
    }
}

/// A block as a hypervisor writes it: 32-bit code without paging.
pub(crate) fn block(guest: Guest) -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let control = &mut vmcb.control;
    control.intercepts = Intercepts::of(&[
        Intercept::Intr,
        Intercept::Nmi,
        Intercept::Cpuid,
        Intercept::Hlt,
        Intercept::Io,
        Intercept::Msr,
        Intercept::Shutdown,
        Intercept::Vmrun,
        Intercept::Vmmcall,
        Intercept::Xsetbv,
    ]);
    (control.io_map, control.msr_map) = (IO_MAP << 12, MSR_MAP << 12);
    control.nested_cr3 = guest.table(4) << 12;
    (control.asid, control.tlb_control) = (1 + guest.0 as u32, 1);
    control.virtual_interrupt = VirtualInterrupt(VirtualInterrupt::MASKING);
    control.nested_features = 1;
    let save = &mut vmcb.save;
    (save.efer, save.cr0) = (efer::SVME, 0x11);
    (save.dr6, save.dr7, save.rflags, save.rip) = (0xffff_0ff0, 0x400, 2, CODE << 12);
    save.g_pat = 0x0007_0406_0007_0406;
    save.cs = Segment { selector: 8, attributes: 0xc9b, limit: u32::MAX, base: 0 };
    vmcb
}

/// How a hypervisor makes guests.
impl Rig {
    /// Writes the guest's image, its tables and its control block.
    pub(crate) fn make(&mut self, guest: Guest) -> Guest {
        for level in 2..=4 {
            let entry = guest.table(level - 1) << 12 | PRESENT_WRITABLE_USER;
            self.host_write(guest.table(level), 0, entry).unwrap();
        }
        for gfn in 0..PAGES {
            self.propose(guest, gfn, guest.frame(gfn));
        }
        for gfn in 0..IMAGE {
            self.host_write(guest.frame(gfn), 511, gfn + 0x100).unwrap();
        }
        self.host_write_page(guest.block(), block(guest).as_page()).unwrap();
        guest
    }

    /// Maps a page of a guest.
    pub(crate) fn propose(&mut self, guest: Guest, gfn: u64, frame: u64) {
        self.propose_entry(guest, gfn, frame << 12 | PRESENT_WRITABLE_USER);
    }

    pub(crate) fn propose_entry(&mut self, guest: Guest, gfn: u64, entry: u64) {
        let index = usize::try_from(gfn).unwrap();
        self.host_write(guest.table(1), index, entry).unwrap();
    }

    /// Makes a guest, enters it, and has it launched.
    pub(crate) fn launched(&mut self, number: u64) -> Guest {
        let guest = self.make(Guest(number));
        assert!(self.enter(guest.block()));
        assert_eq!(self.launch(), Some(0));
        guest
    }

    pub(crate) fn launch(&mut self) -> Option<u64> {
        self.call(calls::LAUNCH, [0, IMAGE, PAGES])
    }

    /// A launched guest that is stopped at an exit of its hypervisor's, with a secret in a page.
    pub(crate) fn with_secret(&mut self, number: u64, gfn: u64, secret: u64) -> Guest {
        let guest = self.launched(number);
        self.guest_write(gfn, 0, secret).unwrap();
        self.interrupt();
        guest
    }

    /// An interrupt of the hypervisor's comes while a guest runs.
    pub(crate) fn interrupt(&mut self) {
        assert!(self.is_in_guest());
        self.exit(ExitCode::By(Intercept::Intr), [0; 2]);
        assert!(!self.is_in_guest());
    }

    /// Why the guest came out, as the hypervisor finds it.
    pub(crate) fn exit_code(&mut self, guest: Guest) -> ExitCode {
        self.block(guest.block()).control.exit()
    }

    /// Whether all frames that a guest began with are zero and nobody's.
    pub(crate) fn is_scrubbed(&self, guest: Guest) -> bool {
        (0..PAGES).all(|gfn| {
            let frame = guest.frame(gfn);
            let zero = self.machine.page(frame).is_some_and(|page| page.bytes() == &[0; 4096]);
            zero && !self.is_owned(frame)
        })
    }
}

/// An exit of a guest that is no more.
pub(crate) const SHUT_DOWN: ExitCode = ExitCode::By(Intercept::Shutdown);
