//! See `model_config` in the library.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tercet_fuzz::model_config(data));
