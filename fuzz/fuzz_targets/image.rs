//! See sim::fuzz::image.
#![no_main]
libfuzzer_sys::fuzz_target!(|input: sim::fuzz::image::Input| sim::fuzz::image::check(&input));
