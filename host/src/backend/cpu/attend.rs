//! Attention: positions, cache, softmax.

use rayon::prelude::*;
use tercet_core::simd::Simd;

use super::CpuBackend;
use super::cache::{KvCache, KvNumber};
use super::rope::Rope;
use crate::backend::Row;
use crate::config::{HEAD_DIM_MAX, ModelConfig};
use crate::kv::KEY_BLOCK as BLOCK;
use crate::math;

/// Query heads that share one decoded block.
const GROUP: usize = 16;

/// The operation `attend` on the rows of a step.
#[derive(Debug)]
pub(super) struct Attend<'a> {
    pub(super) backend: &'a CpuBackend,
    pub(super) config: &'a ModelConfig,
    pub(super) rows: &'a [Row],
    /// Angles of the rows, where positions are rotary.
    pub(super) rope: Option<&'a Rope>,
}

impl Attend<'_> {
    /// Turns queries and keys in `qkv`, `(rows, query + 2 * kv)`, stores keys and values, then
    /// attends: all rows are stored before any row looks, so a step may hold many rows of a slot.
    pub(super) fn run<T: KvNumber>(
        &self,
        cache: &mut KvCache<T>,
        layer: usize,
        qkv: &mut [f32],
        mixed: &mut [f32],
    ) {
        let &Self { config, rows, .. } = self;
        let CpuBackend { threads, simd } = self.backend;
        let head_dim = config.head_dim;
        let (query, kv) = (config.query_width(), config.kv_width());
        let width = query + 2 * kv;
        let qkv = &mut qkv[..rows.len() * width];

        if let Some(rope) = self.rope {
            threads.chunks(qkv, 8 * width, |chunk, qkv| {
                for (row, qkv) in (8 * chunk..).zip(qkv.chunks_exact_mut(width)) {
                    for head in qkv[..query + kv].chunks_exact_mut(head_dim) {
                        rope.turn(row, head);
                    }
                }
            });
        }

        let layout = cache.layout();
        let (keys, values) = cache.layer_mut(layer);
        for (row, qkv) in rows.iter().zip(qkv.chunks_exact(width)) {
            let new_keys = qkv[query..query + kv].chunks_exact(head_dim);
            let new_values = qkv[query + kv..].chunks_exact(head_dim);
            for (head, (key, value)) in new_keys.zip(new_values).enumerate() {
                let start = layout.head_start(row.slot, head);
                let places = keys[start + layout.key_start(row.position)..].iter_mut();
                for (place, &x) in places.step_by(BLOCK).zip(key) {
                    *place = T::round(x);
                }
                let places = values[start + row.position * head_dim..].iter_mut();
                for (place, &x) in places.zip(value) {
                    *place = T::round(x);
                }
            }
        }

        let (keys, values) = cache.layer(layer);
        let group = query / config.kv_heads;
        let one = |index: usize, mixed: &mut [f32]| {
            let (row, head) = (index / config.kv_heads, index % config.kv_heads);
            let query = &qkv[row * width + head * group..][..group];
            let Row { slot, position, .. } = rows[row];
            let start = layout.head_start(slot, head);
            let range = start..start + layout.head_elements();
            let (keys, values) = (&keys[range.clone()], &values[range]);
            attend_head(*simd, query, keys, values, position + 1, head_dim, mixed);
        };
        threads.install(|| {
            mixed.par_chunks_mut(group).enumerate().for_each(|(index, mixed)| one(index, mixed));
        });
    }
}

/// `mixed[h] = Σ_t softmax_t(q[h]·k[t] / √head_dim) v[t]` for the query heads `h` of one key/value
/// head and all `t < positions`.
///
/// `query` and `mixed` are `(heads of the group, head_dim)`, `keys` and `values` those of one head
/// in [`KvLayout`](crate::kv::KvLayout). The softmax runs over blocks with a running maximum:
/// whenever a block raises it, what was summed before is multiplied by `exp(old - new)`.
fn attend_head<T: KvNumber>(
    simd: Simd,
    query: &[f32],
    keys: &[T],
    values: &[T],
    positions: usize,
    head_dim: usize,
    mixed: &mut [f32],
) {
    simd.vectorize(
        #[inline(always)]
        || {
            let groups = query.chunks(GROUP * head_dim).zip(mixed.chunks_mut(GROUP * head_dim));
            for (query, mixed) in groups {
                attend_group(query, keys, values, positions, head_dim, mixed);
            }
        },
    );
}

#[inline(always)]
fn attend_group<T: KvNumber>(
    query: &[f32],
    keys: &[T],
    values: &[T],
    positions: usize,
    head_dim: usize,
    mixed: &mut [f32],
) {
    #[allow(clippy::cast_precision_loss, reason = "head_dim is at most 512")]
    let factor = 1.0 / (head_dim as f32).sqrt();
    let heads = query.len() / head_dim;
    let mut key_block = [0.0; BLOCK * HEAD_DIM_MAX];
    let mut value_block = [0.0; BLOCK * HEAD_DIM_MAX];
    let mut peaks = [f32::NEG_INFINITY; GROUP];
    let mut sums = [0.0_f32; GROUP];
    mixed.fill(0.0);

    for first in (0..positions).step_by(BLOCK) {
        let count = BLOCK.min(positions - first);
        let start = first * head_dim;
        let keys = T::load(&keys[start..start + BLOCK * head_dim], &mut key_block);
        let values = T::load(&values[start..start + count * head_dim], &mut value_block);
        for head in 0..heads {
            let query = &query[head * head_dim..(head + 1) * head_dim];
            let mixed = &mut mixed[head * head_dim..(head + 1) * head_dim];

            let mut weights = [0.0_f32; BLOCK];
            let keys = keys.as_chunks::<BLOCK>().0;
            math::add_scaled(query, |element| &keys[element], &mut weights);
            for weight in &mut weights {
                *weight *= factor;
            }
            // Nothing was stored beyond the end; exp(-inf) = 0 keeps it out.
            weights[count..].fill(f32::NEG_INFINITY);
            let peak = weights.iter().fold(peaks[head], |peak, &weight| peak.max(weight));
            let fade = math::exp(peaks[head] - peak);
            peaks[head] = peak;

            for weight in &mut weights {
                *weight = math::exp(*weight - peak);
            }
            sums[head] = sums[head] * fade + math::fold(&weights);
            add_values(&weights[..count], values, fade, mixed);
        }
    }
    for (head, mixed) in mixed.chunks_exact_mut(head_dim).enumerate() {
        for out in mixed {
            *out /= sums[head];
        }
    }
}

/// `mixed = mixed · fade + Σ_t weights[t] · values[t]`, position after position.
#[inline(always)]
fn add_values(weights: &[f32], values: &[f32], fade: f32, mixed: &mut [f32]) {
    let head_dim = mixed.len();
    let (stretches, rest) = mixed.as_chunks_mut::<BLOCK>();
    let whole = stretches.len() * BLOCK;
    for (index, out) in stretches.iter_mut().enumerate() {
        for out in out.iter_mut() {
            *out *= fade;
        }
        let value = |position: usize| {
            let value = values[position * head_dim + index * BLOCK..].first_chunk();
            value.expect("a stretch lies inside its head")
        };
        math::add_scaled(weights, value, out);
    }
    for out in rest.iter_mut() {
        *out *= fade;
    }
    for (weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
        for (out, value) in rest.iter_mut().zip(&value[whole..]) {
            *out += weight * value;
        }
    }
}
