//! Reads the names in the URIs of a certificate. The assertions are in `relay_auth::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_auth::fuzzing::certificate(data));
