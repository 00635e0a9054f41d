//! Base64 by the instructions of the processor. What is done with them stands in `relay_http`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::base64(data));
