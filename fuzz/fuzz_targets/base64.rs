//! Compares base64 by the processor's vector instructions with the plain implementation. The
//! assertions are in `relay_http::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_http::fuzzing::base64(data));
