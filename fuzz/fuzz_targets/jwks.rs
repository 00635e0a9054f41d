//! Reads a set of an issuer's keys. The assertions are in `relay_auth::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_auth::fuzzing::jwks(data));
