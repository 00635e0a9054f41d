//! Runs requests on a failing disk and compares the store with a model. The assertions are in
//! `relay_store_redb::fuzzing`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_store_redb::fuzzing::operations(data));
