//! See `checkpoint_header` in the library.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tercet_fuzz::checkpoint_header(data));
