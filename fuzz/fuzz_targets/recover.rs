//! The last segment of a log after a crash.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackpost::spool::fuzz_recover(data));
