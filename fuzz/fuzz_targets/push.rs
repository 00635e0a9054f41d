//! Decodes the body of a push. The assertions are in `relay_http::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::push(data));
