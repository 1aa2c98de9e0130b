//! Whole messages, made 7-bit.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackpost::mime::downgrade::fuzz_downgrade(data));
