//! Decodes the body of a request in CBOR. The assertions are in `relay_http::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::cbor(data));
