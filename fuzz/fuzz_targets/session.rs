//! Whole SMTP sessions, cut in different ways; the first octet is the configuration.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackpost::smtp::fuzz_session(data));
