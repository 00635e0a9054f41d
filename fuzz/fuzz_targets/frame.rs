//! Decodes a frame, a segment header and a file name. The assertions are in
//! `relay_journal::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_journal::fuzzing::frame(data));
