//! [`CpuOps`]: the buffers of a session and the operations on them.

use super::activations::{Activations, RowNorm};
use super::attend::{Attend, AttendScratch};
use super::buffer::zeros;
use super::cache::{Half, KvCache};
use super::head::Head;
use super::linear::{Add, Linear, LinearScratch, Relu, Relu2, Silu, Store, UnpackScratch};
use super::rope::Rope;
use super::{CpuBackend, CpuLinear, CpuWeights};
use crate::backend::{Buffer, DeviceError, KvType, Limits, Ops, OpsBytes, Quantized, Row, TokenId};
use crate::config::{Activation, Positions};
use crate::kv::KvLayout;
use crate::model::Norm;
use crate::sampler::Sampler;

/// The cache, in either number type.
#[derive(Debug)]
enum Cache {
    F32(KvCache<f32>),
    F16(KvCache<Half>),
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
    unpack: UnpackScratch,
    attend: AttendScratch,
    /// Where positions are rotary.
    rope: Option<Rope>,
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
        if let (Some(table), Positions::Learned { offset }) = (&weights.positions, config.positions)
        {
            let most = table.rows - offset;
            assert!(limits.positions_max <= most, "the model has {most} learned positions");
        }
        let (query, kv) = (config.query_width(), config.kv_width());
        let widest = config.hidden.max(query).max(config.ffn);
        let most_features = widest.max(query + 2 * kv);
        Ok(Self {
            backend,
            weights,
            limits,
            rows: Vec::with_capacity(rows_max),
            hidden: zeros(Buffer::Hidden.name(), rows_max, config.hidden)?,
            qkv: zeros(Buffer::Qkv.name(), rows_max, query + 2 * kv)?,
            mixed: zeros(Buffer::Mixed.name(), rows_max, query)?,
            gated: zeros(Buffer::Gated.name(), rows_max, config.ffn)?,
            head: Head::new(limits.logits_max, config)?,
            acts: Activations::new(rows_max, widest),
            scratch: LinearScratch::new(backend, weights.layout(), rows_max, most_features),
            unpack: UnpackScratch::new(backend, weights, rows_max)?,
            attend: AttendScratch::new(backend, config, &limits)?,
            rope: match config.positions {
                Positions::Rotary { theta } => Some(Rope::new(config.head_dim, theta, rows_max)),
                Positions::Learned { .. } => None,
            },
            cache,
        })
    }

    fn norm<'n>(&self, norm: &'n Norm) -> RowNorm<'n> {
        RowNorm { norm, eps: self.weights.config.norm_eps }
    }

    /// `hidden += linear(prepared rows)`.
    fn add_to_hidden(&mut self, linear: &CpuLinear<'_>) {
        let width = self.weights.config.hidden;
        let hidden = &mut self.hidden[..self.rows.len() * width];
        let step = Linear { backend: self.backend, acts: &self.acts, unpack: &self.unpack };
        step.run(&[&[linear]], &mut self.scratch, hidden, &Add);
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

impl Ops for CpuOps<'_> {
    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError> {
        assert!((1..=self.limits.rows_max).contains(&rows.len()), "{} rows", rows.len());
        let CpuWeights { config, embedding, positions, .. } = self.weights;
        for (row, hidden) in rows.iter().zip(self.hidden.chunks_exact_mut(config.hidden)) {
            assert!(row.slot < self.limits.slots, "slot {}", row.slot);
            assert!(row.position < self.limits.positions_max, "position {}", row.position);
            embedding.float.decode(embedding.row(row.token as usize), hidden);
            if let (Some(table), Positions::Learned { offset }) = (positions, config.positions) {
                // Nothing is mixed before the first layer: its buffer is free (and as wide, since
                // learned positions come without wider heads).
                let learned = &mut self.mixed[..config.hidden];
                table.float.decode(table.row(row.position + offset), learned);
                for (hidden, learned) in hidden.iter_mut().zip(learned) {
                    *hidden += *learned;
                }
            }
        }
        if let Some(rope) = &mut self.rope {
            rope.set_positions(rows.iter().map(|row| row.position));
        }
        self.rows.clear();
        self.rows.extend_from_slice(rows);
        Ok(())
    }

    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuWeights { config, layers, .. } = self.weights;
        let hidden = &self.hidden[..self.rows.len() * config.hidden];
        let norm = Some(self.norm(&layers[layer].attention_norm));
        self.acts.prepare(self.backend, config.linears, hidden, config.hidden, norm);
        let width = config.query_width() + 2 * config.kv_width();
        let out = &mut self.qkv[..self.rows.len() * width];
        let [query, key, value] = &layers[layer].qkv;
        let step = Linear { backend: self.backend, acts: &self.acts, unpack: &self.unpack };
        step.run(&[&[query], &[key], &[value]], &mut self.scratch, out, &Store);
        Ok(())
    }

    fn attend(&mut self, layer: usize) -> Result<(), DeviceError> {
        let config = &self.weights.config;
        let rope = self.rope.as_ref();
        let step = Attend { backend: self.backend, config, rows: &self.rows, rope };
        let mixed = &mut self.mixed[..self.rows.len() * config.query_width()];
        match &mut self.cache {
            Cache::F32(cache) => step.run(cache, layer, &mut self.attend, &mut self.qkv, mixed),
            Cache::F16(cache) => step.run(cache, layer, &mut self.attend, &mut self.qkv, mixed),
        }
        Ok(())
    }

    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuWeights { config, layers, .. } = self.weights;
        let layer = &layers[layer];
        let query = config.query_width();
        let norm = layer.attention_sub_norm.as_ref().map(|norm| self.norm(norm));
        let mixed = &self.mixed[..self.rows.len() * query];
        self.acts.prepare(self.backend, config.linears, mixed, query, norm);
        self.add_to_hidden(&layer.attention_out);
        Ok(())
    }

    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuWeights { config, layers, .. } = self.weights;
        let layer = &layers[layer];
        let hidden = &self.hidden[..self.rows.len() * config.hidden];
        let norm = Some(self.norm(&layer.ffn_norm));
        self.acts.prepare(self.backend, config.linears, hidden, config.hidden, norm);
        let out = &mut self.gated[..self.rows.len() * config.ffn];
        let step = Linear { backend: self.backend, acts: &self.acts, unpack: &self.unpack };
        let (alone, gated) = ([&layer.up], layer.gate.as_ref().map(|gate| [gate, &layer.up]));
        let jobs = [gated.as_ref().map_or(&alone[..], |gated| &gated[..])];
        match config.activation {
            Activation::Relu => step.run(&jobs, &mut self.scratch, out, &Relu),
            Activation::Relu2 => step.run(&jobs, &mut self.scratch, out, &Relu2),
            Activation::Silu => step.run(&jobs, &mut self.scratch, out, &Silu),
        }
        Ok(())
    }

    fn down(&mut self, layer: usize) -> Result<(), DeviceError> {
        let CpuWeights { config, layers, .. } = self.weights;
        let layer = &layers[layer];
        let norm = layer.ffn_sub_norm.as_ref().map(|norm| self.norm(norm));
        let gated = &self.gated[..self.rows.len() * config.ffn];
        self.acts.prepare(self.backend, config.linears, gated, config.ffn, norm);
        self.add_to_hidden(&layer.down);
        Ok(())
    }

    fn logits(&mut self) -> Result<(), DeviceError> {
        let CpuWeights { config, head, final_norm, .. } = self.weights;
        let norm = self.norm(final_norm);
        let asking = self.rows.iter().zip(self.hidden.chunks_exact(config.hidden));
        let asking = asking.filter(|(row, _)| row.logits).map(|(_, hidden)| hidden);
        self.head.run(self.backend, head, norm, asking);
        Ok(())
    }

    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        let vocab = self.weights.config.vocab;
        sampler.choose(&self.head.logits_mut()[asked * vocab..(asked + 1) * vocab])
    }

    fn bytes(&self) -> OpsBytes {
        let floats = [&self.hidden, &self.qkv, &self.mixed, &self.gated].map(Vec::len);
        let floats = 4 * floats.iter().sum::<usize>();
        let rope = self.rope.as_ref().map_or(0, Rope::bytes);
        let parts = [
            self.head.bytes(),
            self.acts.bytes(),
            self.scratch.bytes(),
            self.unpack.bytes(),
            self.attend.bytes(),
        ];
        let cache = match &self.cache {
            Cache::F32(cache) => cache.bytes(),
            Cache::F16(cache) => cache.bytes(),
        };
        let work = floats + rope + parts.iter().sum::<usize>();
        OpsBytes { cache: cache as u64, work: work as u64 }
    }

    fn quantized(&mut self) -> Result<Option<Quantized>, DeviceError> {
        Ok(self.acts.quantized(self.weights.config.linears))
    }

    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        Ok(self.buffer(buffer).to_vec())
    }

    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError> {
        self.buffer(buffer).copy_from_slice(values);
        Ok(())
    }
}
