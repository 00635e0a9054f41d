//! Checks an issuer's token against a plain name. The assertions are in `relay_auth::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_auth::fuzzing::issuer_token(data));
