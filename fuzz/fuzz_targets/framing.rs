//! What a client sends over HTTP/1.1, in pieces of any size. What is done with it stands in
//! `relay_http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::framing(data));
