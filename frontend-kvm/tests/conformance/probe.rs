//! A guest that does as it is told, one load or store at a time, on a vCPU of its own.
//!
//! A touch of a page that it is not shown ends the program; nobody asks the core for the page. The
//! vCPU is then put back to where it was before its first instruction.

use std::sync::{Arc, Mutex};

use frontend_kvm::abi::gfn;
use frontend_kvm::guest::place;
use frontend_kvm::{
    Crash, Doorbell, GuestEvent, Handler, Kvm, Machine, Mode, OnFault, Program, Reply, VcpuState,
    VcpuStatus,
};
use view_core::{Gfn, Page};

use crate::common::{ENTROPY, LONG, PAGES};

/// The program: rings the doorbell of `abi::port::STEP` with what it found last, gets a word back,
/// and does what the word says. A word is the address of a page, which is a multiple of 4096, plus
/// what to store in its first word, or 0 for a load. The word 0 means: ring again.
const PROGRAM: &[u8] = &[
    0xba, 0xf7, 0x05, 0x00, 0x00, //       mov edx, 0x5f7
    0xed, //                         ring: in eax, dx
    0x85, 0xc0, //                         test eax, eax
    0x74, 0xfb, //                         jz ring
    0x89, 0xc1, //                         mov ecx, eax
    0x81, 0xe1, 0x00, 0xf0, 0xff, 0xff, // and ecx, 0xfffff000
    0x0f, 0xb6, 0xc0, //                   movzx eax, al
    0x85, 0xc0, //                         test eax, eax
    0x74, 0x05, //                         jz load
    0x48, 0x89, 0x01, //                   mov [rcx], rax
    0xeb, 0xe7, //                         jmp ring
    0x48, 0x8b, 0x31, //             load: mov rsi, [rcx]
    0xeb, 0xe2, //                         jmp ring
];

/// Between the program and who tells it what to do.
#[derive(Default)]
struct Orders {
    next: Mutex<Option<u32>>,
    found: Mutex<u64>,
}

impl Handler for Orders {
    fn may_enter(&self, _vcpu: u8) -> bool {
        true
    }

    fn event(&self, _vcpu: u8, event: GuestEvent) -> Reply {
        let GuestEvent::Doorbell(Doorbell::Step(found)) = event else { return Reply::Pause(0) };
        match self.next.lock().unwrap().take() {
            Some(word) => Reply::Answer(word),
            None => {
                *self.found.lock().unwrap() = found;
                Reply::Pause(0)
            }
        }
    }

    fn fault(&self, _vcpu: u8) -> OnFault {
        OnFault::Stop
    }
}

/// A machine with the program in it.
pub(crate) struct Probe {
    machine: Machine,
    orders: Arc<Orders>,
    /// The vCPU before its first instruction.
    ready: VcpuState,
}

impl Probe {
    pub(crate) fn new(kvm: &Kvm) -> Self {
        let machine = Machine::boot(kvm, PAGES, &Program::new(Mode::Spin, &ENTROPY)).unwrap();
        // In place of the toy guest, under its page tables.
        let mut code = Page::zeroed();
        code.bytes_mut()[..PROGRAM.len()].copy_from_slice(PROGRAM);
        machine.memory().write_page(place(gfn::PAYLOAD), &code).unwrap();
        let (orders, ready) = (Arc::<Orders>::default(), machine.save(0).unwrap());
        let handler = Arc::clone(&orders);
        machine.start(handler).unwrap();
        assert_eq!(machine.wait(0, LONG).unwrap(), VcpuStatus::Paused, "it asks what to do");
        Self { machine, orders, ready }
    }

    pub(crate) const fn machine(&self) -> &Machine {
        &self.machine
    }

    /// The first word of a page, if the guest reaches it.
    pub(crate) fn load(&self, gfn: Gfn) -> Option<u64> {
        self.told(gfn, 0)
    }

    /// Stores a small number in the first word of a page; whether the guest could.
    pub(crate) fn store(&self, gfn: Gfn, value: u64) -> bool {
        assert!((1..256).contains(&value), "0 means a load, and a word has room for a byte");
        self.told(gfn, value).is_some()
    }

    fn told(&self, gfn: Gfn, value: u64) -> Option<u64> {
        let word = u32::try_from(gfn.number() << 12 | value).unwrap();
        *self.orders.next.lock().unwrap() = Some(word);
        self.machine.resume().unwrap();
        match self.machine.wait(0, LONG).unwrap() {
            VcpuStatus::Paused => Some(*self.orders.found.lock().unwrap()),
            VcpuStatus::Crashed(Crash::Fault) => {
                self.machine.load(0, &self.ready).unwrap();
                None
            }
            other @ (VcpuStatus::Running | VcpuStatus::Ended(_) | VcpuStatus::Crashed(_)) => {
                panic!("the guest is {other:?}")
            }
        }
    }
}
