//! What a device must do: [`Backend`] takes a model, [`Ops`] runs the steps of a forward pass.
//!
//! Operations are cut where fused kernels are cut, so that one [`forward`](crate::forward) serves
//! every device. Their meaning is what [`cpu`] computes.

pub mod cpu;
pub mod cuda;
pub mod lock_step;

use tercet_core::activation::RowUnit;

use self::cuda::driver::CudaError;
use crate::model::{Model, ModelError};
use crate::sampler::Sampler;

pub use crate::text::TokenId;

/// Why a device could not do its part.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device cannot hold what the limits ask for.
    #[error("{what} needs {needed} bytes more than there are")]
    OutOfMemory {
        /// What was to be allocated.
        what: &'static str,
        /// Its size in bytes.
        needed: u64,
    },
    /// What is to be done takes more memory than there is; found out before it was tried.
    #[error("{what} takes {:.2} GB, {:.2} GB are free", gb(*needed), gb(*available))]
    TooLarge {
        /// What was to be done.
        what: &'static str,
        /// Bytes it would take.
        needed: u64,
        /// Bytes that could be had.
        available: u64,
    },
    /// The weights turned out to be damaged while they were loaded.
    #[error(transparent)]
    Weights(#[from] ModelError),
    /// The GPU, or its driver.
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The thread pool could not be made.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
    /// A forward pass gave a logit that is no finite number.
    #[error("the model computed {got} for token {token}: its weights are damaged")]
    NotFinite {
        /// The logit.
        got: f32,
        /// Which one.
        token: usize,
    },
    /// Two devices in lock step disagree.
    #[error("{site}: element {index} is {got}, expected {expected}")]
    Divergence {
        /// Operation and layer.
        site: String,
        /// Position in the buffer.
        index: usize,
        /// Value of the reference.
        expected: f32,
        /// Value of the candidate.
        got: f32,
    },
}

impl DeviceError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::OutOfMemory { .. } => {
                "choose a shorter context (--ctx), a smaller cache (--kv f16), or free memory"
            }
            Self::TooLarge { .. } => {
                "choose a smaller model, a shorter context, fewer sequences, or free memory"
            }
            Self::Weights(error) => error.hint(),
            Self::Cuda(error) => error.hint(),
            Self::Threads { .. } => "ask for fewer threads (--threads)",
            Self::NotFinite { .. } => "download or convert the model again",
            Self::Divergence { .. } => "report this, with the model and the machine",
        }
    }
}

/// Billions of bytes, to show.
#[allow(clippy::cast_precision_loss, reason = "shown with two digits")]
fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// Number type of the key/value cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// Single precision.
    F32,
    /// Half precision: half the memory.
    #[default]
    F16,
}

/// How the head's weights are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HeadType {
    /// As the checkpoint stores them.
    #[default]
    Stored,
    /// INT8 codes with one unit for each row (each token): half the bytes of F16, a quarter of
    /// F32, and logits that are a little off.
    Int8,
}

/// What a session may use; everything is allocated once, from these numbers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Independent sequences.
    pub slots: usize,
    /// Positions of each sequence.
    pub positions_max: usize,
    /// Rows of one step: the prefill chunk, or the batch.
    pub rows_max: usize,
    /// Rows of one step that may ask for logits.
    pub logits_max: usize,
    /// Number type of the cache.
    pub kv: KvType,
}

/// One row of a step: a token of a sequence. A step is a list of rows, so prefill (many rows of one
/// slot), decode (one row) and a batch (one row of each slot) are the same thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Which sequence.
    pub slot: usize,
    /// Place in the sequence; all earlier places of the slot are in the cache or earlier in the
    /// same step. What the cache has of later ones counts as never written from then on.
    pub position: usize,
    /// The token that stands there.
    pub token: TokenId,
    /// Whether logits are wanted for this row.
    pub logits: bool,
}

/// Rows as ternary linears read them: what lock step compares to the bit.
#[derive(Debug, Clone, PartialEq)]
pub struct Quantized {
    /// `(rows, cols)`: INT8 values.
    pub values: Vec<i8>,
    /// `(rows,)`: the real size of a row's value 1, and the sum of its values.
    pub units: Vec<RowUnit>,
}

/// Bytes of a session's buffers, as the device's code counts them when it allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpsBytes {
    /// Keys and values, as if every position were used. On a CPU a page of it takes memory from
    /// when it is first written.
    pub cache: u64,
    /// Everything between operations.
    pub work: u64,
}

/// A device that runs models.
pub trait Backend {
    /// The model where the device wants it.
    type Weights<'c>;
    /// Working state of one session.
    type Ops<'w>: Ops
    where
        Self: 'w;

    /// Brings a model to the device. `progress` hears bytes done and bytes in all.
    ///
    /// # Errors
    ///
    /// [`DeviceError`] when the device cannot hold the model or the weights are damaged.
    fn upload<'c>(
        &self,
        model: &Model<'c>,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self::Weights<'c>, DeviceError>;

    /// Bytes of an uploaded model: what the device holds of it, and what it reads where a file is
    /// mapped.
    fn weights_bytes(&self, weights: &Self::Weights<'_>) -> u64;

    /// Allocates the state of a session. The last allocation before the session's end.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] with the size that did not fit.
    fn ops<'w>(
        &'w self,
        weights: &'w Self::Weights<'_>,
        limits: Limits,
    ) -> Result<Self::Ops<'w>, DeviceError>;
}

/// The operations of a decoder, on buffers that the device keeps between them.
///
/// Callers hold to the order of [`forward`](crate::forward::forward). Preconditions are asserted:
/// at least 1 and at most `rows_max` rows, tokens below the vocabulary, positions and slots within
/// the limits.
pub trait Ops {
    /// Takes the rows of a step: `hidden[b] = embedding[token[b]]`.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; so do all others.
    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError>;

    /// `q, k, v = linear(quantize(norm(hidden)))`.
    #[allow(missing_docs, clippy::missing_errors_doc, reason = "see `embed`")]
    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError>;

    /// `q, k` turned by their positions; `k, v` stored; `mixed = softmax(q kᵀ / √head_dim) v`.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn attend(&mut self, layer: usize) -> Result<(), DeviceError>;

    /// `hidden += linear(quantize(sub_norm(mixed)))`.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError>;

    /// `gated = activation(gate) · up`, both `linear(quantize(norm(hidden)))`.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError>;

    /// `hidden += linear(quantize(sub_norm(gated)))`.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn down(&mut self, layer: usize) -> Result<(), DeviceError>;

    /// `logits = head · norm(hidden)` for the rows that ask, in their order.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn logits(&mut self) -> Result<(), DeviceError>;

    /// The token that `sampler` takes from the `asked`-th row of logits.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError>;

    /// As [`choose`](Self::choose) after a step of one row, by a caller whose next step is the
    /// chosen token alone, at `position` of `slot`, asking for logits: a device may begin that step
    /// before the caller knows the token.
    ///
    /// The logits that were chosen from are gone then. A caller who steps something else instead
    /// loses the time, and what is cached for `position` counts as never written.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn choose_ahead(
        &mut self,
        sampler: &mut Sampler,
        _slot: usize,
        _position: usize,
    ) -> Result<TokenId, DeviceError> {
        self.choose(0, sampler)
    }

    /// Waits until everything asked for is computed: devices may still be at work when the other
    /// operations return. What reads a result waits by itself; clocks have to ask.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn finish(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Bytes of the buffers. Wrappers that stand in front of a device for a test need not say.
    fn bytes(&self) -> OpsBytes {
        OpsBytes::default()
    }

    /// The rows that the last linear read, where it read INT8 values that can be looked at: not
    /// where it read floats, nor where one kernel quantised and multiplied.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn quantized(&mut self) -> Result<Option<Quantized>, DeviceError> {
        Ok(None)
    }

    /// Copies a buffer to the host: what tests, evaluation and lock step look at.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError>;

    /// Overwrites a buffer, so that lock step can judge each operation on equal inputs.
    #[allow(clippy::missing_errors_doc, reason = "see `embed`")]
    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError>;
}

/// Any device's operations, where only the running program knows which: one call through a pointer
/// for each operation, which is nothing beside the operation.
pub type AnyOps<'w> = Box<dyn Ops + Send + 'w>;

impl<O: Ops + ?Sized> Ops for Box<O> {
    fn embed(&mut self, rows: &[Row]) -> Result<(), DeviceError> {
        (**self).embed(rows)
    }

    fn qkv(&mut self, layer: usize) -> Result<(), DeviceError> {
        (**self).qkv(layer)
    }

    fn attend(&mut self, layer: usize) -> Result<(), DeviceError> {
        (**self).attend(layer)
    }

    fn attention_out(&mut self, layer: usize) -> Result<(), DeviceError> {
        (**self).attention_out(layer)
    }

    fn gate_up(&mut self, layer: usize) -> Result<(), DeviceError> {
        (**self).gate_up(layer)
    }

    fn down(&mut self, layer: usize) -> Result<(), DeviceError> {
        (**self).down(layer)
    }

    fn logits(&mut self) -> Result<(), DeviceError> {
        (**self).logits()
    }

    fn choose(&mut self, asked: usize, sampler: &mut Sampler) -> Result<TokenId, DeviceError> {
        (**self).choose(asked, sampler)
    }

    fn choose_ahead(
        &mut self,
        sampler: &mut Sampler,
        slot: usize,
        position: usize,
    ) -> Result<TokenId, DeviceError> {
        (**self).choose_ahead(sampler, slot, position)
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        (**self).finish()
    }

    fn bytes(&self) -> OpsBytes {
        (**self).bytes()
    }

    fn quantized(&mut self) -> Result<Option<Quantized>, DeviceError> {
        (**self).quantized()
    }

    fn read(&mut self, buffer: Buffer) -> Result<Vec<f32>, DeviceError> {
        (**self).read(buffer)
    }

    fn write(&mut self, buffer: Buffer, values: &[f32]) -> Result<(), DeviceError> {
        (**self).write(buffer, values)
    }
}

/// The buffers between operations; `rows` are those of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Buffer {
    /// Residual stream, `(rows, hidden)`.
    Hidden,
    /// Queries, keys and values side by side, `(rows, query + 2 * kv)`.
    Qkv,
    /// What attention mixed, `(rows, query)`.
    Mixed,
    /// Gated products, `(rows, ffn)`.
    Gated,
    /// Logits of the rows that asked, `(asked, vocab)`.
    Logits,
}

impl Buffer {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Hidden, Self::Qkv, Self::Mixed, Self::Gated, Self::Logits];

    /// What a message calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hidden => "the residual stream",
            Self::Qkv => "queries, keys and values",
            Self::Mixed => "the attention output",
            Self::Gated => "the feed-forward block",
            Self::Logits => "the logits",
        }
    }
}
