//! Whole messages, planned and copied.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackpost::rewrite::fuzz_rewrite(data));
