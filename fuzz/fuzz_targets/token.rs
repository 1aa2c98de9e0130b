//! Token paths of strangers, and a good token with an octet changed.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackpost::token::fuzz_verify(data));
