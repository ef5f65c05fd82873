//! See sim::fuzz::events.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: sim::fuzz::events::Input| sim::fuzz::events::check(&input));
