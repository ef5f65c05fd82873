//! What it costs to have the monitor beneath Linux, in instructions, by QEMU's counting of them:
//! every instruction takes two nanoseconds of the machine's time, and so of its time-stamp counter.

use std::collections::BTreeMap;

use crate::boot::{Beneath, Said};

/// Instructions by what they were spent on.
pub(crate) type Costs = BTreeMap<String, u64>;

/// Nanoseconds that an instruction takes (QEMU's `-icount shift=1`).
const TICKS: u64 = 2;

/// What the monitor says of its own work, by its own names and by ours: each time on average.
const WORK: [(&str, &str); 6] = [
    ("hypervisor-0x72", "monitor: CPUID of Linux"),
    ("hypervisor-0x80", "monitor: VMRUN"),
    ("hypervisor-0x82", "monitor: VMLOAD"),
    ("guest-0x72", "monitor: exit to KVM"),
    ("sealed-page", "monitor: page sealed"),
    ("touched-page", "monitor: page touched"),
];

/// What a guest says of its stops, in its own words and in ours.
const STOPS: [(&str, &str); 4] = [
    ("cpuid", "guest: CPUID, by KVM"),
    ("port", "guest: port, by the VMM"),
    ("touch", "guest: new page"),
    ("touch-again", "guest: page that the VMM has read"),
];

/// Reads costs out of what was said.
pub(crate) fn of(said: &Said, beneath: Beneath) -> Costs {
    let mut costs = Costs::new();
    let suffix = match beneath {
        Beneath::Nothing => "without the monitor",
        Beneath::Monitor => "with the monitor",
    };
    for (word, name) in STOPS {
        let line = format!("cost {word} ");
        let ticks = said.facts.lines().find_map(|said| said.split_once(&line)).map(|(_, n)| n);
        let ticks = ticks.unwrap_or_else(|| panic!("no {line}in {}", said.facts));
        let ticks: u64 = ticks.trim().parse().expect("a number");
        costs.insert(format!("{name}, {suffix}"), ticks / TICKS);
    }
    for (word, name) in WORK {
        let found = said.console.split_whitespace().find_map(|field| field.strip_prefix(word));
        let found = found.and_then(|rest| rest.strip_prefix('=')?.split_once('/'));
        let Some((count, ticks)) = found else { continue };
        let (count, ticks): (u64, u64) = (count.parse().unwrap(), ticks.parse().unwrap());
        costs.insert(name.to_owned(), ticks / count / TICKS);
    }
    costs
}

/// Which costs are not what they were, by more than a twentieth.
pub(crate) fn changed(now: &Costs, then: &Costs) -> Vec<String> {
    let names = now.keys().chain(then.keys().filter(|name| !now.contains_key(*name)));
    let differs = |(now, then): (u64, u64)| now.abs_diff(then) * 20 > then;
    let cost = |costs: &Costs, name: &String| costs.get(name).copied().unwrap_or(0);
    names
        .map(|name| (name, (cost(now, name), cost(then, name))))
        .filter(|(_, both)| differs(*both))
        .map(|(name, (now, then))| format!("{name}: {now} instructions, were {then}"))
        .collect()
}
