//! Every kind of exit that a launched guest may have, with the instruction behind it.

use frontend_bare::exit_code::ExitCode;
use frontend_bare::general::General;
use frontend_bare::stopped::{NoRow, Stopped, Touched};
use frontend_bare::vmcb::{ControlArea, Event, Fetched, Intercept, Vmcb};
use view_core::registers::{Exit, Gprs, Operand, Part, PortSize};
use zerocopy::IntoBytes;

use crate::guest::{Guest, PRESENT, canonical};

/// A kind of exit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop {
    pub(crate) name: &'static str,
    pub(crate) code: u64,
    pub(crate) infos: [u64; 2],
    /// The instruction's bytes; none if the exit is not one's.
    pub(crate) bytes: &'static [u8],
    pub(crate) touched: Touched,
    /// Whether the CPU says where the next instruction is.
    pub(crate) tells_next: bool,
    /// Its row in the core's table.
    pub(crate) exit: Exit,
}

const fn plain(name: &'static str, code: u64, bytes: &'static [u8], exit: Exit) -> Stop {
    let touched = Touched::Memory;
    Stop { name, code, infos: [0; 2], bytes, touched, tells_next: true, exit }
}

const fn port(name: &'static str, info: u64, bytes: &'static [u8], exit: Exit) -> Stop {
    Stop { infos: [info | 0x3f8 << 16 | 0x380, 0], ..plain(name, 0x7b, bytes, exit) }
}

fn device(name: &'static str, how: u64, bytes: &'static [u8], exit: Exit) -> Stop {
    let infos = [1 << 32 | 4 | how, 0xfee0_0000];
    Stop { infos, touched: Touched::Device, ..plain(name, 0x400, bytes, exit) }
}

fn load(name: &'static str, bytes: &'static [u8], into: (u8, Part), address: u16) -> Stop {
    let into = Operand::new(into.0, into.1).unwrap();
    device(name, 0, bytes, Exit::MmioRead { into, address: Gprs(address) })
}

fn store(name: &'static str, bytes: &'static [u8], from: Option<(u8, Part)>, named: u16) -> Stop {
    let from = from.map(|(number, part)| Operand::new(number, part).unwrap());
    device(name, 2, bytes, Exit::MmioWrite { from, address: Gprs(named) })
}

/// All of them; instructions also where the CPU does not say which is next.
pub(crate) fn stops() -> Vec<Stop> {
    let mut all = instructions();
    let told = all.iter().filter(|stop| stop.code != 0x7b);
    let untold: Vec<_> = told.map(|stop| Stop { tells_next: false, ..*stop }).collect();
    all.extend(untold);
    all.extend(interrupts());
    all
}

fn instructions() -> Vec<Stop> {
    let msr = |name, info, bytes, exit| Stop { infos: [info, 0], ..plain(name, 0x7c, bytes, exit) };
    let task_priority = Exit::MmioWrite { from: Operand::new(15, Part::LowByte), address: Gprs(0) };
    let fixed = [
        plain("cpuid", 0x72, &[0x0f, 0xa2], Exit::Cpuid),
        msr("rdmsr", 0, &[0x0f, 0x32], Exit::ReadMsr),
        msr("wrmsr", 1, &[0x0f, 0x30], Exit::WriteMsr),
        port("in al", 0x11, &[0xec], Exit::PortIn(PortSize::Byte)),
        port("in ax", 0x21, &[0x66, 0xed], Exit::PortIn(PortSize::Word)),
        port("in eax", 0x41, &[0xed], Exit::PortIn(PortSize::Double)),
        port("out al", 0x10, &[0xe6, 0xf8], Exit::PortOut(PortSize::Byte)),
        port("out ax", 0x20, &[0x66, 0xef], Exit::PortOut(PortSize::Word)),
        port("out eax", 0x40, &[0xef], Exit::PortOut(PortSize::Double)),
        plain("hlt", 0x78, &[0xf4], Exit::Halt),
        plain("pause", 0x77, &[0xf3, 0x90], Exit::Halt),
        plain("invd", 0x76, &[0x0f, 0x08], Exit::Halt),
        plain("wbinvd", 0x89, &[0x0f, 0x09], Exit::Halt),
        plain("vmmcall", 0x81, &[0x0f, 0x01, 0xd9], Exit::Hypercall),
        plain("xsetbv", 0x8d, &[0x0f, 0x01, 0xd1], Exit::WriteMsr),
        plain("mov cr8, r15", 0x18, &[0x45, 0x0f, 0x22, 0xc7], task_priority),
    ];
    let accesses = [
        load("mov eax, [rbx]", &[0x8b, 3], (0, Part::Half), 1 << 3),
        load("mov r15, [rdi+8]", &[0x4c, 0x8b, 0x7f, 8], (15, Part::Whole), 1 << 7),
        load("mov ah, [rsi]", &[0x8a, 0x26], (0, Part::HighByte), 1 << 6),
        load("mov bx, [r8+r9*4]", &[0x66, 0x43, 0x8b, 0x1c, 0x88], (3, Part::Word), 0x300),
        load("movzx ecx, byte [rdx]", &[0x0f, 0xb6, 0x0a], (1, Part::Half), 1 << 2),
        load("movsx rbp, word [rsp]", &[0x48, 0x0f, 0xbf, 0x2c, 0x24], (5, Part::Whole), 1 << 4),
        store("mov [rdi+0xb0], eax", &[0x89, 0x87, 0xb0, 0, 0, 0], Some((0, Part::Half)), 1 << 7),
        store("mov [rbx], sil", &[0x40, 0x88, 0x33], Some((6, Part::LowByte)), 1 << 3),
        store("mov dword [rax], 7", &[0xc7, 0, 7, 0, 0, 0], None, 1),
        store("mov byte [0x1000], 7", &[0xc6, 4, 0x25, 0, 0x10, 0, 0, 7], None, 0),
    ];
    fixed.into_iter().chain(accesses).collect()
}

fn interrupts() -> Vec<Stop> {
    let between = |name, code, exit| plain(name, code, &[], exit);
    let fault = [1 << 32 | 6, 0x1234_5000];
    let tables = [1 << 33 | 7, 0x1234_5000];
    vec![
        between("interrupt", 0x60, Exit::Interrupt),
        between("nmi", 0x61, Exit::Interrupt),
        between("smi", 0x62, Exit::Interrupt),
        between("init", 0x63, Exit::Interrupt),
        between("virtual interrupt", 0x64, Exit::Interrupt),
        between("iret", 0x74, Exit::Interrupt),
        between("machine check", 0x52, Exit::Interrupt),
        Stop { infos: fault, ..between("page fault", 0x400, Exit::PageFault) },
        Stop { infos: tables, ..between("page fault in tables", 0x400, Exit::PageFault) },
        between("shutdown", 0x7f, Exit::Shutdown),
    ]
}

/// A guest at a stop, as the CPU left it.
#[derive(Clone, Debug)]
pub(crate) struct Exited {
    pub(crate) stop: Stop,
    pub(crate) control: ControlArea,
    pub(crate) guest: Guest,
    pub(crate) general: General,
}

impl Exited {
    /// A guest with these registers, at `rip` of them, but with what long mode takes.
    pub(crate) fn new(stop: Stop, registers: &Vmcb, general: General) -> Self {
        let levels = 4;
        let mut guest = Guest::new(levels);
        guest.save = registers.save.clone();
        guest.enter_long_mode();
        guest.save.cpl &= 3;
        // The upper halves of both are always zero.
        (guest.save.dr6, guest.save.dr7) = (guest.save.dr6 as u32 as u64, guest.save.dr7 >> 32);
        let length = stop.bytes.len() as u64;
        let rip = canonical(guest.save.rip, levels).clamp(1, u64::MAX - 0x2000);
        guest.save.rip = rip;
        guest.map(rip & !0xfff, 0x8_0000, 0, PRESENT);
        guest.map((rip & !0xfff) + 0x1000, 0x8_1000, 0, PRESENT);
        guest.put(0x8_0000 + (rip & 0xfff), stop.bytes.iter().copied());
        let mut control = Vmcb::zeroed().control.clone();
        control.exit_code = stop.code;
        [control.exit_info_1, control.exit_info_2] = stop.infos;
        if stop.code == 0x7b {
            control.exit_info_2 = rip.wrapping_add(length);
        } else if length > 0 && stop.tells_next && stop.code != 0x400 {
            control.next_rip = rip.wrapping_add(length);
        }
        Self { stop, control, guest, general }
    }

    pub(crate) fn stopped(&self) -> Result<Stopped, NoRow> {
        let Self { stop, control, guest, general } = self;
        Stopped::new(control, &guest.save, general, &mut guest.memory(), stop.touched)
    }

    /// What the hypervisor gets, in a block of ones: what is left as it was shows.
    pub(crate) fn shown(&self) -> (Vmcb, General) {
        let (mut vmcb, mut general) = (Vmcb::zeroed(), General::ZERO);
        vmcb.save.as_mut_bytes().fill(0xff);
        general.as_mut_bytes().fill(0xff);
        let control = &mut vmcb.control;
        (control.exit_info_1, control.exit_info_2) = (u64::MAX, u64::MAX);
        (control.next_rip, control.interrupt_state) = (u64::MAX, u64::MAX);
        control.fetched = Fetched::new(&[0xff; 15]);
        (control.event, control.exit_event) =
            (Event::from_raw(u64::MAX), Event::from_raw(u64::MAX));
        let stopped = self.stopped().expect("it has a row");
        stopped.show(&mut vmcb.control, &mut vmcb.save, &mut general);
        (vmcb, general)
    }

    pub(crate) fn next_rip(&self) -> u64 {
        self.guest.save.rip.wrapping_add(self.stop.bytes.len() as u64)
    }

    pub(crate) fn is_by(&self, intercept: Intercept) -> bool {
        self.control.exit() == ExitCode::By(intercept)
    }
}
