//! Two guests at once, and every route to their secrets while they hold them.

use crate::Result;
use crate::find::{Finder, Seen};
use crate::guests::{DOOR, Running};
use crate::routes;
use crate::secrets::{GUESTS, mode};

/// How often the registers of each guest are looked at while it waits.
const LOOKS: u32 = 20;

/// Plays it.
pub(crate) fn play() -> Result<()> {
    std::fs::create_dir_all(DOOR)?;
    let names = GUESTS.map(|(name, _)| name);
    let finder = Finder::new(&GUESTS.map(|(_, seed)| seed));
    // So that what is found later is the guests', and nothing that is left of looking.
    physical("before", &names, &finder)?;
    let mut guests = vec![];
    for (name, seed) in GUESTS {
        guests.push(Running::start(name, &[seed, mode::ALL], true)?);
    }
    for guest in &mut guests {
        guest.expect("settled")?;
    }
    for _ in 0..LOOKS {
        for guest in &mut guests {
            guest.order("look")?;
        }
    }
    for guest in &mut guests {
        guest.order("pause")?;
        guest.order("dump")?;
    }
    look(&names, &finder, &guests)?;
    for mut guest in guests {
        guest.order("resume")?;
        guest.order("ring")?;
        guest.end()?;
    }
    routes::report("stale-mailbox", &names, &finder, &routes::door(&finder, ".mailbox-2")?);
    Ok(())
}

/// Every route, while the guests are there.
fn look(names: &[&str], finder: &Finder, guests: &[Running]) -> Result<()> {
    routes::report("registers", names, finder, &routes::door(finder, ".registers")?);
    routes::report("mapping", names, finder, &routes::door(finder, ".memory")?);
    let mut seen = Seen::default();
    for guest in guests {
        routes::process(finder, guest, &mut seen)?;
    }
    routes::report("process", names, finder, &seen);
    physical("physical", names, finder)
}

/// All memory that the kernel has.
fn physical(route: &str, names: &[&str], finder: &Finder) -> Result<()> {
    routes::report(route, names, finder, &routes::physical(finder)?);
    Ok(())
}
