//! See sim::fuzz::wire.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: sim::fuzz::wire::Input| sim::fuzz::wire::check(&input));
