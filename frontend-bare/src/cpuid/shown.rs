//! Which bits of CPUID's answers the hypervisor may see, function by function.
//!
//! Shown is what runs above the monitor as it runs without it: instructions on registers and
//! memory, what describes caches and topology, and control bits that the control block switches.
//! What is hidden on purpose has a comment.

/// The last of the standard functions that is answered.
pub(super) const LAST: u32 = 0xd;

/// The last of the extended ones.
pub(super) const LAST_EXTENDED: u32 = 0x8000_0026;

/// What is shown of EAX, EBX, ECX, EDX of some functions, in all subfunctions or in one.
struct Shown(core::ops::RangeInclusive<u32>, Option<u32>, [u32; 4]);

const ALL: u32 = u32::MAX;

/// A register with these bits.
const fn bits<const N: usize>(numbers: [u32; N]) -> u32 {
    let (mut register, mut at) = (0, 0);
    while at < N {
        register |= 1 << numbers[at];
        at += 1;
    }
    register
}

/// The mask of an answer; `None` if all of it is hidden.
pub(super) fn of(function: u32, subfunction: u32) -> Option<[u32; 4]> {
    let shown = SHOWN.iter().find(|Shown(functions, only, _)| {
        functions.contains(&function) && only.is_none_or(|only| only == subfunction)
    });
    shown.map(|Shown(.., mask)| *mask)
}

const SHOWN: &[Shown] = &[
    // How many functions there are, and the vendor.
    Shown(0..=0, None, [ALL; 4]),
    Shown(1..=1, None, [ALL, ALL, FEATURES_C, FEATURES_D]),
    // MONITOR and MWAIT; whether the APIC's timer always runs, and how fast the CPU does.
    Shown(5..=5, None, [ALL; 4]),
    Shown(6..=6, None, [bits([2]), 0, bits([0]), 0]),
    Shown(7..=7, Some(0), [ALL, STRUCTURED_B, STRUCTURED_C, STRUCTURED_D]),
    Shown(7..=7, Some(1), [STRUCTURED_1, 0, 0, 0]),
    // Topology: APIC numbers are the machine's.
    Shown(0xb..=0xb, None, [ALL; 4]),
    // Function 0Dh is computed. Missing above it are those that share caches and bandwidth out
    // (0Fh, 10h): by them one guest's use shows.
    //
    // What a monitor below this one says of itself.
    Shown(0x4000_0000..=0x4000_00ff, None, [ALL; 4]),
    Shown(0x8000_0000..=0x8000_0000, None, [ALL; 4]),
    Shown(0x8000_0001..=0x8000_0001, None, [ALL, ALL, EXTENDED_C, EXTENDED_D]),
    // Its name, and caches.
    Shown(0x8000_0002..=0x8000_0006, None, [ALL; 4]),
    // Machine checks and power.
    Shown(0x8000_0007..=0x8000_0007, None, [0, bits([0, 1, 2, 3]), ALL, POWER]),
    // EDX below bit 16 belongs to INVLPGB.
    Shown(0x8000_0008..=0x8000_0008, None, [ALL, SIZES_B, ALL, 0xffff_0000]),
    Shown(0x8000_000a..=0x8000_000a, None, [0xff, ALL, 0, SVM]),
    // TLBs of 1 GiB pages, hints, caches, topology.
    Shown(0x8000_0019..=0x8000_001a, None, [ALL; 4]),
    Shown(0x8000_001d..=0x8000_001e, None, [ALL; 4]),
    // Missing: samples (1Bh, 1Ch), encryption of memory (1Fh, 23h, 24h, 25h), sharing of bandwidth
    // (20h), counters and records of branches (22h).
    Shown(0x8000_0021..=0x8000_0021, None, [EXTENDED_2_A, 0, EXTENDED_2_C, 0]),
    Shown(0x8000_0026..=0x8000_0026, None, [ALL; 4]),
];

/// Fn0000_0001, ECX, but for OSXSAVE (27) and the mark of hypervisors (31), which are computed. The
/// x2APIC (21) stays: its one command that starts CPUs is intercepted, and so is the move into its
/// mode.
const FEATURES_C: u32 = bits([0, 1, 3, 9, 12, 13, 17, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30]);

/// Fn0000_0001, EDX.
const FEATURES_D: u32 =
    bits([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26, 28]);

/// Fn0000_0007, subfunction 0, EBX. Hidden are TSX, monitoring and sharing of caches (12, 15), MPX,
/// whose registers nobody masks, and traces (25).
const STRUCTURED_B: u32 =
    bits([0, 3, 5, 7, 8, 9, 10, 16, 17, 18, 19, 20, 21, 23, 24, 28, 29, 30, 31]);

/// ECX, but for OSPKE (4), which is computed. Hidden are shadow stacks (7), which
/// [`entry_check`](crate::entry_check) refuses for guests, too; waiting in user mode (5), locks
/// that trap (24), SGX (30), and keys of supervisors (31): all have an MSR or state beside the
/// control block.
const STRUCTURED_C: u32 = bits([1, 2, 3, 6, 8, 9, 10, 11, 12, 14, 16, 22, 25, 27, 28]);

/// EDX. Hidden is tracking of indirect branches (20), as shadow stacks are; records of branches
/// (19); tiles (22, 24, 25).
const STRUCTURED_D: u32 = bits([4, 8, 10, 14, 23]);

/// Fn0000_0007, subfunction 1, EAX: more instructions on vectors and strings.
const STRUCTURED_1: u32 = bits([4, 5, 10, 11, 12, 23]);

/// Fn8000_0001, ECX. Hidden are samples (10, 15), SKINIT (12), which would start another monitor,
/// counters beside the first four (23, 24, 27, 28), and debug registers with masks (26, 30), which
/// nothing switches.
const EXTENDED_C: u32 = bits([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 16, 17, 19, 21, 22, 29]);

/// Fn8000_0001, EDX.
const EXTENDED_D: u32 = bits([
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 20, 22, 23, 24, 25, 26, 27, 29, 30,
    31,
]);

/// Fn8000_0007, EDX: clocks and voltages.
const POWER: u32 = bits([0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]);

/// Fn8000_0008, EBX. Hidden are a counter of instructions (1), INVLPGB (3, 21), which would reach
/// other guests' translations, sharing of bandwidth (6), MCOMMIT (8), and samples of branches (31).
const SIZES_B: u32 =
    bits([0, 2, 4, 9, 12, 13, 14, 15, 16, 17, 18, 19, 20, 24, 25, 26, 27, 28, 29, 30]);

/// Fn8000_000A, EDX: nested paging (0), clean bits (5), which the monitor does not pass on, flushes
/// of one guest (6), and filters of PAUSE (10, 12). Next RIP (3) and decode assists (7) are
/// computed.
///
/// Hidden is what [`entry_check`](crate::entry_check) refuses: records of branches (1), AVIC (13,
/// 18), VMLOAD on guest addresses (15), flags of guests (16), GMET (17), shadow stacks of
/// supervisors (19), SPEC_CTRL (20), read-only tables (21), INVLPGB (24), NMIs (25), samples (26);
/// and what has an MSR that is not passed on: the lock (2), the rate of the time-stamp counter (4).
const SVM: u32 = bits([0, 5, 6, 10, 12]);

/// Fn8000_0021, EAX: what selectors and serialising instructions do, and which flaws the CPU has
/// not. Hidden are addresses whose upper bits are ignored (7), and what is turned on in HWCR (17).
const EXTENDED_2_A: u32 = bits([0, 1, 2, 5, 6, 8, 10, 11, 18, 27, 28, 29, 30]);

/// Fn8000_0021, ECX: more of the latter.
const EXTENDED_2_C: u32 = bits([1, 2]);
