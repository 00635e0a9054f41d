//! A segment file of any bytes. What is done with them stands in `relay_journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_journal::fuzzing::segment(data));
