//! The first program of a Linux that hosts guests: starts two of them under the plain VMM, looks
//! for their secrets by every route that Linux has, attacks some more, and says what it saw.
//!
//! It knows nothing of a monitor. Whoever reads its lines knows whether there is one.

mod attacks;
mod costs;
mod find;
mod guests;
mod linux;
mod ring_zero;
mod routes;
mod scenario;
#[expect(dead_code, reason = "it is the guest's as well, and the test's")]
#[path = "../secrets.rs"]
mod secrets;

use frontend_kvm::plain::abi;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() {
    // Linux passes on whatever it does not know itself.
    let is_told = |word: &str| std::env::args().any(|told| told == word);
    let ran = linux::set_up().and_then(|()| match is_told("costs") {
        true => costs::play(),
        false => scenario::play().and_then(|()| attacks::play()).and_then(|()| ring_zero::play()),
    });
    match ran {
        Ok(()) => println!("stage: done"),
        Err(why) => println!("stage: FAILED: {why}"),
    }
    linux::power_off();
}
