//! What a session will take, before anything is allocated.

use crate::backend::cpu::unpacked_bytes;
use crate::backend::{HeadType, KvType, Limits};
use crate::kv::KvLayout;
use crate::layout::{WeightLayout, padded_cols};
use crate::model::{Layer, Model};
use crate::ternary::Codes;

/// Bytes that a session under `limits` on `threads` threads takes beside the weights: the whole
/// cache, as if every position were used, and the buffers of a step, rounded up.
#[must_use]
pub fn session_bytes(model: &Model<'_>, limits: &Limits, threads: usize) -> u64 {
    let config = &model.config;
    let number = match limits.kv {
        KvType::F32 => 4,
        KvType::F16 => 2,
    };
    let cache = KvLayout::new(config, limits).elements().unwrap_or(usize::MAX);
    let cache = (cache as u64).saturating_mul(2 * number);

    let (query, kv) = (config.query_width(), config.kv_width());
    let widest = config.hidden.max(query + 2 * kv).max(config.ffn);
    let widest = padded_cols(widest);
    // Floats between operations, the quantised rows (INT8, products, exact sums of three matrices
    // at a time), and where attention puts each head.
    let row = 4 * (config.hidden + 2 * query + 2 * kv + config.ffn)
        + 20 * widest
        + size_of::<&mut [f32]>() * config.kv_heads;
    let logits = 4 * (config.hidden + if limits.logits_max > 1 { 2 } else { 1 } * config.vocab);
    let rows = (limits.rows_max * row + limits.logits_max * logits) as u64;
    let digits = model.layers.iter().flat_map(Layer::matrices);
    let digits = digits.filter(|matrix| matches!(matrix.codes, Codes::Base3 { .. }));
    let unpacked = unpacked_bytes(digits.map(|matrix| matrix.cols).max(), limits.rows_max);
    cache.saturating_add(rows).saturating_add((threads * unpacked) as u64)
}

/// Bytes that bringing a model to the CPU allocates: none for matrices that are used where they
/// are mapped, all of them otherwise; and the head, where it is not held as it is stored.
#[must_use]
pub fn upload_bytes(model: &Model<'_>, head: HeadType) -> u64 {
    let head = match head {
        HeadType::Stored => 0,
        HeadType::Int8 => model.head.rows * (model.head.cols + 4),
    };
    let matrices = model.layers.iter().flat_map(Layer::matrices);
    let packed = matrices.filter(|matrix| match matrix.codes {
        Codes::Rows128 { .. } | Codes::Base3 { .. } => false,
        Codes::Quarters { .. } | Codes::Master { .. } => true,
    });
    let rows128 = WeightLayout::Rows128;
    let packed: usize = packed.map(|matrix| matrix.rows * rows128.row_bytes(matrix.cols)).sum();
    (packed + head) as u64
}
