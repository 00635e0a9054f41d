//! What proxies and clients say of who the client is. What is done with them stands in
//! `relay_http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::forwarded(data));
