//! Round trips through a hypervisor that does what KVM of Linux 6.1 does, in both of its ways of
//! going on: at the `next_rip` that it was told, or behind the instruction that it decoded.

use frontend_bare::general::General;
use frontend_bare::vmcb::{ControlArea, Event, EventKind, Intercept, Vmcb};
use proptest::prelude::*;
use view_core::registers::{Exit, Part};
use yaxpeax_x86::long_mode::{InstDecoder, Operand};
use zerocopy::IntoBytes;

use crate::stops::{Exited, Stop, stops};
use crate::{exited, resume};

const LOW_HALF: u64 = 0xffff_ffff;

/// What the hypervisor answers with.
const ANSWER: u64 = 0xa115_3e12_d00d_f1e5;

/// KVM's registers of a virtual CPU: `arch.regs`, as instructions number them, and `rip`.
struct Vcpu {
    regs: [u64; 16],
    rip: u64,
}

impl Vcpu {
    fn of(vmcb: &Vmcb, general: &General) -> Self {
        let General { rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15 } =
            *general;
        let (rax, rsp, rip) = (vmcb.save.rax, vmcb.save.rsp, vmcb.save.rip);
        let low = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi];
        let high = [r8, r9, r10, r11, r12, r13, r14, r15];
        Self { regs: std::array::from_fn(|at| *low.get(at).unwrap_or(&high[at % 8])), rip }
    }

    fn general(&self) -> General {
        let [_, rcx, rdx, rbx, _, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = self.regs;
        General { rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15 }
    }

    /// As the emulator writes an operand: 32 bits leave zeroes above them.
    fn write(&mut self, number: usize, bits: u64, value: u64) {
        let replaced = if bits == LOW_HALF { u64::MAX } else { bits };
        self.regs[number] = self.regs[number] & !replaced | value & bits;
    }
}

/// Carries an exit out, and writes back what svm_vcpu_run writes back.
fn carry_out(vmcb: &mut Vmcb, general: &mut General) {
    let mut vcpu = Vcpu::of(vmcb, general);
    let exit = vmcb.control.exit_code;
    match exit {
        0x72 => (0..4).for_each(|number| vcpu.write(number, LOW_HALF, ANSWER >> number)),
        0x7c if vmcb.control.exit_info_1 == 0 => {
            (vcpu.regs[0], vcpu.regs[2]) = (ANSWER & LOW_HALF, ANSWER >> 32);
        }
        0x7b if vmcb.control.exit_info_1 & 1 != 0 => {
            let size = vmcb.control.exit_info_1 >> 4 & 7;
            vcpu.write(0, LOW_HALF >> (32 - size * 8), ANSWER);
        }
        0x81 => vcpu.regs[0] = -1000_i64 as u64,
        0x400 => access(&vmcb.control, &mut vcpu),
        _ => {}
    }
    if exit == 0x7b {
        vcpu.rip = vmcb.control.exit_info_2;
    } else if exit != 0x400 && vmcb.control.next_rip != 0 {
        vcpu.rip = vmcb.control.next_rip;
    }
    (vmcb.save.rax, vmcb.save.rsp, vmcb.save.rip) = (vcpu.regs[0], vcpu.regs[4], vcpu.rip);
    (vmcb.save.dr6, vmcb.control.interrupt_state) = (0xffff_0ff0, 0);
    *general = vcpu.general();
}

/// KVM's emulator on an access to no memory, with nothing but what it was shown.
fn access(control: &ControlArea, vcpu: &mut Vcpu) {
    let bytes = control.fetched.bytes();
    if bytes.is_empty() {
        return;
    }
    let inst = InstDecoder::default().decode_slice(bytes).expect("the whole instruction shows");
    if let Operand::Register { reg } = inst.operand(0) {
        let bits = match (reg.class(), inst.mem_size().and_then(|size| size.bytes_size())) {
            (_, Some(8)) => u64::MAX,
            (yaxpeax_x86::long_mode::register_class::Q, _) => u64::MAX,
            (yaxpeax_x86::long_mode::register_class::D, _) => LOW_HALF,
            (yaxpeax_x86::long_mode::register_class::W, _) => 0xffff,
            _ => 0xff,
        };
        // A byte that fills its register with zeroes, and a word that fills it with its sign.
        let value = match bytes {
            [0x0f, 0xb6, ..] => ANSWER & 0xff,
            [0x48, 0x0f, 0xbf, ..] => ANSWER as i16 as u64,
            _ => ANSWER,
        };
        let is_high = bytes[0] == 0x8a;
        let number = usize::from(reg.num()) - if is_high { 4 } else { 0 };
        if is_high {
            vcpu.write(number, 0xff00, value << 8);
        } else {
            vcpu.write(number, bits, value);
        }
    }
    vcpu.rip += bytes.len() as u64;
}

/// The address of an access, from registers.
fn address(bytes: &[u8], regs: &[u64; 16]) -> u64 {
    let inst = InstDecoder::default().decode_slice(bytes).expect("an instruction");
    let memory = [inst.operand(0), inst.operand(1)];
    let named = memory.iter().find(|named| !matches!(named, Operand::Register { .. }));
    let reg = |reg: yaxpeax_x86::long_mode::RegSpec| regs[usize::from(reg.num())];
    match named.expect("memory") {
        Operand::MemDeref { base } => reg(*base),
        Operand::Disp { base, disp } => reg(*base).wrapping_add_signed((*disp).into()),
        Operand::MemBaseIndexScale { base, index, scale } => {
            reg(*base).wrapping_add(reg(*index).wrapping_mul((*scale).into()))
        }
        Operand::AbsoluteU32 { addr } => (*addr).into(),
        other => panic!("no such operand is listed: {other:?}"),
    }
}

/// What the CPU itself would have made of the guest.
fn expected(one: &Exited) -> (Vmcb, General) {
    let mut vmcb = Vmcb::zeroed();
    vmcb.save = one.guest.save.clone();
    let mut vcpu = Vcpu::of(&vmcb, &one.general);
    match one.stop.exit {
        Exit::Cpuid => (0..4).for_each(|number| vcpu.regs[number] = ANSWER >> number & LOW_HALF),
        Exit::ReadMsr => {
            vcpu.write(0, LOW_HALF, ANSWER);
            vcpu.write(2, LOW_HALF, ANSWER >> 32);
        }
        Exit::PortIn(size) => {
            let bits = [0xff, 0xffff, LOW_HALF][size as usize];
            vcpu.write(0, bits, ANSWER);
        }
        Exit::Hypercall => vcpu.regs[0] = -1000_i64 as u64,
        Exit::MmioRead { .. } => load(one.stop, &mut vcpu),
        _ => {}
    }
    vmcb.save.rip = one.next_rip();
    (vmcb.save.rax, vmcb.save.rsp) = (vcpu.regs[0], vcpu.regs[4]);
    (vmcb, vcpu.general())
}

fn load(stop: Stop, vcpu: &mut Vcpu) {
    match stop.name {
        "mov eax, [rbx]" => vcpu.regs[0] = ANSWER & LOW_HALF,
        "mov r15, [rdi+8]" => vcpu.regs[15] = ANSWER,
        "mov ah, [rsi]" => vcpu.write(0, Part::HighByte.bits(), ANSWER << 8),
        "mov bx, [r8+r9*4]" => vcpu.write(3, Part::Word.bits(), ANSWER),
        "movzx ecx, byte [rdx]" => vcpu.regs[1] = ANSWER & 0xff,
        "movsx rbp, word [rsp]" => vcpu.regs[5] = ANSWER as i16 as u64,
        other => panic!("{other} is not listed"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn kvm_carries_out_each_row(one in exited(), in_shadow in any::<bool>()) {
        let mut one = one;
        one.control.interrupt_state = in_shadow.into();
        let (mut vmcb, mut general) = one.shown();
        if one.stop.code == 0x400 && !vmcb.control.fetched.bytes().is_empty() {
            let shown = address(one.stop.bytes, &Vcpu::of(&vmcb, &general).regs);
            let mut real = Vmcb::zeroed();
            real.save = one.guest.save.clone();
            let real = address(one.stop.bytes, &Vcpu::of(&real, &one.general).regs);
            prop_assert_eq!(shown, real, "KVM compares the address with where the fault was");
        }
        carry_out(&mut vmcb, &mut general);
        let resumed = resume(&one, &vmcb, &general).expect("KVM may do that");
        let (expected, expected_general) = expected(&one);
        prop_assert!(resumed.save.as_bytes() == expected.save.as_bytes(), "{}", one.stop.name);
        prop_assert!(resumed.general.as_bytes() == expected_general.as_bytes());
        prop_assert_eq!(resumed.in_shadow, in_shadow && one.stop.bytes.is_empty());
        let is_xsetbv = one.is_by(Intercept::Xsetbv);
        let written = one.general.rdx << 32 | one.guest.save.rax & LOW_HALF;
        prop_assert_eq!(resumed.xcr0, is_xsetbv.then_some(written));
    }

    /// For an instruction that fails KVM queues #GP and leaves everything as it was.
    #[test]
    fn kvm_refuses_a_register_that_there_is_not(one in exited()) {
        let (mut vmcb, general) = one.shown();
        vmcb.control.event = Event::new(EventKind::Exception, 13, Some(0));
        let resumed = resume(&one, &vmcb, &general);
        let may = matches!(one.stop.exit, Exit::ReadMsr | Exit::WriteMsr);
        prop_assert_eq!(resumed.is_ok(), may);
        if let Ok(resumed) = resumed {
            prop_assert_eq!(resumed.event, vmcb.control.event);
            prop_assert_eq!(resumed.save.rip, one.guest.save.rip);
        }
    }

    /// KVM injects where it sees that interrupts are on and no shadow is left.
    #[test]
    fn kvm_injects_interrupts_where_the_guest_takes_them(one in exited(), state in 0..2_u64) {
        let mut one = one;
        one.control.interrupt_state = state;
        let (mut vmcb, mut general) = one.shown();
        carry_out(&mut vmcb, &mut general);
        let shadow = state != 0 && one.stop.bytes.is_empty();
        vmcb.control.event = Event::new(EventKind::Interrupt, 0x31, None);
        let resumed = resume(&one, &vmcb, &general);
        prop_assert_eq!(vmcb.save.rflags & 0x200, one.guest.save.rflags & 0x200);
        prop_assert_eq!(resumed.is_ok(), vmcb.save.rflags & 0x200 != 0 && !shadow);
    }
}

#[test]
fn a_load_must_fill_its_register_as_the_instruction_does() {
    for (name, fine, wrong) in [
        ("movzx ecx, byte [rdx]", 0xf1, 0x1f1),
        ("movsx rbp, word [rsp]", 0xffff_ffff_ffff_f1e5, 0xf1e5),
    ] {
        let stop = stops().into_iter().find(|stop| stop.name == name).unwrap();
        for (value, is_fine) in [(fine, true), (wrong, false)] {
            let one = Exited::new(stop, &Vmcb::zeroed(), General::ZERO);
            let (mut vmcb, general) = one.shown();
            let mut vcpu = Vcpu::of(&vmcb, &general);
            vcpu.regs[if fine == 0xf1 { 1 } else { 5 }] = value;
            vmcb.save.rip = vmcb.control.next_rip;
            let resumed = resume(&one, &vmcb, &vcpu.general());
            assert_eq!(resumed.is_ok(), is_fine, "{name}: {value:x}");
        }
    }
}

/// KVM takes it that `iret` was carried out when the next exit has another `rip`.
#[test]
fn rip_at_iret_is_like_at_no_other_exit() {
    let rip = |stop: Stop| Exited::new(stop, &Vmcb::zeroed(), General::ZERO).shown().0.save.rip;
    let (at_iret, others): (Vec<_>, Vec<_>) =
        stops().into_iter().partition(|stop| stop.code == 0x74);
    assert!(at_iret.into_iter().all(|stop| rip(stop) == 1));
    assert!(others.into_iter().all(|stop| rip(stop) == 0));
}

/// Whether the guest may use AVX and keys of pages follows from its own CR4, which KVM did not see.
#[test]
fn cpuid_tells_what_the_guest_itself_has_enabled() {
    for (leaf, part, of_cr4, of_ecx) in
        [(1, 9, 18, 27), (7, 0, 22, 4), (7, 1, 22, 4), (2, 0, 18, 27)]
    {
        for (cr4, told) in [(0, 0), (0, 1 << of_ecx), (1 << of_cr4, 0)] {
            let (mut vmcb, mut general) = (Vmcb::zeroed(), General::ZERO);
            (vmcb.save.rax, vmcb.save.cr4, general.rcx) = (leaf, cr4, part);
            let stop = stops().into_iter().find(|stop| stop.name == "cpuid").unwrap();
            let one = Exited::new(stop, &vmcb, general);
            let (mut vmcb, mut general) = one.shown();
            (general.rcx, vmcb.save.rip) = (told, vmcb.control.next_rip);
            let resumed = resume(&one, &vmcb, &general).expect("results");
            let corrected = leaf == 1 || leaf == 7 && part == 0;
            let expected = if corrected { u64::from(cr4 != 0) << of_ecx } else { told };
            assert_eq!(resumed.general.rcx, expected, "leaf {leaf}.{part}");
        }
    }
}
