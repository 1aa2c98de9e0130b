//! Message data: dots, line ends, the size limit; the first octet is the limit.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trackpost::smtp::fuzz_data(data));
