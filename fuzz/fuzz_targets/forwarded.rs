//! Parses the headers in which proxies and clients name the client. The assertions are in
//! `relay_http::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::forwarded(data));
