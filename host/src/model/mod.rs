//! [`Model`]: every tensor of a checkpoint found by role and checked against the config.

mod bind;
mod centre;

use safetensors::Dtype;
use tercet_core::Stored;

use crate::checkpoint::Checkpoint;
use crate::config::ModelConfig;
use crate::floats::FloatType;
use crate::ternary::TernaryMatrix;

/// Why the tensors of a checkpoint are not the model its config describes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A tensor is absent.
    #[error("tensor `{tensor}` is missing")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor has another shape.
    #[error("tensor `{tensor}` has shape {got:?}, the config asks for {expected:?}")]
    Shape {
        /// Its name.
        tensor: String,
        /// Shape by the config.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// A tensor has a type that its role does not allow.
    #[error("tensor `{tensor}` has type {got:?}, wanted {wanted}")]
    Dtype {
        /// Its name.
        tensor: String,
        /// Types that would do.
        wanted: &'static str,
        /// Type in the file.
        got: Dtype,
    },
    /// A number that must be finite, or positive, is not.
    #[error("tensor `{tensor}` holds {got}, wanted {wanted}")]
    Number {
        /// Its name.
        tensor: String,
        /// The number.
        got: f32,
        /// What would do.
        wanted: &'static str,
    },
    /// Packed weights hold a code that is no trit.
    #[error("tensor `{tensor}` is damaged: {source}")]
    Code {
        /// Its name.
        tensor: String,
        /// Where, and which code.
        source: tercet_core::packed::LayoutError,
    },
    /// The model has norms that its architecture does not have, or the other way round.
    #[error("the model has {got}, its architecture {architecture} wants {wanted}")]
    SubNorms {
        /// Name of the architecture.
        architecture: String,
        /// What the checkpoint holds.
        got: &'static str,
        /// What the architecture has.
        wanted: &'static str,
    },
}

impl ModelError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing { .. } | Self::Shape { .. } | Self::SubNorms { .. } => {
                "config.json and the weights are of different models, or the file is incomplete: \
                 download both again"
            }
            Self::Dtype { .. } => "convert the checkpoint, or use its safetensors revision",
            Self::Number { .. } | Self::Code { .. } => {
                "the weights are damaged: download or convert them again"
            }
        }
    }
}

/// A table of floats that stays as stored: the embedding and the head.
#[derive(Debug, Clone, Copy)]
pub struct FloatMatrix<'c> {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Element type.
    pub float: FloatType,
    /// `(rows, cols)`, little-endian, any alignment.
    pub bytes: &'c [u8],
}

impl FloatMatrix<'_> {
    /// The numbers of some rows, `(rows, cols)`.
    ///
    /// # Panics
    ///
    /// When there are no such rows.
    #[inline]
    #[must_use]
    pub fn stored(&self, rows: core::ops::Range<usize>) -> Stored<'_> {
        let row_bytes = self.cols * self.float.bytes();
        self.float.stored(&self.bytes[rows.start * row_bytes..rows.end * row_bytes])
    }

    /// Bytes of row `row`.
    ///
    /// # Panics
    ///
    /// When there is no such row.
    #[inline]
    #[must_use]
    pub fn row(&self, row: usize) -> &[u8] {
        let row_bytes = self.cols * self.float.bytes();
        &self.bytes[row * row_bytes..(row + 1) * row_bytes]
    }
}

/// A norm, decoded: norms are small.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `(width,)`
    pub weight: Vec<f32>,
    /// `(width,)`; a layer norm's, `None` for an RMS norm.
    pub bias: Option<Vec<f32>>,
}

/// A linear `(rows, cols)`: output features by input features.
#[derive(Debug, Clone)]
pub struct Linear<'c> {
    /// The weights.
    pub weights: LinearWeights<'c>,
    /// `(rows,)`
    pub bias: Option<Vec<f32>>,
}

/// The weights of a linear.
#[derive(Debug, Clone)]
pub enum LinearWeights<'c> {
    /// Trits, or master weights that become trits.
    Ternary(TernaryMatrix<'c>),
    /// Floats.
    Float(FloatMatrix<'c>),
}

impl<'c> Linear<'c> {
    /// The ternary matrix, if it is one.
    #[must_use]
    pub fn ternary(&self) -> Option<&TernaryMatrix<'c>> {
        match &self.weights {
            LinearWeights::Ternary(matrix) => Some(matrix),
            LinearWeights::Float(_) => None,
        }
    }

    /// Number of weights, without the bias.
    #[must_use]
    pub fn parameters(&self) -> usize {
        match &self.weights {
            LinearWeights::Ternary(matrix) => matrix.rows * matrix.cols,
            LinearWeights::Float(matrix) => matrix.rows * matrix.cols,
        }
    }

    /// Bytes of the stored weights.
    #[must_use]
    pub fn stored_bytes(&self) -> usize {
        match &self.weights {
            LinearWeights::Ternary(matrix) => matrix.stored_bytes(),
            LinearWeights::Float(matrix) => matrix.bytes.len(),
        }
    }
}

/// One decoder layer.
#[derive(Debug)]
pub struct Layer<'c> {
    /// Norm before attention, `(hidden,)`.
    pub attention_norm: Norm,
    /// Query, key and value projections, which read the same row.
    pub qkv: [Linear<'c>; 3],
    /// Norm of what attention mixed, `(heads * head_dim,)`; only some BitNet models have it.
    pub attention_sub_norm: Option<Norm>,
    /// Projection back to the residual stream.
    pub attention_out: Linear<'c>,
    /// Norm before the feed-forward block, `(hidden,)`.
    pub ffn_norm: Norm,
    /// Gate projection, where there is a gate; reads the same row as `up`.
    pub gate: Option<Linear<'c>>,
    /// Up projection.
    pub up: Linear<'c>,
    /// Norm of the feed-forward block's middle, `(ffn,)`; only some BitNet models have it.
    pub ffn_sub_norm: Option<Norm>,
    /// Projection back to the residual stream.
    pub down: Linear<'c>,
}

impl<'c> Layer<'c> {
    /// The layer's linears in the order of the forward pass.
    pub fn linears(&self) -> impl Iterator<Item = &Linear<'c>> {
        self.qkv.iter().chain([&self.attention_out]).chain(&self.gate).chain([&self.up, &self.down])
    }

    /// The ternary ones among them.
    pub fn matrices(&self) -> impl Iterator<Item = &TernaryMatrix<'c>> {
        self.linears().filter_map(Linear::ternary)
    }
}

/// A whole model: checked roles, borrowed bytes.
#[derive(Debug)]
pub struct Model<'c> {
    /// Sizes and switches.
    pub config: ModelConfig,
    /// Token embeddings, `(vocab, hidden)`.
    pub embedding: FloatMatrix<'c>,
    /// Position embeddings, `(positions_max + offset, hidden)`, where positions are learned.
    pub positions: Option<FloatMatrix<'c>>,
    /// Decoder layers.
    pub layers: Vec<Layer<'c>>,
    /// Norm before the head, `(hidden,)`.
    pub final_norm: Norm,
    /// Output head, `(vocab, hidden)`; the embedding itself where tied.
    pub head: FloatMatrix<'c>,
    /// Names of the tensors that are not ternary, in the order in which they were found.
    pub plain_tensors: Vec<String>,
}

impl<'c> Model<'c> {
    /// Finds and checks every tensor that `config` asks for. Decodes nothing but norms and units.
    ///
    /// # Errors
    ///
    /// [`ModelError`] for the first tensor that is absent or different.
    pub fn bind(checkpoint: &'c Checkpoint, config: ModelConfig) -> Result<Self, ModelError> {
        bind::bind(checkpoint, config)
    }

    /// Whether the head is the embedding table.
    #[must_use]
    pub fn tied(&self) -> bool {
        core::ptr::eq(self.head.bytes, self.embedding.bytes)
    }

    /// Number of weights: ternary ones and all.
    #[must_use]
    pub fn parameters(&self) -> (u64, u64) {
        let linears = || self.layers.iter().flat_map(Layer::linears);
        let ternary: usize =
            self.layers.iter().flat_map(Layer::matrices).map(|m| m.rows * m.cols).sum();
        let table = |table: &FloatMatrix<'_>| table.rows * table.cols;
        let vector = |vector: &Option<Vec<f32>>| vector.as_ref().map_or(0, Vec::len);
        let norm = |norm: &Norm| norm.weight.len() + vector(&norm.bias);
        let norms: usize = self
            .layers
            .iter()
            .flat_map(|layer| {
                let always = [&layer.attention_norm, &layer.ffn_norm];
                let sub_norms = layer.attention_sub_norm.iter().chain(&layer.ffn_sub_norm);
                always.into_iter().chain(sub_norms)
            })
            .chain([&self.final_norm])
            .map(norm)
            .sum();
        let all = linears().map(|linear| linear.parameters() + vector(&linear.bias)).sum::<usize>()
            + norms
            + table(&self.embedding)
            + self.positions.as_ref().map_or(0, table)
            + if self.tied() { 0 } else { table(&self.head) };
        (ternary as u64, all as u64)
    }
}
