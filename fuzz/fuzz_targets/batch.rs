//! Decodes the body of a batch of pushes. The assertions are in `relay_http::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::batch(data));
