//! Which ports and MSRs the monitor intercepts whatever the hypervisor wants, and why.
//!
//! A guest is held to all that the hypervisor is held to: else a hypervisor would have a guest do
//! what it may not do itself. What becomes of such an access is decided where exits are.

use core::ops::RangeInclusive;

use super::{IoMap, MsrAccess, MsrMap};

/// Who is not to reach something unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The hypervisor, a guest of the monitor's.
    Hypervisor,
    /// A guest of the hypervisor's.
    Guest,
}

/// Against whom a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Against {
    /// The hypervisor, and so its guests.
    Both,
    /// Guests alone.
    Guest,
}

impl Against {
    const fn concerns(self, whom: Whom) -> bool {
        match self {
            Self::Both => true,
            Self::Guest => matches!(whom, Whom::Guest),
        }
    }
}

/// What is intercepted of an MSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Writes,
    Accesses,
}

/// Some MSRs, and why not all accesses to them are let through.
struct MsrRule(RangeInclusive<u32>, What, Against, &'static str);

/// All MSRs that the monitor insists on, in order. Chapters and sections are the manual's; what is
/// called IBS and microcode is in the processor's own manual.
const MSRS: &[MsrRule] = &[
    MsrRule(
        0x1b..=0x1b,
        What::Writes,
        Against::Both,
        "APIC_BASE (16.3): puts a device over any frame, the monitor's and guests' too",
    ),
    MsrRule(
        0x1d9..=0x1d9,
        What::Writes,
        Against::Both,
        "DebugCtl (13.1.1): the CPU would note a guest's branches for the hypervisor",
    ),
    MsrRule(
        0x800..=0x8ff,
        What::Accesses,
        Against::Guest,
        "the x2APIC (chapter 16): it is the machine's, not the guest's",
    ),
    MsrRule(
        0x830..=0x830,
        What::Writes,
        Against::Both,
        "the x2APIC's interrupt command (chapter 16): starts another CPU outside the monitor",
    ),
    MsrRule(
        0xc000_0080..=0xc000_0080,
        What::Accesses,
        Against::Both,
        "EFER (3.1.7): SVM stays on while the hypervisor sees it off, and off is what KVM wants",
    ),
    MsrRule(
        0xc000_010e..=0xc000_010f,
        What::Writes,
        Against::Both,
        "branch records (13.1.1): the CPU would note a guest's branches for the hypervisor",
    ),
    MsrRule(
        0xc000_0300..=0xc000_0303,
        What::Writes,
        Against::Both,
        "counters (13.2): count a guest's events for the hypervisor",
    ),
    MsrRule(0xc001_0000..=0xc001_0007, What::Writes, Against::Both, "counters (13.2): the same"),
    MsrRule(
        0xc001_0010..=0xc001_0010,
        What::Writes,
        Against::Both,
        "SYSCFG (3.2.1): turns on encryption of memory, and changes what addresses mean",
    ),
    MsrRule(
        0xc001_0015..=0xc001_0015,
        What::Writes,
        Against::Both,
        "HWCR (15.32.1): lets nobody intercept SMIs any more",
    ),
    MsrRule(
        0xc001_0016..=0xc001_001a,
        What::Writes,
        Against::Both,
        "IORRs and TOP_MEM (7.9): lead addresses of memory to devices",
    ),
    MsrRule(
        0xc001_001d..=0xc001_001d,
        What::Writes,
        Against::Both,
        "TOP_MEM2 (7.9): the same above 4 GiB",
    ),
    MsrRule(
        0xc001_0020..=0xc001_0020,
        What::Writes,
        Against::Both,
        "the loader of microcode: changes the CPU beneath the monitor",
    ),
    MsrRule(
        0xc001_0050..=0xc001_0056,
        What::Writes,
        Against::Both,
        "traps of ports (15.22.1): enter SMM, where nobody intercepts",
    ),
    MsrRule(
        0xc001_0058..=0xc001_0058,
        What::Writes,
        Against::Both,
        "the base of PCI's configuration space: puts devices over any frame",
    ),
    MsrRule(
        0xc001_0111..=0xc001_0113,
        What::Writes,
        Against::Both,
        "SMM_BASE, SMM_ADDR, SMM_MASK (chapter 10): where code runs that nobody intercepts",
    ),
    MsrRule(
        0xc001_0114..=0xc001_0114,
        What::Accesses,
        Against::Both,
        "VM_CR (15.30.1): locks SVM, or keeps INIT from the monitor",
    ),
    MsrRule(
        0xc001_0116..=0xc001_0116,
        What::Writes,
        Against::Both,
        "SMM_CTL (15.30.3): enters and leaves SMM",
    ),
    MsrRule(
        0xc001_0117..=0xc001_0117,
        What::Accesses,
        Against::Both,
        "VM_HSAVE_PA (15.30.4): where the monitor's own state lies while it is not running",
    ),
    MsrRule(
        0xc001_0118..=0xc001_0119,
        What::Writes,
        Against::Both,
        "SVM_KEY and SMM_KEY (15.31, 15.32): unlock what firmware locked, or lock it for good",
    ),
    MsrRule(
        0xc001_011b..=0xc001_011b,
        What::Writes,
        Against::Both,
        "AVIC's doorbell (15.29): nobody is offered AVIC",
    ),
    MsrRule(0xc001_0200..=0xc001_020b, What::Writes, Against::Both, "counters (13.2): the same"),
    MsrRule(
        0xc001_0230..=0xc001_0247,
        What::Writes,
        Against::Both,
        "counters of caches (13.2): the same",
    ),
    MsrRule(
        0xc001_1019..=0xc001_101b,
        What::Writes,
        Against::Both,
        "masks of breakpoints (13.1.1): would hold for a guest's own breakpoints",
    ),
    MsrRule(
        0xc001_1027..=0xc001_1027,
        What::Writes,
        Against::Both,
        "masks of breakpoints (13.1.1): the same",
    ),
    MsrRule(
        0xc001_1030..=0xc001_103b,
        What::Writes,
        Against::Both,
        "IBS: samples a guest's addresses for the hypervisor",
    ),
];

/// Some ports, and why not all accesses to them are let through.
struct PortRule(u16, &'static str);

/// All ports that the monitor insists on. Those of sleep states are where a machine's tables say.
///
/// Four bytes at 0CF8h are an address of PCI; they touch 0CF9h, are intercepted, and go on.
const PORTS: &[PortRule] = &[
    PortRule(0x64, "the keyboard controller: resets the CPU while guests are still in memory"),
    PortRule(0x92, "system control: the same, and masks an address line for everybody"),
    PortRule(0xcf9, "reset control: resets the CPU"),
];

/// Why the monitor intercepts an access of someone's to an MSR, if it does.
pub fn why_msr(access: MsrAccess, whom: Whom) -> Option<&'static str> {
    let rule = MSRS.iter().find(|MsrRule(msrs, what, against, _)| {
        let touched = access.write || matches!(what, What::Accesses);
        touched && msrs.contains(&access.msr) && against.concerns(whom)
    });
    rule.map(|MsrRule(.., why)| *why)
}

/// Why the monitor intercepts accesses to a port, if it does.
pub fn why_port(port: u16) -> Option<&'static str> {
    PORTS.iter().find(|rule| rule.0 == port).map(|PortRule(_, why)| *why)
}

impl MsrMap {
    /// Intercepts all that the monitor insists on.
    pub fn insist_against(&mut self, whom: Whom) {
        for MsrRule(msrs, what, ..) in MSRS.iter().filter(|rule| rule.2.concerns(whom)) {
            for msr in msrs.clone() {
                self.insist(MsrAccess { msr, write: true });
                if matches!(what, What::Accesses) {
                    self.insist(MsrAccess { msr, write: false });
                }
            }
        }
    }
}

impl IoMap {
    /// Intercepts all that the monitor insists on, of the hypervisor and of guests.
    pub fn insist_all(&mut self) {
        for PortRule(port, _) in PORTS {
            self.insist(*port);
        }
    }
}
