//! The CPU: the meaning of every operation, and a fast way to run it.
//!
//! Integers come from [`tercet_core`] and are exact. Floats have one order of operations
//! (`math.rs`), so a row's result is the same bits for every SIMD level, number of threads,
//! prefill chunk and batch.

mod activations;
mod attend;
mod buffer;
mod cache;
mod head;
mod linear;
mod ops;
mod rope;
mod threads;

use rayon::prelude::*;
pub use tercet_core::Simd;

use self::head::HeadWeights;
pub(crate) use self::linear::unpacked_bytes;
pub use self::ops::CpuOps;
use self::threads::Threads;
use super::{Backend, DeviceError, HeadType, Limits};
use crate::config::ModelConfig;
use crate::layout::WeightLayout;
use crate::model::{FloatMatrix, Layer, Linear, LinearWeights, Model, Norm};
use crate::ternary::{Base3Matrix, Rows128Matrix};

/// A CPU with a number of threads and a SIMD level.
#[derive(Debug)]
pub struct CpuBackend {
    threads: Threads,
    simd: Simd,
    head: HeadType,
}

impl CpuBackend {
    /// Starts `threads` threads that compute with `simd`.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Threads`] when the system gives no threads.
    pub fn new(threads: usize, simd: Simd) -> Result<Self, DeviceError> {
        Ok(Self { threads: Threads::new(threads.max(1))?, simd, head: HeadType::Stored })
    }

    /// The same CPU, holding the head of models that are uploaded from now on as `head` says.
    #[must_use]
    pub fn with_head(self, head: HeadType) -> Self {
        Self { head, ..self }
    }

    /// How the head is held.
    #[must_use]
    pub fn head(&self) -> HeadType {
        self.head
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

    /// Rows that one task multiplies with the same weights of a model in `layout`: steps of a
    /// prefill should have as many for every thread. Unpacking weights for tiles, or digits to
    /// codes, pays over more rows than codes for vectors.
    #[must_use]
    pub fn tile_rows(&self, layout: WeightLayout) -> usize {
        match (layout, self.simd) {
            (WeightLayout::Base3, _) => 128,
            #[cfg(target_arch = "x86_64")]
            (WeightLayout::Rows128, Simd::AmxInt8(_)) => 128,
            (WeightLayout::Rows128, _) => 32,
        }
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

/// A model in memory: codes borrowed from the mapping where the file holds `rows128` or `base3`,
/// floats always.
#[derive(Debug)]
pub struct CpuWeights<'c> {
    config: ModelConfig,
    embedding: FloatMatrix<'c>,
    positions: Option<FloatMatrix<'c>>,
    layers: Vec<CpuLayer<'c>>,
    final_norm: Norm,
    head: HeadWeights<'c>,
}

#[derive(Debug)]
struct CpuLayer<'c> {
    attention_norm: Norm,
    qkv: [CpuLinear<'c>; 3],
    attention_sub_norm: Option<Norm>,
    attention_out: CpuLinear<'c>,
    ffn_norm: Norm,
    gate: Option<CpuLinear<'c>>,
    up: CpuLinear<'c>,
    ffn_sub_norm: Option<Norm>,
    down: CpuLinear<'c>,
}

/// A linear as it is multiplied.
#[derive(Debug)]
struct CpuLinear<'c> {
    matrix: CpuMatrix<'c>,
    bias: Option<Vec<f32>>,
}

#[derive(Debug)]
enum CpuMatrix<'c> {
    Rows128(Rows128Matrix<'c>),
    Base3(Base3Matrix<'c>),
    Float(FloatMatrix<'c>),
}

impl<'c> CpuLayer<'c> {
    fn linears(&self) -> impl Iterator<Item = &CpuLinear<'c>> {
        let attention = self.qkv.iter().chain([&self.attention_out]);
        attention.chain(&self.gate).chain([&self.up, &self.down])
    }
}

impl CpuLinear<'_> {
    fn rows(&self) -> usize {
        match &self.matrix {
            CpuMatrix::Rows128(matrix) => matrix.rows,
            CpuMatrix::Base3(matrix) => matrix.rows,
            CpuMatrix::Float(matrix) => matrix.rows,
        }
    }

    fn bytes(&self) -> usize {
        let weights = match &self.matrix {
            CpuMatrix::Rows128(matrix) => matrix.bytes.len(),
            CpuMatrix::Base3(matrix) => matrix.bytes.len(),
            CpuMatrix::Float(matrix) => matrix.bytes.len(),
        };
        weights + 4 * self.bias.as_ref().map_or(0, Vec::len)
    }
}

impl CpuWeights<'_> {
    /// Bytes of the head that were made beside the tensors of the checkpoint.
    #[must_use]
    pub fn head_bytes_added(&self) -> u64 {
        match &self.head {
            HeadWeights::Stored(_) => 0,
            HeadWeights::Int8(_) => self.head.bytes() as u64,
        }
    }

    /// Bytes of the whole model: what was made for it, and what is read where it is mapped.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        // The embedding is the head's table where the two are tied.
        let is_head = |table: &FloatMatrix<'_>| match &self.head {
            HeadWeights::Stored(head) => core::ptr::eq(head.bytes, table.bytes),
            HeadWeights::Int8(_) => false,
        };
        let tables = [Some(&self.embedding), self.positions.as_ref()].into_iter().flatten();
        let tables = tables.filter(|table| !is_head(table)).map(|table| table.bytes.len() as u64);
        self.bytes_per_step() + tables.sum::<u64>()
    }

    /// How the ternary matrices are held.
    fn layout(&self) -> WeightLayout {
        self.base3_cols_max().map_or(WeightLayout::Rows128, |_| WeightLayout::Base3)
    }

    /// Columns of the widest matrix in base 3.
    fn base3_cols_max(&self) -> Option<usize> {
        let linears = self.layers.iter().flat_map(CpuLayer::linears);
        let base3 = linears.filter_map(|linear| match &linear.matrix {
            CpuMatrix::Base3(matrix) => Some(matrix.cols),
            CpuMatrix::Rows128(_) | CpuMatrix::Float(_) => None,
        });
        base3.max()
    }

    /// Bytes of weights that a step reads, however many rows it has: every linear and norm and the
    /// head. Of the tables that are not also the head a row is read per token, which is left out.
    #[must_use]
    pub fn bytes_per_step(&self) -> u64 {
        let norm = |norm: &Norm| 4 * (norm.weight.len() + norm.bias.as_ref().map_or(0, Vec::len));
        let layer = |layer: &CpuLayer<'_>| -> usize {
            let linears = layer.linears().map(CpuLinear::bytes);
            let norms = [&layer.attention_norm, &layer.ffn_norm].into_iter();
            let norms = norms.chain(&layer.attention_sub_norm).chain(&layer.ffn_sub_norm);
            linears.chain(norms.map(norm)).sum()
        };
        let layers: usize = self.layers.iter().map(layer).sum();
        (layers + norm(&self.final_norm) + self.head.bytes()) as u64
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
            layer.linears().map(|linear| linear.stored_bytes() as u64).sum()
        };
        let head_bytes = match self.head {
            HeadType::Stored => 0,
            HeadType::Int8 => model.head.bytes.len() as u64,
        };
        let total = model.layers.iter().map(bytes).sum::<u64>() + head_bytes;
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
        let head = HeadWeights::new(self.head, model.head, self, &mut |rows| {
            progress(done + head_bytes * rows as u64 / model.head.rows as u64, total);
        })?;
        Ok(CpuWeights {
            config: model.config.clone(),
            embedding: model.embedding,
            positions: model.positions,
            layers,
            final_norm: model.final_norm.clone(),
            head,
        })
    }

    fn weights_bytes(&self, weights: &CpuWeights<'_>) -> u64 {
        weights.bytes()
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
    Ok(CpuLayer {
        attention_norm: layer.attention_norm.clone(),
        qkv: [cpu_linear(query)?, cpu_linear(key)?, cpu_linear(value)?],
        attention_sub_norm: layer.attention_sub_norm.clone(),
        attention_out: cpu_linear(&layer.attention_out)?,
        ffn_norm: layer.ffn_norm.clone(),
        gate: layer.gate.as_ref().map(cpu_linear).transpose()?,
        up: cpu_linear(&layer.up)?,
        ffn_sub_norm: layer.ffn_sub_norm.clone(),
        down: cpu_linear(&layer.down)?,
    })
}

fn cpu_linear<'c>(linear: &Linear<'c>) -> Result<CpuLinear<'c>, DeviceError> {
    let matrix = match &linear.weights {
        LinearWeights::Ternary(matrix) => match matrix.base3()? {
            Some(matrix) => CpuMatrix::Base3(matrix),
            None => CpuMatrix::Rows128(matrix.rows128()?),
        },
        LinearWeights::Float(matrix) => CpuMatrix::Float(*matrix),
    };
    Ok(CpuLinear { matrix, bias: linear.bias.clone() })
}
