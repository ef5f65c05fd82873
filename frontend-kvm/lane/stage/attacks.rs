//! Attacks on guests by their own VMM, each on a guest of its own, and what came of them.
//!
//! One that is no attack is among them: a page that is really paged out and comes back as it was.

use frontend_kvm::GuestMemory;
use frontend_kvm::plain::{Guest, Host, PlainVm, Stop};
use view_core::{Gfn, Page};

use crate::Result;
use crate::abi::boot;
use crate::secrets::{self, Digest, SECRET_GFN, mode, number};

/// What became of a guest.
#[derive(Debug)]
enum Ending {
    /// It ended by itself, and had found everything as it was.
    Unmoved,
    /// It ended by itself, and had found something else.
    Fooled,
    /// It does not run any more.
    Stopped(String),
}

/// A guest that ran, and what it said.
struct Played {
    ending: Ending,
    lines: Vec<String>,
}

/// What is done to a guest when it rings, by how often it has.
type AtRing<'a> = dyn FnMut(&PlainVm, u32) -> Result<()> + 'a;

/// One attack by its name.
type Attack = (&'static str, fn(&Host) -> Result<Played>);

const ATTACKS: [Attack; 6] = [
    ("page-out", page_out),
    ("write", write),
    ("swap", swap),
    ("replay", replay),
    ("foreign", foreign),
    ("register", register),
];

/// Plays them all.
pub(crate) fn play() -> Result<()> {
    let host = Host::open()?;
    for (name, attack) in ATTACKS {
        let Played { ending, lines } = attack(&host)?;
        let said = lines.join("; ");
        match ending {
            Ending::Unmoved => println!("attack {name}: unmoved: {said}"),
            Ending::Fooled => println!("attack {name}: fooled: {said}"),
            Ending::Stopped(why) => println!("attack {name}: stopped: {why}; {said}"),
        }
    }
    Ok(())
}

fn gfn(number: u64) -> Gfn {
    Gfn::new(number).unwrap_or(Gfn::MAX)
}

fn vm(host: &Host, seed: u64, mode: u64) -> Result<PlainVm> {
    let image = std::fs::read("/guest.elf")?;
    let words: [u64; 2] = [seed, mode];
    const _: () = assert!(boot::WORDS_MAX >= 2);
    Ok(PlainVm::new(host, &Guest { image: &image, pages: 256, words: &words })?)
}

/// Runs a guest, and does something at each ring.
fn run(mut vm: PlainVm, at_ring: &mut AtRing<'_>) -> Result<Played> {
    let (mut text, mut rings) = (vec![], 0);
    let why = loop {
        match vm.run() {
            Stop::Console(byte) => text.push(byte),
            Stop::Rang(..) => {
                rings += 1;
                at_ring(&vm, rings)?;
            }
            Stop::Device | Stop::Mailbox(_) | Stop::Signal => {}
            Stop::Ended(code) => break format!("it ended with {code}"),
            Stop::Nobody(place) => break format!("it asked for {place:#x}"),
            Stop::Dead(why) => break why.to_string(),
        }
    };
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let said = |what: &str| lines.iter().any(|line| line == what);
    let ending = match (said("verdict kept"), said("verdict broken")) {
        (true, false) => Ending::Unmoved,
        (false, true) => Ending::Fooled,
        _ => Ending::Stopped(why),
    };
    Ok(Played { ending, lines })
}

/// Writes to a private page.
fn write(host: &Host) -> Result<Played> {
    run(vm(host, 0x11, mode::PAGES)?, &mut |vm, ring| {
        if ring == 1 {
            vm.memory().write_word(gfn(SECRET_GFN), 7, 0x4141_4141_4141_4141)?;
        }
        Ok(())
    })
}

/// Shows the guest two of its pages, each in place of the other. Both are read before, so that a
/// monitor that keeps pages where they are has to look where they are now.
fn swap(host: &Host) -> Result<Played> {
    run(vm(host, 0x22, mode::PAGES)?, &mut |vm, ring| {
        let (one, other, memory) = (gfn(SECRET_GFN), gfn(SECRET_GFN + 1), vm.memory());
        if ring == 1 {
            let mut page = Page::zeroed();
            memory.read_page(one, &mut page)?;
            memory.read_page(other, &mut page)?;
            memory.show(one, memory, other)?;
            memory.show(other, memory, one)?;
        }
        Ok(())
    })
}

/// Keeps a page as it is read, and shows it to the guest when that has written another version.
fn replay(host: &Host) -> Result<Played> {
    let (mut old, fresh) = (Page::zeroed(), GuestMemory::new(1)?);
    run(vm(host, 0x33, mode::PAGES)?, &mut |vm, ring| {
        let page = gfn(SECRET_GFN);
        if ring == 1 {
            vm.memory().read_page(page, &mut old)?;
        } else {
            vm.memory().read_page(page, &mut Page::zeroed())?;
            fresh.write_page(gfn(0), &old)?;
            vm.memory().show(page, &fresh, gfn(0))?;
        }
        Ok(())
    })
}

/// Shows a guest the page of another one.
fn foreign(host: &Host) -> Result<Played> {
    const OTHER: u64 = 0x45;
    let mut other = vm(host, OTHER, mode::PAGES)?;
    loop {
        match other.run() {
            Stop::Rang(..) => break,
            Stop::Dead(why) => return Err(format!("the other guest: {why}").into()),
            Stop::Ended(code) => return Err(format!("the other guest ended: {code}").into()),
            Stop::Console(_) | Stop::Device | Stop::Mailbox(_) | Stop::Signal | Stop::Nobody(_) => {
            }
        }
    }
    let played = run(vm(host, 0x44, mode::PAGES)?, &mut |vm, ring| {
        if ring == 1 {
            vm.memory().read_page(gfn(SECRET_GFN), &mut Page::zeroed())?;
            vm.memory().show(gfn(SECRET_GFN), other.memory(), gfn(SECRET_GFN))?;
        }
        Ok(())
    })?;
    let theirs = Digest::EMPTY.with(secrets::word(OTHER, number::memory(0, 0))).0;
    let leaked = played.lines.iter().any(|line| line.ends_with(&format!("digest {theirs:#x}")));
    println!("stage: the guest {} the other one's page", if leaked { "reads" } else { "misses" });
    Ok(played)
}

/// Changes a register that has nothing to do with the exit.
fn register(host: &Host) -> Result<Played> {
    run(vm(host, 0x55, mode::REGISTERS)?, &mut |vm, _| {
        let mut registers = vm.registers()?;
        registers.r15 = 0x4141_4141_4141_4141;
        Ok(vm.set_registers(&registers)?)
    })
}

/// No attack: takes a page from the guest, keeps its bytes elsewhere, and gives them back in
/// another frame.
fn page_out(host: &Host) -> Result<Played> {
    let (mut kept, fresh) = (Page::zeroed(), GuestMemory::new(1)?);
    run(vm(host, 0x66, mode::PAGES)?, &mut |vm, ring| {
        let (page, memory) = (gfn(SECRET_GFN), vm.memory());
        if ring == 1 {
            memory.close(page)?;
            memory.read_page(page, &mut kept)?;
            memory.punch(page)?;
            fresh.write_page(gfn(0), &kept)?;
            memory.show(page, &fresh, gfn(0))?;
        }
        Ok(())
    })
}
