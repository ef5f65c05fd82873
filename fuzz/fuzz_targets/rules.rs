//! See sim::fuzz::rules.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: sim::fuzz::rules::Input| sim::fuzz::rules::check(&input));
