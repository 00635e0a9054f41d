//! Checks that keys compare as their bytes do. The assertions are in
//! `relay_store_redb::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_store_redb::fuzzing::order(data));
