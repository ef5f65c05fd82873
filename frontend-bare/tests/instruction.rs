//! The decoder of instructions that stop a CPU: forms that it must know, forms that it must refuse,
//! and a general decoder that has to agree with whatever it says.

#![expect(clippy::wildcard_enum_match_arm, reason = "a general decoder knows a thousand others")]

use frontend_bare::instruction::{
    CodeSize, Extension, Instruction, Load, Undecodable, What, decode,
};
use proptest::prelude::*;
use view_core::registers::{Gprs, Operand, Part};
use yaxpeax_x86::long_mode::{
    InstDecoder, Instruction as Theirs, Opcode, Operand as Named, RegSpec, register_class,
};
use yaxpeax_x86::{protected_mode, real_mode};

const RAX: u16 = 1;
const RBX: u16 = 1 << 3;
const RDI: u16 = 1 << 7;

/// The bytes of a line of hexadecimal digits.
fn bytes(hex: &str) -> Vec<u8> {
    hex.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}

fn load(number: u8, part: Part, address: u16, extension: Option<(u32, bool)>) -> What {
    let extension = extension.map(|(bits, signed)| Extension { bits, signed });
    What::Load(Load { number, part, address: Gprs(address), extension })
}

fn store(from: Option<(u8, Part)>, address: u16) -> What {
    let from = from.map(|(number, part)| Operand::new(number, part).unwrap());
    What::Store { from, address: Gprs(address) }
}

#[test]
fn instructions_without_memory_are_known_in_all_sizes_of_code() {
    for (hex, what) in [
        ("0f a2", What::Cpuid),
        ("66 0f a2", What::Cpuid),
        ("0f 32", What::Rdmsr),
        ("0f 30", What::Wrmsr),
        ("f4", What::Hlt),
        ("f3 90", What::Pause),
        ("0f 08", What::Invd),
        ("0f 09", What::Wbinvd),
        ("f3 0f 09", What::Wbinvd), // wbnoinvd
        ("0f 01 d9", What::Vmmcall),
        ("0f 01 d1", What::Xsetbv),
        ("ec", What::In),
        ("66 ed", What::In),
        ("e4 60", What::In),
        ("e5 60", What::In),
        ("ee", What::Out),
        ("66 ef", What::Out),
        ("e6 80", What::Out),
        ("e7 80", What::Out),
    ] {
        for size in [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64] {
            let expected = Instruction { what, length: bytes(hex).len() as u8 };
            assert_eq!(decode(&bytes(hex), size), Ok(expected), "{hex} {size:?}");
            let cut = &bytes(hex)[..bytes(hex).len() - 1];
            assert_eq!(decode(cut, size), Err(Undecodable::Short), "{hex} {size:?}");
        }
    }
    let with_rex = decode(&bytes("48 0f a2"), CodeSize::Bits64).map(|known| known.what);
    assert_eq!(with_rex, Ok(What::Cpuid));
    assert_eq!(decode(&bytes("48 0f a2"), CodeSize::Bits32), Err(Undecodable::Unknown));
}

/// Of mov to CR8, and of all that touches memory.
const OF_64_BITS: &[(&str, &str)] = &[
    ("44 0f 22 c0", "mov cr8, rax"),
    ("45 0f 22 c7", "mov cr8, r15"),
    ("8b 03", "mov eax, [rbx]"),
    ("8a 23", "mov ah, [rbx]"),
    ("40 8a 23", "mov spl, [rbx]"),
    ("66 8b 03", "mov ax, [rbx]"),
    ("48 8b 00", "mov rax, [rax]"),
    ("4c 8b 7f 08", "mov r15, [rdi+8]"),
    ("8b 87 00 03 00 00", "mov eax, [rdi+0x300]"),
    ("8b 04 25 00 00 e0 fe", "mov eax, [0xfee00000]"),
    ("8b 04 24", "mov eax, [rsp]"),
    ("43 8b 04 88", "mov eax, [r8+r9*4]"),
    ("8b 04 dd 00 10 00 00", "mov eax, [rbx*8+0x1000]"),
    ("41 8b 45 00", "mov eax, [r13]"),
    ("42 8b 04 20", "mov eax, [rax+r12]"),
    ("2e 3e 8b 03", "mov eax, cs:ds:[rbx], both of no effect"),
    ("0f b6 03", "movzx eax, byte [rbx]"),
    ("66 0f b6 03", "movzx ax, byte [rbx]"),
    ("48 0f b7 03", "movzx rax, word [rbx]"),
    ("0f be 03", "movsx eax, byte [rbx]"),
    ("48 63 03", "movsxd rax, dword [rbx]"),
    ("88 03", "mov [rbx], al"),
    ("88 3b", "mov [rbx], bh"),
    ("41 88 f8", "mov r8b, dil: no memory"),
    ("44 88 03", "mov [rbx], r8b"),
    ("89 87 b0 00 00 00", "mov [rdi+0xb0], eax"),
    ("48 89 07", "mov [rdi], rax"),
    ("c6 07 2a", "mov byte [rdi], 42"),
    ("c7 07 01 02 03 04", "mov dword [rdi], 0x4030201"),
    ("66 c7 07 01 02", "mov word [rdi], 0x201"),
    ("48 c7 47 10 01 02 03 04", "mov qword [rdi+16], 0x4030201"),
];

#[test]
fn accesses_to_memory_are_known_in_64_bit_mode() {
    let half = |address| load(0, Part::Half, address, None);
    let expected = [
        Some(What::WriteCr8(0)),
        Some(What::WriteCr8(15)),
        Some(half(RBX)),
        Some(load(0, Part::HighByte, RBX, None)),
        Some(load(4, Part::LowByte, RBX, None)),
        Some(load(0, Part::Word, RBX, None)),
        Some(load(0, Part::Whole, RAX, None)),
        Some(load(15, Part::Whole, RDI, None)),
        Some(half(RDI)),
        Some(half(0)),
        Some(half(1 << 4)),
        Some(half(1 << 8 | 1 << 9)),
        Some(half(RBX)),
        Some(half(1 << 13)),
        Some(half(RAX | 1 << 12)),
        Some(half(RBX)),
        Some(load(0, Part::Half, RBX, Some((8, false)))),
        Some(load(0, Part::Word, RBX, Some((8, false)))),
        Some(load(0, Part::Whole, RBX, Some((16, false)))),
        Some(load(0, Part::Half, RBX, Some((8, true)))),
        Some(load(0, Part::Whole, RBX, Some((32, true)))),
        Some(store(Some((0, Part::LowByte)), RBX)),
        Some(store(Some((3, Part::HighByte)), RBX)),
        None,
        Some(store(Some((8, Part::LowByte)), RBX)),
        Some(store(Some((0, Part::Half)), RDI)),
        Some(store(Some((0, Part::Whole)), RDI)),
        Some(store(None, RDI)),
        Some(store(None, RDI)),
        Some(store(None, RDI)),
        Some(store(None, RDI)),
    ];
    assert_eq!(expected.len(), OF_64_BITS.len());
    for ((hex, name), what) in OF_64_BITS.iter().zip(expected) {
        let length = bytes(hex).len() as u8;
        let expected = what.map(|what| Instruction { what, length }).ok_or(Undecodable::NoMemory);
        assert_eq!(decode(&bytes(hex), CodeSize::Bits64), expected, "{name}");
        let cut = decode(&bytes(hex)[..usize::from(length) - 1], CodeSize::Bits64);
        assert_eq!(cut, Err(Undecodable::Short), "{name}");
        let long = [bytes(hex), vec![0; 20]].concat();
        assert_eq!(decode(&long, CodeSize::Bits64), expected, "{name}");
        for size in [CodeSize::Bits16, CodeSize::Bits32] {
            assert!(decode(&bytes(hex), size).is_err(), "{name}, in other code");
        }
    }
}

#[test]
fn what_has_no_row_is_refused() {
    for (hex, why, name) in [
        ("8b 05 00 10 00 00", Undecodable::RipRelative, "mov eax, [rip+0x1000]"),
        ("c7 05 00 10 00 00 01 00 00 00", Undecodable::RipRelative, "mov dword [rip], 1"),
        ("65 8b 03", Undecodable::Address, "mov eax, gs:[rbx]"),
        ("64 89 03", Undecodable::Address, "mov fs:[rbx], eax"),
        ("67 8b 03", Undecodable::Address, "mov eax, [ebx]"),
        ("8b c3", Undecodable::NoMemory, "mov eax, ebx"),
        ("0f b6 c3", Undecodable::NoMemory, "movzx eax, bl"),
        ("f0 89 03", Undecodable::Unknown, "lock mov: #UD"),
        ("f2 89 03", Undecodable::Unknown, "xacquire mov"),
        ("f0 0f a2", Undecodable::Unknown, "lock cpuid: #UD"),
        ("c7 4f 10 01 02 03 04", Undecodable::Unknown, "c7 /1: #UD"),
        ("09 03", Undecodable::Unknown, "or [rbx], eax"),
        ("a4", Undecodable::Unknown, "movsb"),
        ("6c", Undecodable::Unknown, "insb"),
        ("f3 6e", Undecodable::Unknown, "rep outsb"),
        ("87 03", Undecodable::Unknown, "xchg [rbx], eax"),
        ("63 03", Undecodable::Unknown, "movsxd eax, [rbx]"),
        ("8c 03", Undecodable::Unknown, "mov [rbx], es"),
        ("0f 22 c0", Undecodable::Unknown, "mov cr0, rax"),
        ("0f 01 d0", Undecodable::Unknown, "xgetbv"),
        ("66 0f 01 d1", Undecodable::Unknown, "66 xsetbv: #UD"),
        ("f3 0f 01 d9", Undecodable::Unknown, "vmgexit"),
        ("48 66 8b 03", Undecodable::Unknown, "mov ax, [rbx], with a REX that counts no more"),
        ("90", Undecodable::Unknown, "nop"),
        ("f3 41 90", Undecodable::Unknown, "rep xchg r8, rax"),
        ("a1 00 00 e0 fe 00 00 00 00", Undecodable::Unknown, "mov eax, [0xfee00000], as an offset"),
        ("", Undecodable::Short, "nothing"),
        ("66 66 66 66 66 66 66 66 66 66 66 66 66 66 0f a2", Undecodable::Short, "16 bytes: #GP"),
    ] {
        let code = if hex.is_empty() { vec![] } else { bytes(hex) };
        assert_eq!(decode(&code, CodeSize::Bits64), Err(why), "{name}");
    }
}

#[test]
fn an_extension_holds_where_a_load_leaves_it() {
    let zero = Extension { bits: 8, signed: false };
    let sign = Extension { bits: 8, signed: true };
    assert!(zero.holds(0xff, u64::MAX) && !zero.holds(0x100, u64::MAX));
    assert!(zero.holds(0x5ec2_00ff, 0xffff) && !zero.holds(0x5ec2_ffff, 0xffff));
    assert!(sign.holds(u64::MAX, u64::MAX) && !sign.holds(0xff, u64::MAX));
    assert!(sign.holds(0xffff_ffff, 0xffff_ffff) && sign.holds(0x7f, u64::MAX));
}

/// Beginnings that lead far into the decoder, and bytes.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let prefixes = [0x66_u8, 0x67, 0x2e, 0x3e, 0x64, 0x65, 0xf0, 0xf2, 0xf3, 0x40, 0x4f];
    let prefix = prop_oneof![prop::sample::select(prefixes.to_vec()), 0x40..=0x4f_u8];
    let opcodes: Vec<Vec<u8>> = [
        "8a", "8b", "88", "89", "c6", "c7", "63", "0f b6", "0f b7", "0f be", "0f bf", "0f 22",
        "0f 01", "0f a2", "0f 30", "0f 32", "0f 08", "0f 09", "f4", "90", "ec", "ed", "ee", "ef",
        "e4", "e5", "e6", "e7",
    ]
    .map(bytes)
    .to_vec();
    let opcode = prop_oneof![
        9 => prop::sample::select(opcodes),
        1 => prop::collection::vec(any::<u8>(), 1..3)
    ];
    let modrm = prop_oneof![3 => any::<u8>(), 1 => prop::sample::select(vec![0xd1_u8, 0xd9])];
    let parts = (prop::collection::vec(prefix, 0..4), opcode, modrm, any::<[u8; 15]>());
    parts.prop_map(|(prefixes, opcode, modrm, rest)| {
        let all = [prefixes, opcode, vec![modrm], rest.to_vec()].concat();
        all[..15].to_vec()
    })
}

/// What a general decoder says of the address, if this one may know it.
fn address(named: &Named) -> Option<Gprs> {
    let gprs = |all: &[&RegSpec]| {
        let wide = all.iter().all(|one| one.class() == register_class::Q);
        wide.then(|| Gprs(all.iter().fold(0, |set, one| set | 1 << one.num())))
    };
    match named {
        Named::AbsoluteU32 { .. } => gprs(&[]),
        Named::MemDeref { base } | Named::Disp { base, .. } => gprs(&[base]),
        Named::MemIndexScale { index, .. } | Named::MemIndexScaleDisp { index, .. } => {
            gprs(&[index])
        }
        Named::MemBaseIndexScale { base, index, .. }
        | Named::MemBaseIndexScaleDisp { base, index, .. } => gprs(&[base, index]),
        _ => None,
    }
}

fn register(named: &Named) -> Option<(u8, Part)> {
    let Named::Register { reg } = named else { return None };
    let high = reg.class() == register_class::B && reg.num() >= 4;
    let part = match reg.class() {
        register_class::Q => Part::Whole,
        register_class::D => Part::Half,
        register_class::W => Part::Word,
        register_class::B if high => Part::HighByte,
        register_class::B | register_class::RB => Part::LowByte,
        _ => return None,
    };
    Some((if high { reg.num() - 4 } else { reg.num() }, part))
}

/// The same from a general decoder; `None` where this one need not know it.
fn theirs(inst: &Theirs) -> Option<What> {
    let (to, from) = (inst.operand(0), inst.operand(1));
    let extended = |signed| {
        let (number, part) = register(&to)?;
        let bits = u32::from(inst.mem_size()?.bytes_size()?) * 8;
        Some(load(number, part, address(&from)?.0, Some((bits, signed))))
    };
    match inst.opcode() {
        Opcode::CPUID => Some(What::Cpuid),
        Opcode::RDMSR => Some(What::Rdmsr),
        Opcode::WRMSR => Some(What::Wrmsr),
        Opcode::HLT => Some(What::Hlt),
        Opcode::NOP if inst.prefixes.rep() && inst.operand_count() == 0 => Some(What::Pause),
        Opcode::INVD => Some(What::Invd),
        Opcode::WBINVD => Some(What::Wbinvd),
        Opcode::VMMCALL => Some(What::Vmmcall),
        Opcode::XSETBV => Some(What::Xsetbv),
        Opcode::IN => Some(What::In),
        Opcode::OUT => Some(What::Out),
        Opcode::MOVZX => extended(false),
        Opcode::MOVSX | Opcode::MOVSXD => extended(true),
        Opcode::MOV => match (register(&to), register(&from)) {
            (Some((number, part)), None) => Some(load(number, part, address(&from)?.0, None)),
            (None, Some(source)) => match to {
                Named::Register { reg } if reg.class() == register_class::CR => {
                    (reg.num() == 8).then_some(What::WriteCr8(source.0))
                }
                _ => Some(store(Some(source), address(&to)?.0)),
            },
            (None, None) => Some(store(None, address(&to)?.0)),
            (Some(_), Some(_)) => None,
        },
        _ => None,
    }
}

/// Whether this decoder refuses on purpose what a general one knows.
fn is_left_out(code: &[u8]) -> bool {
    let count = code.iter().take_while(|byte| is_prefix(**byte)).count();
    let (before, rest) = code.split_at(count);
    let has = |wanted: &[u8]| before.iter().any(|byte| wanted.contains(byte));
    let rex_is_last = before.iter().rev().skip(1).all(|byte| byte & 0xf0 != 0x40);
    let left_out = match rest {
        // Prefixes make other instructions of it.
        [0x0f, 0x01, ..] => has(&[0x66, 0xf2, 0xf3]),
        [0x0f, 0xb6 | 0xb7 | 0xbe | 0xbf, ..] => has(&[0x64, 0x65, 0x67, 0xf2, 0xf3]),
        [0x0f, ..] => false,
        // An address that follows as it is, segments, a register and a value.
        [0xa0..=0xa3 | 0x8c | 0x8e | 0xb0..=0xbf, ..] => true,
        // The general decoder takes this for a load of 64 bits, which it is with REX.W alone.
        [0x63, ..] if before.last().is_none_or(|rex| rex & 0xf8 != 0x48) => true,
        _ => has(&[0x64, 0x65, 0x67, 0xf2, 0xf3]) && rest.first() != Some(&0x90),
    };
    left_out || !rex_is_last || has(&[0xf0])
}

fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x66 | 0x67 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65 | 0xf0 | 0xf2 | 0xf3)
        || byte & 0xf0 == 0x40
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn a_general_decoder_agrees(code in code()) {
        let decoder = InstDecoder::default();
        let general = decoder.decode_slice(&code);
        match decode(&code, CodeSize::Bits64) {
            Ok(ours) => {
                let inst = general.expect("the general decoder knows all that this one does");
                prop_assert_eq!(Some(ours.what), theirs(&inst));
                let length = usize::from(ours.length);
                prop_assert!(decoder.decode_slice(&code[..length]).is_ok());
                prop_assert!(decoder.decode_slice(&code[..length - 1]).is_err());
                for cut in 0..length {
                    let cut = decode(&code[..cut], CodeSize::Bits64);
                    prop_assert_eq!(cut, Err(Undecodable::Short));
                }
            }
            Err(why) => {
                if let Ok(inst) = general && !is_left_out(&code) {
                    prop_assert_eq!(theirs(&inst), None, "refused as {:?}", why);
                }
            }
        }
    }

    #[test]
    fn general_decoders_agree_on_lengths_in_other_code(code in code()) {
        if let Ok(ours) = decode(&code, CodeSize::Bits32) {
            let decoder = protected_mode::InstDecoder::default();
            prop_assert!(decoder.decode_slice(&code[..ours.length.into()]).is_ok());
            prop_assert!(decoder.decode_slice(&code[..usize::from(ours.length) - 1]).is_err());
        }
        if let Ok(ours) = decode(&code, CodeSize::Bits16) {
            let decoder = real_mode::InstDecoder::default();
            prop_assert!(decoder.decode_slice(&code[..ours.length.into()]).is_ok());
            prop_assert!(decoder.decode_slice(&code[..usize::from(ours.length) - 1]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_stumble(code in prop::collection::vec(any::<u8>(), 0..20)) {
        for size in [CodeSize::Bits16, CodeSize::Bits32, CodeSize::Bits64] {
            if let Ok(known) = decode(&code, size) {
                prop_assert!((1..=15).contains(&known.length));
                prop_assert!(usize::from(known.length) <= code.len());
            }
        }
    }
}
