//! What each probe must find in the registers that it changes.

use crate::abi;
use crate::secrets::{MSR_VALUE, sent};
use crate::sys;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const R10: usize = 10;
const ALL: u64 = u64::MAX;

/// How KVM says that it knows no such call.
const NO_SUCH_CALL: u64 = 1000_u64.wrapping_neg();

/// Registers, which bits of them, and what those must be.
pub fn to(probe: &str) -> impl Iterator<Item = (usize, u64, u64)> {
    let one = |register, bits, value| [Some((register, bits, value & bits)), None, None, None];
    let low = |value| value & 0xffff_ffff;
    let values = match probe {
        "in 1" => one(RAX, 0xff, abi::answer(sent::BYTE)),
        "in 2" => one(RAX, 0xffff, abi::answer(sent::WORD)),
        "in 4" => one(RAX, ALL, low(abi::answer(sent::DOUBLE))),
        "load 8" => one(R10, ALL, abi::answer(sent::QUAD)),
        "load 4" => one(R10, ALL, low(abi::answer(sent::DOUBLE))),
        "cpuid" => {
            let [eax, ebx, ecx, edx] = sys::cpuid(0);
            [(RAX, ALL, eax), (RBX, ALL, ebx), (RCX, ALL, ecx), (RDX, ALL, edx)].map(Some)
        }
        "rdmsr" => [Some((RAX, ALL, MSR_VALUE)), Some((RDX, ALL, 0)), None, None],
        "vmmcall" => one(RAX, ALL, NO_SUCH_CALL),
        _ => [None; 4],
    };
    values.into_iter().flatten()
}
