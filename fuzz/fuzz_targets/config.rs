//! Parses a configuration file and environment variables. The assertions are in
//! `relay_bin::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_bin::fuzzing::config(data));
