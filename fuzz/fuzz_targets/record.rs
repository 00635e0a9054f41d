//! Decodes records of the journal. The assertions are in `relay_store_redb::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_store_redb::fuzzing::record(data));
