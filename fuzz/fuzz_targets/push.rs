//! The body of a push. What is done with them stands in `relay_http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::push(data));
