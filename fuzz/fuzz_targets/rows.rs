//! Decodes keys and rows of the index. The assertions are in `relay_store_redb::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_store_redb::fuzzing::rows(data));
