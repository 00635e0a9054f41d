//! Bytes taken for keys and rows of the index. What is done with them stands in `relay_store_redb`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_store_redb::fuzzing::rows(data));
