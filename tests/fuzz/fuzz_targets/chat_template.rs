//! See `chat_template` in the library.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tercet_fuzz::chat_template(data));
