//! Decodes the body of a pull. The assertions are in `relay_http::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::pull(data));
