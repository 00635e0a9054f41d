//! Requests on a disk that fails, beside a model. What is done with them stands in
//! `relay_store_redb`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_store_redb::fuzzing::operations(data));
