//! What fuzzers call: from bytes to something hostile, and from there to what must hold.
//!
//! `fuzz/` has a target of three lines for each, and the corpora. `tests/corpus.rs` replays these
//! on every test run, with any toolchain. A check that fails panics, as fuzzers expect.

pub mod events;
pub mod image;
pub mod records;
pub mod rules;
mod sealed;
pub mod wire;

use arbitrary::{Arbitrary, Unstructured};

/// A target: what its corpus is called, and what is done with each file of it. False says that the
/// bytes are too few to be an input.
pub type Target = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const TARGETS: &[Target] = &[
    ("events", |bytes| read(bytes, events::check)),
    ("image", |bytes| read(bytes, image::check)),
    ("records", |bytes| read(bytes, records::check)),
    ("rules", |bytes| read(bytes, rules::check)),
    ("wire", |bytes| read(bytes, wire::check)),
];

/// Makes an input of bytes as the fuzzer does.
fn read<'a, T: Arbitrary<'a>>(bytes: &'a [u8], check: fn(&T)) -> bool {
    T::arbitrary_take_rest(Unstructured::new(bytes)).map(|input| check(&input)).is_ok()
}
