//! See `simd_equals_reference` in the library.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tercet_fuzz::simd_equals_reference(data));
