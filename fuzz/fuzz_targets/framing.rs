//! Parses an HTTP/1.1 stream that arrives in pieces of any size. The assertions are in
//! `relay_http::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::framing(data));
