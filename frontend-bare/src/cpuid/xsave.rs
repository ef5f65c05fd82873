//! Function 0Dh: which parts of a CPU's state XSAVE saves, and how much room they take.
//!
//! The CPU's own answer is about the registers that it has at the moment, so sizes are computed
//! here, from those of the parts (the manual, volume 3, appendix E.4.7; layouts in volume 2, 11.5).

use super::Asker;

/// The parts that the hypervisor may turn on in its XCR0: x87, SSE, AVX, AVX-512 and keys of
/// pages. Each of them is withheld at exits of a guest that is protected, so who adds one here has
/// to see to that as well.
pub const XCR0: u64 = 0b10_1110_0111;

/// Where parts begin: behind what FXSAVE saves, and the header.
const FIRST: u32 = 576;

/// Bits of subfunction 1, EAX: XSAVEOPT, XSAVEC, and XGETBV of what is in use. Not XSAVES (3),
/// which saves parts of supervisors: there are none. Not XFD (4), which has an MSR.
const INSTRUCTIONS: u32 = 0b111;

/// Bit of ECX of a part: it begins at a multiple of 64 in the compact layout.
const ALIGNED: u32 = 1 << 1;

/// The answer to a subfunction.
pub(super) fn answer(
    subfunction: u32,
    asker: &Asker,
    mut ask: impl FnMut(u32, u32) -> [u32; 4],
) -> [u32; 4] {
    let [low, _, _, high] = ask(0xd, 0);
    let parts = (u64::from(high) << 32 | u64::from(low)) & XCR0;
    match subfunction {
        // There is no XSAVE.
        _ if parts == 0 => [0; 4],
        0 => {
            let now = size(asker.xcr0 & parts, &mut ask);
            [parts as u32, now, size(parts, &mut ask), (parts >> 32) as u32]
        }
        1 => {
            let [instructions, ..] = ask(0xd, 1);
            let compact = compact_size(asker.xcr0 & parts, &mut ask);
            [instructions & INSTRUCTIONS, compact, 0, 0]
        }
        2..64 if parts & 1 << subfunction != 0 => {
            let [size, offset, flags, _] = ask(0xd, subfunction);
            [size, offset, flags & ALIGNED, 0]
        }
        _ => [0; 4],
    }
}

/// The extended parts among these, by their numbers.
fn extended(parts: u64) -> impl Iterator<Item = u32> {
    (2..u64::BITS).filter(move |part| parts & 1 << part != 0)
}

/// How many bytes XSAVE needs for these parts.
fn size(parts: u64, ask: &mut impl FnMut(u32, u32) -> [u32; 4]) -> u32 {
    let end = |part| {
        let [size, offset, ..] = ask(0xd, part);
        offset.saturating_add(size)
    };
    extended(parts).map(end).fold(FIRST, u32::max)
}

/// How many bytes XSAVEC needs for these parts.
fn compact_size(parts: u64, ask: &mut impl FnMut(u32, u32) -> [u32; 4]) -> u32 {
    extended(parts).fold(FIRST, |end, part| {
        let [size, _, flags, _] = ask(0xd, part);
        let start = if flags & ALIGNED == 0 { Some(end) } else { end.checked_next_multiple_of(64) };
        start.unwrap_or(u32::MAX).saturating_add(size)
    })
}
