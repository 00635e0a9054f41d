//! Checks a proof against a name. The assertions are in `relay_auth::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_auth::fuzzing::proof(data));
