//! What the hypervisor above the monitor is told by CPUID.
//!
//! All is hidden that is not in the table of what is shown (`shown`): so nothing new on some CPU
//! to come is offered by accident. Sections are those of the manual; functions of CPUID are in its
//! volume 3, appendix E.
//!
//! Two features of SVM are shown although the CPU may lack them, next RIP and decode assists. On
//! such a CPU the monitor owes them for every guest, launched or not:
//! - the next instruction's address where 15.7.1 promises it; and where the hypervisor injects a
//!   software interrupt or exception, that address of its own is the one that the guest returns to
//!   (15.20).
//! - what MOV DR, INTn, INVLPG and INVLPGA name (15.8.1 to 15.8.3). MOV CR may say that it was not
//!   decoded, and no bytes of an instruction is an answer, too (15.8.4).

mod shown;
mod xsave;

pub use xsave::XCR0;

/// The hypervisor's own registers, which part of an answer depends on. While the monitor runs, the
/// CPU has others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Its CR4, as in its control block.
    pub cr4: u64,
    /// Its XCR0.
    pub xcr0: u64,
}

/// Who the monitor says that it is, in EBX, ECX and EDX of [`MONITOR`].
pub const SIGNATURE: [u8; 12] = *b"PageveilBare";

/// The first function of the monitor's own. Those of a monitor below this one stay where they are,
/// at 4000_0000h: software looks for more in steps of 100h.
pub const MONITOR: u32 = 0x4000_0100;

/// The version of the calls that a guest can make, in EAX of the function after [`MONITOR`].
pub const CALLS_VERSION: u32 = 1;

const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

const OSXSAVE: u32 = 1 << 27;
const HYPERVISOR: u32 = 1 << 31;
const OSPKE: u32 = 1 << 4;

/// Features of SVM (Fn8000_000A, EDX) that the monitor provides itself.
const NEXT_RIP: u32 = 1 << 3;
const DECODE_ASSISTS: u32 = 1 << 7;

/// The answer to one CPUID as EAX, EBX, ECX, EDX. `ask` is the CPU's own answer to a function and a
/// subfunction.
pub fn cpuid(
    function: u32,
    subfunction: u32,
    asker: &Asker,
    mut ask: impl FnMut(u32, u32) -> [u32; 4],
) -> [u32; 4] {
    match function {
        MONITOR => {
            let [ebx, ecx, edx] = signature();
            return [MONITOR + 1, ebx, ecx, edx];
        }
        0x4000_0101 => return [CALLS_VERSION, 0, 0, 0],
        0xd => return xsave::answer(subfunction, asker, ask),
        _ => (),
    }
    let Some(shown) = shown::of(function, subfunction) else { return [0; 4] };
    let mut answer = ask(function, subfunction);
    for (register, mask) in answer.iter_mut().zip(shown) {
        *register &= mask;
    }
    let [eax, ebx, ecx, edx] = &mut answer;
    match function {
        // How far functions go.
        0 => *eax = (*eax).min(shown::LAST),
        0x8000_0000 => *eax = (*eax).min(shown::LAST_EXTENDED),
        7 if subfunction == 0 => {
            *eax = (*eax).min(1);
            *ecx |= if asker.cr4 & CR4_PKE != 0 { OSPKE } else { 0 };
        }
        1 => {
            *ecx |= if asker.cr4 & CR4_OSXSAVE != 0 { OSXSAVE } else { 0 };
            // There is one: the monitor. Linux leaves microcode alone then, which is as well.
            *ecx |= HYPERVISOR;
        }
        0x8000_000a => {
            // The monitor's own is the highest, or the lowest but for the host's (15.16).
            *ebx = ebx.saturating_sub(1);
            *edx |= NEXT_RIP | DECODE_ASSISTS;
        }
        _ => (),
    }
    answer
}

fn signature() -> [u32; 3] {
    let (words, _) = SIGNATURE.as_chunks();
    core::array::from_fn(|at| words.get(at).map_or(0, |word| u32::from_le_bytes(*word)))
}
