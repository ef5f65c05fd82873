//! What a hypervisor may ask for once its guest is launched: which of the guest's acts it sees, and
//! what it may throw at it.

use view_core::registers::Exit;

use crate::vmcb::{ControlArea, Event, EventKind, Intercept, Intercepts, VirtualInterrupt};

/// What makes exits of a launched guest, whatever its hypervisor wants: what would reach out of the
/// guest if nobody stopped it, and what the monitor answers itself. An exit of these that has no
/// row in the core's table stops the VM.
const INSISTED: [Intercept; 22] = [
    Intercept::Intr,
    Intercept::Nmi,
    Intercept::Smi,
    Intercept::Init,
    Intercept::Shutdown,
    Intercept::Io,
    Intercept::Msr,
    Intercept::Invd, // would drop what others have written
    Intercept::Xsetbv,
    Intercept::Exception(EXCEPTION_MACHINE_CHECK),
    // Raised over and over without an instruction in between, these hold a CPU for ever.
    Intercept::Exception(EXCEPTION_DEBUG),
    Intercept::Exception(EXCEPTION_ALIGNMENT),
    // SVM's own, with addresses of the host's.
    Intercept::Vmrun,
    Intercept::Vmmcall,
    Intercept::Vmload,
    Intercept::Vmsave,
    Intercept::Stgi,
    Intercept::Clgi,
    Intercept::Skinit,
    Intercept::Invlpga,
    Intercept::Invlpgb,
    Intercept::Tlbsync,
];

/// What makes exits if the hypervisor wants it: what has a row, and what it may keep from its guest
/// for its own sake.
const GRANTED: [Intercept; 15] = [
    Intercept::Vintr,
    Intercept::Cpuid,
    Intercept::Hlt,
    Intercept::Pause,
    Intercept::Wbinvd,
    Intercept::Iret,
    Intercept::CrWrite(8),
    Intercept::TaskSwitch,
    Intercept::Rdpmc,
    Intercept::Rdpru,
    Intercept::Rdtscp,
    Intercept::Rsm,
    Intercept::Monitor,
    Intercept::Mwait,
    Intercept::MwaitArmed,
];

/// Instructions that a launched guest has not, if they make exits: those of SVM, which is not
/// offered to it, and what its hypervisor keeps from it.
pub(crate) const UNDEFINED: [Intercept; 15] = [
    Intercept::Vmrun,
    Intercept::Vmload,
    Intercept::Vmsave,
    Intercept::Stgi,
    Intercept::Clgi,
    Intercept::Skinit,
    Intercept::Invlpga,
    Intercept::Invlpgb,
    Intercept::Tlbsync,
    Intercept::Rsm,
    Intercept::Rdpru,
    Intercept::Rdtscp,
    Intercept::Monitor,
    Intercept::Mwait,
    Intercept::MwaitArmed,
];

/// The intercepts of a launched guest, given those that its hypervisor wants.
///
/// Of all others the CPU carries out what the guest does: control and debug registers, exceptions,
/// `invlpg`, descriptor tables. So a hypervisor does not learn of them, as with encrypted guests,
/// and whoever runs the guest has to switch DR0 to DR3 and XCR0 for it.
pub fn intercepts(wanted: &Intercepts) -> Intercepts {
    let granted = GRANTED.into_iter().filter(|&intercept| wanted.has(intercept));
    granted.fold(Intercepts::of(&INSISTED), Intercepts::with)
}

/// The moment before an entry at which an event is to be injected.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The exit that is being answered.
    pub exit: Exit,
    /// Whether the hypervisor carried the instruction out.
    pub is_carried_out: bool,
    /// Whether the guest takes interrupts there: RFLAGS.IF, and no shadow of an instruction before.
    pub takes_interrupts: bool,
    /// What was being delivered when the exit came, as it showed.
    pub cut_short: Event,
}

impl Moment {
    /// Whether a launched guest may be given this event.
    ///
    /// Interrupts, where a guest on bare hardware would take one, by a vector that an interrupt has
    /// there. NMIs at any time: how deep they nest is not watched. #GP in place of `rdmsr` and
    /// `wrmsr`, which is how a hypervisor says that there is no such register. Any other event
    /// would be a lie: a hypervisor carries out nothing else that may fail, and what the guest
    /// raises itself reaches it without help. So an exception may only be given back that an exit
    /// cut short, and of those only what the guest would not raise again by itself.
    pub fn may_inject(self, event: Event) -> bool {
        if !event.is_valid() || event.raw() & Event::RESERVED != 0 {
            return false;
        }
        match event.kind() {
            Some(EventKind::Interrupt) => {
                self.takes_interrupts && is_interrupt_vector(event.vector())
            }
            Some(EventKind::Nmi) => true,
            Some(EventKind::Exception) => {
                let fails = matches!(self.exit, Exit::ReadMsr | Exit::WriteMsr);
                let refusal = fails && event == GENERAL_PROTECTION;
                !self.is_carried_out && (refusal || event == self.cut_short)
            }
            Some(EventKind::SoftwareInterrupt) | None => false,
        }
    }
}

/// What is shown of an event whose delivery an exit cut short, for the hypervisor to give it again.
///
/// What the guest's instruction raises again when it is run again does not show, and is dropped:
/// faults, whose error codes say what the guest did, and software interrupts.
pub fn shown_event(cut_short: Event) -> Event {
    let again = match cut_short.kind() {
        Some(EventKind::Interrupt | EventKind::Nmi) => true,
        Some(EventKind::Exception) => {
            [EXCEPTION_DEBUG, EXCEPTION_MACHINE_CHECK].contains(&cut_short.vector())
        }
        Some(EventKind::SoftwareInterrupt) | None => false,
    };
    match cut_short.kind() {
        Some(kind) if again && cut_short.is_valid() => Event::new(kind, cut_short.vector(), None),
        _ => Event::NONE,
    }
}

/// Whether a guest may find an interrupt with this vector. Those below 32 are exceptions (the
/// manual, 8.2); 80h is the system call of 32-bit Linux, which takes what it finds in registers
/// for a request whoever raised it (Schlüter and others, "Heckler", USENIX Security 2024).
pub const fn is_interrupt_vector(vector: u8) -> bool {
    vector >= 32 && vector != 0x80
}

/// Whether what waits as a virtual interrupt may reach a launched guest: nothing waits, or it comes
/// back as an exit, or it is an [interrupt](is_interrupt_vector). The CPU sees to the rest.
pub fn may_wait(control: &ControlArea) -> bool {
    let waiting = control.virtual_interrupt;
    let vector = ((waiting.0 & VirtualInterrupt::VECTOR) >> 32) as u8;
    let comes_back = control.intercepts.has(Intercept::Vintr);
    !waiting.has(VirtualInterrupt::IRQ) || comes_back || is_interrupt_vector(vector)
}

/// #DB, #UD, #GP, #AC and #MC (the manual, 8.2).
pub(crate) const EXCEPTION_DEBUG: u8 = 1;
const EXCEPTION_UNDEFINED: u8 = 6;
const EXCEPTION_GENERAL_PROTECTION: u8 = 13;
pub(crate) const EXCEPTION_ALIGNMENT: u8 = 17;
pub(crate) const EXCEPTION_MACHINE_CHECK: u8 = 18;

/// What an instruction raises that there is not.
pub(crate) const NOT_THERE: Event = Event::new(EventKind::Exception, EXCEPTION_UNDEFINED, None);

/// What an instruction raises that the guest may not use, or not so.
pub(crate) const GENERAL_PROTECTION: Event =
    Event::new(EventKind::Exception, EXCEPTION_GENERAL_PROTECTION, Some(0));
