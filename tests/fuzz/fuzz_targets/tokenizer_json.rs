//! See `tokenizer_json` in the library.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tercet_fuzz::tokenizer_json(data));
