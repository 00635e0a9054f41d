//! Reads a journal in which bits were flipped. The assertions are in `relay_journal::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_journal::fuzzing::damage(data));
