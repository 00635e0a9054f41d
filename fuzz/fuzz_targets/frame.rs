//! Bytes taken for a frame, the header of a segment, and the name of a file. What is done with them
//! stands in `relay_journal`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_journal::fuzzing::frame(data));
