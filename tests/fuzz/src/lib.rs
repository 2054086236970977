//! What is done to each input. `fuzz_targets/` hands these to the fuzzer, `tests/replay.rs` runs
//! them over the committed corpora, where every input that once broke something stays.
//!
//! A target fails by panicking. What an input means is said at each.

#![forbid(unsafe_code)]

mod core_targets;
mod host_targets;

pub use core_targets::{packed_round_trip, simd_equals_reference};
pub use host_targets::{chat_template, checkpoint_header, model_config, tokenizer_json};

/// A target of this crate.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("chat_template", chat_template),
    ("checkpoint_header", checkpoint_header),
    ("model_config", model_config),
    ("packed_round_trip", packed_round_trip),
    ("simd_equals_reference", simd_equals_reference),
    ("tokenizer_json", tokenizer_json),
];
