//! Steps of random hypervisors and guests: half of them make sense, so that there is something to
//! lose.

use frontend_bare::vmcb::Intercept;
use proptest::prelude::*;
use proptest::sample::select;

use crate::guest::PAGES;
use crate::world::{FRAMES, GUESTS};

/// One step.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Host(Host),
    /// Of a guest, which is entered for it, and launched before if that is said.
    Guest(usize, Own, bool),
    /// Enter a guest with one word of its control block changed.
    Enter(usize, usize, u64),
}

/// What a hypervisor does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Host {
    Read(u64),
    Write(u64, usize, u64),
    Copy(u64, u64),
    /// Of a guest's, wherever that is.
    ReadPage(usize, u64),
    /// The same to be written, and whether it leaves there what it finds.
    WritePage(usize, u64, usize, bool),
    /// An entry in a guest's last table: page, frame, bits.
    Propose(usize, u64, u64, u64),
    /// Any entry of a guest's tables: level, index, entry.
    Entry(usize, u64, usize, u64),
    /// A register that it keeps of a guest.
    Register(usize, usize),
    Operand(Intercept, u64),
    SaveArea(u64),
    /// Moves a page of a guest: reads it, writes it elsewhere, and proposes that.
    Move(usize, u64, u64),
    /// Has a guest that is not launched read a page of another guest's, or write to it.
    Spy(usize, usize, u64, bool),
    /// Proposes for each page where it is, and a frame for each that has none.
    Repair(usize),
    /// Makes a guest anew.
    Make(usize),
    ShutDown,
}

/// What a guest does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Own {
    Write(u64, usize),
    Read(u64, usize),
    Launch,
    Share(u64, bool),
    Unshare(u64),
    Record(u64),
    End,
    Interrupt,
    Halt,
    Cpuid,
    Call(u64, [u64; 3]),
}

fn frame() -> impl Strategy<Value = u64> {
    // Guests' frames for the most part; the monitor's, and what is behind all memory.
    prop_oneof![12 => 0..FRAMES, 1 => FRAMES..256, 1 => Just(256_u64), 1 => Just(0xfee00_u64)]
}

fn word() -> impl Strategy<Value = u64> {
    let bits = prop_oneof![Just(7_u64), Just(0), Just(5), Just(0x87), Just(3)];
    let entry = (frame(), bits).prop_map(|(frame, bits)| frame << 12 | bits);
    // A page fault for a guest, and the interrupt by which 32-bit Linux is called.
    let events = prop_oneof![Just(0x8000_0b0e_u64), Just(0x8000_0080)];
    let any = any::<u32>().prop_map(u64::from);
    prop_oneof![Just(0_u64), Just(u64::MAX), entry, events, any]
}

/// Pages, most of them a few that much is done with.
fn gfn() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 3..5_u64, 2 => Just(12_u64), 1 => 0..PAGES + 1]
}

/// Places in a control block, by words: most of them have a meaning.
fn place() -> impl Strategy<Value = usize> {
    let nested_root = Just(0xb0 / 8);
    let event = Just(0xa8 / 8);
    prop_oneof![2 => event, 1 => nested_root, 2 => 0..0x20_usize, 2 => 0..0x200_usize]
}

fn host() -> impl Strategy<Value = Host> {
    let who = || 0..GUESTS;
    let page = || gfn().prop_map(|gfn| gfn.min(PAGES - 1));
    let operand = select(vec![Intercept::Vmrun, Intercept::Vmload, Intercept::Vmsave]);
    prop_oneof![
        4 => frame().prop_map(Host::Read),
        6 => (who(), page()).prop_map(|(who, gfn)| Host::ReadPage(who, gfn)),
        2 => (who(), page(), 0..3_usize, any::<bool>())
            .prop_map(|(who, gfn, index, back)| Host::WritePage(who, gfn, index, back)),
        2 => (frame(), 0..16_usize, word()).prop_map(|(f, i, w)| Host::Write(f, i, w)),
        2 => (frame(), frame()).prop_map(|(from, to)| Host::Copy(from, to)),
        3 => (who(), page(), frame(), prop_oneof![4 => Just(7_u64), 1 => Just(5), 1 => Just(0)])
            .prop_map(|(who, gfn, frame, bits)| Host::Propose(who, gfn, frame, bits)),
        1 => (who(), 1..=4_u64, 0..4_usize, word())
            .prop_map(|(who, level, index, entry)| Host::Entry(who, level, index, entry)),
        1 => (who(), 0..14_usize).prop_map(|(who, index)| Host::Register(who, index)),
        1 => (operand, word()).prop_map(|(by, word)| Host::Operand(by, word)),
        1 => word().prop_map(Host::SaveArea),
        8 => (who(), page(), 0..4_u64).prop_map(|(w, gfn, to)| Host::Move(w, gfn, to)),
        3 => (who(), who(), page(), any::<bool>())
            .prop_map(|(spy, of, gfn, write)| Host::Spy(spy, of, gfn, write)),
        6 => who().prop_map(Host::Repair),
        1 => who().prop_map(Host::Make),
    ]
}

fn own() -> impl Strategy<Value = Own> {
    let page = gfn;
    let index = || 0..3_usize;
    let call = prop_oneof![0x5056_0000..0x5056_0008_u64, Just(0_u64)];
    let operand = || prop_oneof![4 => page(), 1 => any::<u64>()];
    prop_oneof![
        12 => (page(), index()).prop_map(|(gfn, index)| Own::Write(gfn, index)),
        16 => (page(), index()).prop_map(|(gfn, index)| Own::Read(gfn, index)),
        6 => Just(Own::Launch),
        3 => (page(), any::<bool>()).prop_map(|(gfn, write)| Own::Share(gfn, write)),
        4 => page().prop_map(Own::Unshare),
        1 => page().prop_map(Own::Record),
        1 => Just(Own::End),
        4 => Just(Own::Interrupt),
        2 => Just(Own::Halt),
        2 => Just(Own::Cpuid),
        1 => (call, [operand(), operand(), operand()]).prop_map(|(c, o)| Own::Call(c, o)),
    ]
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let who = || 0..GUESTS;
    let step = prop_oneof![
        10 => host().prop_map(Step::Host),
        14 => (who(), own(), prop::bool::weighted(0.8))
            .prop_map(|(who, own, launched)| Step::Guest(who, own, launched)),
        1 => (who(), place(), word()).prop_map(|(who, index, word)| Step::Enter(who, index, word)),
    ];
    let last = prop_oneof![9 => Just(None), 1 => Just(Some(Step::Host(Host::ShutDown)))];
    (prop::collection::vec(step, 1..80), last).prop_map(|(mut steps, last)| {
        steps.extend(last);
        steps
    })
}
