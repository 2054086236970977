//! [`Model`]: every tensor of a checkpoint found by role and checked against the config.
//!
//! The names of Hugging Face's layouts live in this file and nowhere else (formats.md of the
//! project's references; transformers 5.23.0 `models/bitnet`, BitBLAS 0c51e34
//! `integration/BitNet/modeling_bitnet.py`).

use core::cell::RefCell;

use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, Tensor};
use crate::config::ModelConfig;
use crate::floats::FloatType;
use crate::ternary::{Codes, TernaryMatrix};

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

/// One decoder layer. Norm weights are decoded; they are small.
#[derive(Debug)]
pub struct Layer<'c> {
    /// Norm before attention, `(hidden,)`.
    pub attention_norm: Vec<f32>,
    /// Query, key and value projections, which read the same quantised row.
    pub qkv: [TernaryMatrix<'c>; 3],
    /// Norm of what attention mixed, `(heads * head_dim,)`; absent in Llama-like models.
    pub attention_sub_norm: Option<Vec<f32>>,
    /// Projection back to the residual stream.
    pub attention_out: TernaryMatrix<'c>,
    /// Norm before the feed-forward block, `(hidden,)`.
    pub ffn_norm: Vec<f32>,
    /// Gate and up projections, which read the same quantised row.
    pub gate_up: [TernaryMatrix<'c>; 2],
    /// Norm of the gated product, `(ffn,)`; absent in Llama-like models.
    pub ffn_sub_norm: Option<Vec<f32>>,
    /// Projection back to the residual stream.
    pub down: TernaryMatrix<'c>,
}

impl<'c> Layer<'c> {
    /// The layer's ternary matrices in the order of the forward pass.
    pub fn matrices(&self) -> impl Iterator<Item = &TernaryMatrix<'c>> {
        self.qkv.iter().chain([&self.attention_out]).chain(&self.gate_up).chain([&self.down])
    }
}

/// A whole model: checked roles, borrowed bytes.
#[derive(Debug)]
pub struct Model<'c> {
    /// Sizes and switches.
    pub config: ModelConfig,
    /// Token embeddings, `(vocab, hidden)`.
    pub embedding: FloatMatrix<'c>,
    /// Decoder layers.
    pub layers: Vec<Layer<'c>>,
    /// Norm before the head, `(hidden,)`.
    pub final_norm: Vec<f32>,
    /// Output head, `(vocab, hidden)`; the embedding itself where tied.
    pub head: FloatMatrix<'c>,
    /// Names of the tensors that are not ternary: embedding, head, norms.
    pub plain_tensors: Vec<String>,
}

impl<'c> Model<'c> {
    /// Finds and checks every tensor that `config` asks for. Decodes nothing but norms and units.
    ///
    /// # Errors
    ///
    /// [`ModelError`] for the first tensor that is absent or different.
    pub fn bind(checkpoint: &'c Checkpoint, config: ModelConfig) -> Result<Self, ModelError> {
        let plain_tensors = RefCell::new(Vec::new());
        let bind = Bind { checkpoint, config: &config, plain_tensors: &plain_tensors };
        let embedding = bind.floats("model.embed_tokens.weight", config.vocab, config.hidden)?;
        let untied = "lm_head.weight";
        let tied = config.tied_head.unwrap_or(checkpoint.tensor(untied).is_none());
        let head = if tied { embedding } else { bind.floats(untied, config.vocab, config.hidden)? };
        let sub_norms = bind.sub_norms()?;
        let layers = (0..config.layers)
            .map(|layer| bind.layer(layer, sub_norms))
            .collect::<Result<_, _>>()?;
        let final_norm = bind.norm("model.norm.weight".into(), config.hidden)?;
        let plain_tensors = plain_tensors.into_inner();
        Ok(Self { embedding, layers, final_norm, head, plain_tensors, config })
    }

    /// Whether the head is the embedding table.
    #[must_use]
    pub fn tied(&self) -> bool {
        core::ptr::eq(self.head.bytes, self.embedding.bytes)
    }

    /// Number of weights: ternary ones and all.
    #[must_use]
    pub fn parameters(&self) -> (u64, u64) {
        let ternary: u64 = self
            .layers
            .iter()
            .flat_map(Layer::matrices)
            .map(|matrix| (matrix.rows * matrix.cols) as u64)
            .sum();
        let table = (self.embedding.rows * self.embedding.cols) as u64;
        let norms: usize = self
            .layers
            .iter()
            .map(|layer| {
                let sub = |norm: &Option<Vec<f32>>| norm.as_ref().map_or(0, Vec::len);
                layer.attention_norm.len()
                    + layer.ffn_norm.len()
                    + sub(&layer.attention_sub_norm)
                    + sub(&layer.ffn_sub_norm)
            })
            .sum();
        let tables = if self.tied() { table } else { 2 * table };
        (ternary, ternary + tables + (norms + self.final_norm.len()) as u64)
    }
}

/// The names of the two sub-norms of a layer.
type SubNorms = Option<(&'static str, &'static str)>;

/// 1bitLLM's names and Microsoft's names for the same two norms.
const SUB_NORMS: [(&str, &str); 2] = [
    ("self_attn.inner_attn_ln.weight", "mlp.ffn_layernorm.weight"),
    ("self_attn.attn_sub_norm.weight", "mlp.ffn_sub_norm.weight"),
];

/// The table from names to roles.
struct Bind<'c, 'a> {
    checkpoint: &'c Checkpoint,
    config: &'a ModelConfig,
    plain_tensors: &'a RefCell<Vec<String>>,
}

impl<'c> Bind<'c, '_> {
    fn layer(&self, layer: usize, sub_norms: SubNorms) -> Result<Layer<'c>, ModelError> {
        let ModelConfig { hidden, ffn, .. } = *self.config;
        let (query, kv) = (self.config.query_width(), self.config.kv_width());
        let name = |role: &str| format!("model.layers.{layer}.{role}");
        let ternary =
            |role: &str, rows, cols| self.ternary(&name(&format!("{role}_proj")), rows, cols);
        let sub_norm =
            |role: Option<&str>, width| role.map(|role| self.norm(name(role), width)).transpose();
        Ok(Layer {
            attention_norm: self.norm(name("input_layernorm.weight"), hidden)?,
            qkv: [
                ternary("self_attn.q", query, hidden)?,
                ternary("self_attn.k", kv, hidden)?,
                ternary("self_attn.v", kv, hidden)?,
            ],
            attention_sub_norm: sub_norm(sub_norms.map(|names| names.0), query)?,
            attention_out: ternary("self_attn.o", hidden, query)?,
            ffn_norm: self.norm(name("post_attention_layernorm.weight"), hidden)?,
            gate_up: [ternary("mlp.gate", ffn, hidden)?, ternary("mlp.up", ffn, hidden)?],
            ffn_sub_norm: sub_norm(sub_norms.map(|names| names.1), ffn)?,
            down: ternary("mlp.down", hidden, ffn)?,
        })
    }

    /// Which sub-norms the first layer has, held against what the architecture has.
    fn sub_norms(&self) -> Result<SubNorms, ModelError> {
        let has = |role: &str| self.checkpoint.tensor(&format!("model.layers.0.{role}")).is_some();
        let found = SUB_NORMS.into_iter().find(|names| has(names.0) || has(names.1));
        let wanted = self.config.architecture != "LlamaForCausalLM";
        let error = |got, wanted| {
            let architecture = self.config.architecture.clone();
            Err(ModelError::SubNorms { architecture, got, wanted })
        };
        match (found, wanted) {
            (None, true) => error("no sub-norms", "two in every layer"),
            (Some(_), false) => error("sub-norms", "none"),
            (found, _) => Ok(found),
        }
    }

    fn tensor(&self, name: &str) -> Result<Tensor<'c>, ModelError> {
        self.checkpoint.tensor(name).ok_or_else(|| ModelError::Missing { tensor: name.to_owned() })
    }

    /// A tensor of floats of exactly this shape.
    fn shaped(&self, name: &str, shape: &[usize]) -> Result<(FloatType, &'c [u8]), ModelError> {
        let tensor = self.tensor(name)?;
        let float = FloatType::of(tensor.dtype).ok_or_else(|| ModelError::Dtype {
            tensor: name.to_owned(),
            wanted: "F32, F16 or BF16",
            got: tensor.dtype,
        })?;
        check_shape(name, &tensor, shape)?;
        Ok((float, tensor.bytes))
    }

    fn floats(&self, name: &str, rows: usize, cols: usize) -> Result<FloatMatrix<'c>, ModelError> {
        let (float, bytes) = self.shaped(name, &[rows, cols])?;
        self.plain_tensors.borrow_mut().push(name.to_owned());
        Ok(FloatMatrix { rows, cols, float, bytes })
    }

    fn norm(&self, name: String, width: usize) -> Result<Vec<f32>, ModelError> {
        let (float, bytes) = self.shaped(&name, &[width])?;
        let mut weights = vec![0.0; width];
        float.decode(bytes, &mut weights);
        match weights.iter().find(|weight| !weight.is_finite()) {
            Some(&got) => Err(ModelError::Number { tensor: name, got, wanted: "finite numbers" }),
            None => {
                self.plain_tensors.borrow_mut().push(name);
                Ok(weights)
            }
        }
    }

    /// A ternary matrix, whichever of the three ways it is stored in.
    fn ternary(
        &self,
        prefix: &str,
        rows: usize,
        cols: usize,
    ) -> Result<TernaryMatrix<'c>, ModelError> {
        let name = format!("{prefix}.weight");
        // A norm in front of one linear changes the result and no shape (transformers PR 38087).
        let inner_norm = format!("{prefix}.rms_norm.weight");
        if self.checkpoint.tensor(&inner_norm).is_some() {
            return Err(ModelError::SubNorms {
                architecture: self.config.architecture.clone(),
                got: "a norm inside every linear",
                wanted: "none",
            });
        }
        let tensor = self.tensor(&name)?;
        let codes = if tensor.dtype == Dtype::U8 && self.checkpoint.is_tercet() {
            let unit = self.unit(&format!("{prefix}.weight_unit"))?;
            let row_bytes = tercet_core::packed::Rows128::row_bytes(cols);
            check_shape(&name, &tensor, &[rows, row_bytes])?;
            Codes::Rows128 { bytes: tensor.bytes, unit }
        } else if tensor.dtype == Dtype::U8 {
            let stored = self.unit(&format!("{prefix}.weight_scale"))?;
            let unit = match self.config.unit_rule {
                crate::config::UnitRule::Multiply => stored,
                crate::config::UnitRule::Divide => 1.0 / stored,
            };
            check_shape(&name, &tensor, &[rows.div_ceil(4), cols])?;
            Codes::Quarters { bytes: tensor.bytes, unit }
        } else if let Some(float) = FloatType::of(tensor.dtype) {
            check_shape(&name, &tensor, &[rows, cols])?;
            Codes::Master { bytes: tensor.bytes, float }
        } else {
            let wanted = "U8, F32, F16 or BF16";
            return Err(ModelError::Dtype { tensor: name, wanted, got: tensor.dtype });
        };
        Ok(TernaryMatrix { name, rows, cols, codes })
    }

    /// A single positive number, and so is its reciprocal.
    fn unit(&self, name: &str) -> Result<f32, ModelError> {
        let (float, bytes) = self.shaped(name, &[1])?;
        let mut unit = [0.0];
        float.decode(bytes, &mut unit);
        let got = unit[0];
        let usable = got > 0.0 && got.is_finite() && (1.0 / got).is_finite();
        if usable {
            Ok(got)
        } else {
            let wanted = "a positive finite number";
            Err(ModelError::Number { tensor: name.to_owned(), got, wanted })
        }
    }
}

fn check_shape(name: &str, tensor: &Tensor<'_>, expected: &[usize]) -> Result<(), ModelError> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(ModelError::Shape {
        tensor: name.to_owned(),
        expected: expected.to_vec(),
        got: tensor.shape.to_vec(),
    })
}
