//! See sim::fuzz::records.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: sim::fuzz::records::Input| sim::fuzz::records::check(&input));
