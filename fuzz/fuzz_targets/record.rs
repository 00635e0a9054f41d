//! Bytes taken for records of the journal. What is done with them stands in `relay_store_redb`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay_store_redb::fuzzing::record(data));
