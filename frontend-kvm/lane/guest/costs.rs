//! What it costs a guest to stop, in ticks of the time-stamp counter: the least of some rounds, for
//! whoever runs the guest has other things to do as well.

use crate::abi::port;
use crate::say::say;
use crate::secrets::COST_GFN;
use crate::sys;

/// How often each stop is made.
const ROUNDS: u64 = 50;
/// How many pages are touched.
const PAGES: u64 = 32;

/// Says what stops cost that only KVM answers, and those that its VMM answers.
pub fn of_stops() {
    let cpuid = least(ROUNDS, |_| {
        sys::cpuid(0);
    });
    say!("cost cpuid {cpuid}");
    say!("cost port {}", least(ROUNDS, |_| sys::out_double(port::DOORBELL, 1)));
}

/// Says what it costs to touch pages that were not there.
pub fn of_touches(what: &str) {
    say!("cost {what} {}", least(PAGES, |page| sys::write(COST_GFN + page, 0, page)));
}

fn least(rounds: u64, mut stop: impl FnMut(u64)) -> u64 {
    let costs = (0..rounds).map(|round| {
        let begun = sys::time();
        stop(round);
        sys::time() - begun
    });
    costs.min().unwrap_or(0)
}
