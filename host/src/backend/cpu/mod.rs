//! The CPU: the meaning of every operation, and a fast way to run it.
//!
//! Integers come from [`tercet_core`] and are exact. Floats have one order of operations
//! (`math.rs`), so a row's result is the same bits for every SIMD level, number of threads,
//! prefill chunk and batch.

mod activations;
mod attend;
mod cache;
mod head;
mod linear;
mod ops;
mod rope;
mod threads;

use rayon::prelude::*;
pub use tercet_core::Simd;

pub use self::ops::CpuOps;
use self::threads::Threads;
use super::{Backend, DeviceError, Limits};
use crate::config::ModelConfig;
use crate::model::{FloatMatrix, Layer, Model};
use crate::ternary::Rows128Matrix;

/// A CPU with a number of threads and a SIMD level.
#[derive(Debug)]
pub struct CpuBackend {
    threads: Threads,
    simd: Simd,
}

impl CpuBackend {
    /// Starts `threads` threads that compute with `simd`.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Threads`] when the system gives no threads.
    pub fn new(threads: usize, simd: Simd) -> Result<Self, DeviceError> {
        Ok(Self { threads: Threads::new(threads.max(1))?, simd })
    }

    /// As many threads as the process may use (a container's quota counts).
    #[must_use]
    pub fn default_threads() -> usize {
        std::thread::available_parallelism().map_or(1, core::num::NonZero::get)
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.count()
    }

    /// The SIMD level.
    #[must_use]
    pub fn simd(&self) -> Simd {
        self.simd
    }

    /// Runs `work` on a thread of the pool. Sessions work anywhere, but each operation of a thread
    /// outside the pool first wakes one inside.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.threads.install(work)
    }
}

/// A model in memory: codes borrowed from the mapping where the file holds `rows128`.
#[derive(Debug)]
pub struct CpuWeights<'c> {
    config: ModelConfig,
    embedding: FloatMatrix<'c>,
    layers: Vec<CpuLayer<'c>>,
    final_norm: Vec<f32>,
    head: FloatMatrix<'c>,
}

#[derive(Debug)]
struct CpuLayer<'c> {
    attention_norm: Vec<f32>,
    qkv: [Rows128Matrix<'c>; 3],
    attention_sub_norm: Option<Vec<f32>>,
    attention_out: Rows128Matrix<'c>,
    ffn_norm: Vec<f32>,
    gate_up: [Rows128Matrix<'c>; 2],
    ffn_sub_norm: Option<Vec<f32>>,
    down: Rows128Matrix<'c>,
}

impl CpuWeights<'_> {
    /// Bytes of weights that a step reads, however many rows it has: every matrix and norm and the
    /// head. Of an embedding that is not also the head a row is read per token, which is left out.
    #[must_use]
    pub fn bytes_per_step(&self) -> u64 {
        let norm = |norm: &Option<Vec<f32>>| norm.as_ref().map_or(0, Vec::len);
        let layer = |layer: &CpuLayer<'_>| {
            let matrices = layer.qkv.iter().chain([&layer.attention_out]).chain(&layer.gate_up);
            let matrices = matrices.chain([&layer.down]).map(|matrix| matrix.bytes.len());
            let norms = layer.attention_norm.len()
                + layer.ffn_norm.len()
                + norm(&layer.attention_sub_norm)
                + norm(&layer.ffn_sub_norm);
            matrices.sum::<usize>() + 4 * norms
        };
        let layers: usize = self.layers.iter().map(layer).sum();
        (layers + 4 * self.final_norm.len() + self.head.bytes.len()) as u64
    }
}

impl Backend for CpuBackend {
    type Weights<'c> = CpuWeights<'c>;
    type Ops<'w> = CpuOps<'w>;

    fn upload<'c>(
        &self,
        model: &Model<'c>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<CpuWeights<'c>, DeviceError> {
        let bytes = |layer: &Layer<'c>| -> u64 {
            layer.matrices().map(|matrix| matrix.stored_bytes() as u64).sum()
        };
        let total = model.layers.iter().map(bytes).sum();
        let mut done = 0;
        progress(done, total);
        let mut layers = Vec::with_capacity(model.layers.len());
        // Layers in groups, so that threads share the work and progress still shows.
        for group in model.layers.chunks(self.threads.count()) {
            let made: Result<Vec<_>, DeviceError> =
                self.threads.install(|| group.par_iter().map(cpu_layer).collect());
            layers.extend(made?);
            done += group.iter().map(bytes).sum::<u64>();
            progress(done, total);
        }
        Ok(CpuWeights {
            config: model.config.clone(),
            embedding: model.embedding,
            layers,
            final_norm: model.final_norm.clone(),
            head: model.head,
        })
    }

    fn ops<'w>(
        &'w self,
        weights: &'w CpuWeights<'_>,
        limits: Limits,
    ) -> Result<CpuOps<'w>, DeviceError> {
        CpuOps::new(self, weights, limits)
    }
}

fn cpu_layer<'c>(layer: &Layer<'c>) -> Result<CpuLayer<'c>, DeviceError> {
    let [query, key, value] = &layer.qkv;
    let [gate, up] = &layer.gate_up;
    Ok(CpuLayer {
        attention_norm: layer.attention_norm.clone(),
        qkv: [query.rows128()?, key.rows128()?, value.rows128()?],
        attention_sub_norm: layer.attention_sub_norm.clone(),
        attention_out: layer.attention_out.rows128()?,
        ffn_norm: layer.ffn_norm.clone(),
        gate_up: [gate.rows128()?, up.rows128()?],
        ffn_sub_norm: layer.ffn_sub_norm.clone(),
        down: layer.down.rows128()?,
    })
}
