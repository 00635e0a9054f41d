//! A configuration file, and variables. What is done with them stands in `relay_bin`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_bin::fuzzing::config(data));
