//! [`CpuOps`]: the buffers of a session and the operations on them.

use half::f16;

use super::activations::{Activations, Norm};
use super::attend::Attend;
use super::cache::KvCache;
use super::head::Head;
use super::linear::{Add, GateUp, Linear, LinearScratch, Store};
use super::rope::Rope;
use super::{CpuBackend, CpuWeights};
use crate::backend::{Buffer, DeviceError, KvType, Limits, Ops, Row, TokenId};
use crate::kv::KvLayout;
use crate::sampler::Sampler;

/// The cache, in either number type.
#[derive(Debug)]
enum Cache {
    F32(KvCache<f32>),
    F16(KvCache<f16>),
}

/// Buffers of one session on the CPU.
#[derive(Debug)]
pub struct CpuOps<'w> {
    backend: &'w CpuBackend,
    weights: &'w CpuWeights<'w>,
    limits: Limits,
    /// The step's rows.
    rows: Vec<Row>,
    /// `(rows_max, hidden)`
    hidden: Vec<f32>,
    /// `(rows_max, query + 2 * kv)`
    qkv: Vec<f32>,
    /// `(rows_max, query)`
    mixed: Vec<f32>,
    /// `(rows_max, ffn)`
    gated: Vec<f32>,
    /// Logits and what they are made from.
    head: Head,
    acts: Activations,
    scratch: LinearScratch,
    rope: Rope,
    cache: Cache,
}

impl<'w> CpuOps<'w> {
    pub(super) fn new(
        backend: &'w CpuBackend,
        weights: &'w CpuWeights<'w>,
        limits: Limits,
    ) -> Result<Self, DeviceError> {
        let config = &weights.config;
        let rows_max = limits.rows_max;
        let layout = KvLayout::new(config, &limits);
        let cache = match limits.kv {
            KvType::F32 => Cache::F32(KvCache::new(layout)?),
            KvType::F16 => Cache::F16(KvCache::new(layout)?),
        };
        let (query, kv) = (config.query_width(), config.kv_width());
        let widest = config.hidden.max(query).max(config.ffn);
        Ok(Self {
            backend,
            weights,
            limits,
            rows: Vec::with_capacity(rows_max),
            hidden: floats("the residual stream", rows_max, config.hidden)?,
            qkv: floats("queries, keys and values", rows_max, query + 2 * kv)?,
            mixed: floats("the attention output", rows_max, query)?,
            gated: floats("the feed-forward block", rows_max, config.ffn)?,
            head: Head::new(limits.logits_max, config)?,
            acts: Activations::new(rows_max, widest),
            scratch: LinearScratch::new(rows_max, widest),
            rope: Rope::new(config.head_dim, config.rope_theta, rows_max),
            cache,
        })
    }

    fn norm<'n>(&self, weight: &'n [f32]) -> Norm<'n> {
        Norm { weight, eps: self.weights.config.norm_eps }
    }

    /// The part of a buffer that the step uses.
    fn buffer(&mut self, buffer: Buffer) -> &mut [f32] {
        let config = &self.weights.config;
        let rows = self.rows.len();
        let (buffer, width) = match buffer {
            Buffer::Hidden => (&mut self.hidden, config.hidden),
            Buffer::Qkv => (&mut self.qkv, config.query_width() + 2 * config.kv_width()),
            Buffer::Mixed => (&mut self.mixed, config.query_width()),
            Buffer::Gated => (&mut self.gated, config.ffn),
            Buffer::Logits => return self.head.logits_mut(),
        };
        &mut buffer[..rows * width]
    }
}

/// `(rows, width)` zeros, or an error instead of an abort.
pub(super) fn floats(
    what: &'static str,
    rows: usize,
    width: usize,
) -> Result<Vec<f32>, DeviceError> {
    let count = rows.checked_mul(width);
    let mut buffer = Vec::new();
    if count.is_none_or(|count| buffer.try_reserve_exact(count).is_err()) {
        let needed = count.map_or(u64::MAX, |count| count as u64).saturating_mul(4);
        return Err(DeviceError::OutOfMemory { what, needed });
    }
    buffer.resize(rows * width, 0.0);
    Ok(buffer)
}

impl Ops for CpuOps<'_> {
    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError> {
        assert!((1..=self.limits.rows_max).contains(&rows.len()), "{} rows", rows.len());
        let embedding = &self.weights.embedding;
        for (row, hidden) in rows.iter().zip(self.hidden.chunks_exact_mut(embedding.cols)) {
            assert!(row.slot < self.limits.slots, "slot {}", row.slot);
            assert!(row.position < self.limits.positions_max, "position {}", row.position);
            embedding.float.decode(embedding.row(row.token as usize), hidden);
        }
        self.rope.set_positions(rows.iter().map(|row| row.position));
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        Ok(())
    }

    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuBackend { threads, simd } = self.backend;
        let (threads, simd) = (threads, *simd);
        let hidden = self.weights.config.hidden;
        let width = self.weights.config.query_width() + 2 * self.weights.config.kv_width();
        let layer = &self.weights.layers[layer];
        let rows = self.rows.len();

        let norm = Some(self.norm(&layer.attention_norm));
        self.acts.quantize(threads, simd, &self.hidden[..rows * hidden], hidden, norm);
        let mut offset = 0;
        for matrix in &layer.qkv {
            Linear { threads, simd, acts: &self.acts, out_stride: width, offset }.run(
                &[matrix],
                &mut self.scratch,
                &mut self.qkv[..rows * width],
                &Store,
            );
            offset += matrix.rows;
        }
        Ok(())
    }

    fn attend(&mut self, layer: usize) -> Result<(), DeviceError> {
        let config = &self.weights.config;
        let step = Attend { backend: self.backend, config, rows: &self.rows, rope: &self.rope };
        let mixed = &mut self.mixed[..self.rows.len() * config.query_width()];
        match &mut self.cache {
            Cache::F32(cache) => step.run(cache, layer, &mut self.qkv, mixed),
            Cache::F16(cache) => step.run(cache, layer, &mut self.qkv, mixed),
        }
        Ok(())
    }

    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuBackend { threads, simd } = self.backend;
        let (threads, simd) = (threads, *simd);
        let hidden = self.weights.config.hidden;
        let query = self.weights.config.query_width();
        let layer = &self.weights.layers[layer];
        let rows = self.rows.len();

        let norm = layer.attention_sub_norm.as_deref().map(|weight| self.norm(weight));
        self.acts.quantize(threads, simd, &self.mixed[..rows * query], query, norm);
        Linear { threads, simd, acts: &self.acts, out_stride: hidden, offset: 0 }.run(
            &[&layer.attention_out],
            &mut self.scratch,
            &mut self.hidden[..rows * hidden],
            &Add,
        );
        Ok(())
    }

    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuBackend { threads, simd } = self.backend;
        let (threads, simd) = (threads, *simd);
        let (hidden, ffn) = (self.weights.config.hidden, self.weights.config.ffn);
        let activation = self.weights.config.activation;
        let layer = &self.weights.layers[layer];
        let rows = self.rows.len();

        let norm = Some(self.norm(&layer.ffn_norm));
        self.acts.quantize(threads, simd, &self.hidden[..rows * hidden], hidden, norm);
        let [gate, up] = &layer.gate_up;
        Linear { threads, simd, acts: &self.acts, out_stride: ffn, offset: 0 }.run(
            &[gate, up],
            &mut self.scratch,
            &mut self.gated[..rows * ffn],
            &GateUp { simd, activation },
        );
        Ok(())
    }

    fn down(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuBackend { threads, simd } = self.backend;
        let (threads, simd) = (threads, *simd);
        let (hidden, ffn) = (self.weights.config.hidden, self.weights.config.ffn);
        let layer = &self.weights.layers[layer];
        let rows = self.rows.len();

        let norm = layer.ffn_sub_norm.as_deref().map(|weight| self.norm(weight));
        self.acts.quantize(threads, simd, &self.gated[..rows * ffn], ffn, norm);
        Linear { threads, simd, acts: &self.acts, out_stride: hidden, offset: 0 }.run(
            &[&layer.down],
            &mut self.scratch,
            &mut self.hidden[..rows * hidden],
            &Add,
        );
        Ok(())
    }

    fn logits(&mut self) -> Result<(), DeviceError> {
        let CpuBackend { threads, simd } = self.backend;
        let norm = self.norm(&self.weights.final_norm);
        let asking = self.rows.iter().zip(self.hidden.chunks_exact(self.weights.config.hidden));
        let asking = asking.filter(|(row, _)| row.logits).map(|(_, hidden)| hidden);
        self.head.run(threads, *simd, &self.weights.head, norm, asking);
        Ok(())
    }

    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        let vocab = self.weights.config.vocab;
        sampler.choose(&self.head.logits_mut()[asked * vocab..(asked + 1) * vocab])
    }

    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        Ok(self.buffer(buffer).to_vec())
    }

    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.buffer(buffer).copy_from_slice(values);
        Ok(())
    }
}
