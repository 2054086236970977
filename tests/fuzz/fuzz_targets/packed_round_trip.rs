//! See `packed_round_trip` in the library.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tercet_fuzz::packed_round_trip(data));
