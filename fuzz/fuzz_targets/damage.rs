//! A journal in which bits are changed. What is done with them stands in `relay_journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_journal::fuzzing::damage(data));
