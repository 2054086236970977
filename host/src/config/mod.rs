//! [`ModelConfig`]: `config.json`, checked once; sizes are valid from here on.

mod families;
mod keys;

use serde_json::{Map, Value};

/// Widest vector, in elements: 2^17 · 127 < 2^24, so every exact sum is also exact as a single.
const WIDTH_MAX: u64 = 1 << 17;
/// Most layers.
const LAYERS_MAX: u64 = 1024;
/// Most attention heads.
const HEADS_MAX: u64 = 4096;
/// Widest attention head, in elements; the attention loops keep one head on the stack.
pub(crate) const HEAD_DIM_MAX: usize = 512;
/// Largest vocabulary and longest context, in tokens.
const TOKENS_MAX: u64 = 1 << 24;

/// Why `config.json` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file is no JSON object.
    #[error("`{file}` is no JSON object: {reason}")]
    Json {
        /// Name of the file.
        file: &'static str,
        /// What the reader says.
        reason: String,
    },
    /// A key is absent.
    #[error("`config.json` has no `{key}`")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// A value is out of range or of the wrong type.
    #[error("`{key}` in `config.json` is {got}, wanted {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value, as JSON, cut to a readable length.
        got: String,
        /// What would be accepted.
        wanted: &'static str,
    },
    /// Two values contradict each other.
    #[error("`config.json` contradicts itself: {what}")]
    Contradiction {
        /// Both values, by name.
        what: String,
    },
    /// The architecture is not one of ours.
    #[error("architecture `{architecture}` is not supported")]
    Architecture {
        /// `architectures[0]`.
        architecture: String,
    },
    /// The architecture is ours, a feature of this model is not.
    #[error("the model uses {feature}, which is not supported")]
    Feature {
        /// Name of the feature.
        feature: String,
    },
}

impl ConfigError {
    /// What the user can do.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Json { .. } | Self::Missing { .. } => {
                "restore the file from the model's repository"
            }
            Self::Value { .. } | Self::Contradiction { .. } => {
                "the file is damaged or of another model: restore it from the model's repository"
            }
            Self::Architecture { .. } => {
                "tercet runs BitNet b1.58 models (BitnetForCausalLM, BitNetForCausalLM, \
                 LlamaForCausalLM with quant_method `bitnet`) and their float controls \
                 (LlamaForCausalLM, OPTForCausalLM)"
            }
            Self::Feature { .. } => "use a model without it",
        }
    }
}

/// The two graphs; everything else about a model is a value of [`ModelConfig`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topology {
    /// RMS norms, rotary positions, gated feed-forward (LLaMA, Vicuna, BitNet b1.58).
    LlamaLike,
    /// Layer norms, learned positions, plain feed-forward, biases (OPT).
    OptLike,
}

/// What the linears of the decoder hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinearKind {
    /// Trits with a unit, multiplied with rows quantised to INT8.
    Ternary,
    /// Floats, multiplied with floats.
    Float,
}

/// The function inside the feed-forward block; of the gate, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `max(x, 0)²`.
    Relu2,
    /// `max(x, 0)`.
    Relu,
}

impl Activation {
    /// Its name in `config.json`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::Relu2 => "relu2",
            Self::Relu => "relu",
        }
    }
}

/// How a model knows the place of a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Positions {
    /// Queries and keys are turned; `theta` is the base of the frequencies.
    Rotary {
        /// Base of the frequencies.
        theta: f64,
    },
    /// A table is added to the embedding, row `position + offset`.
    Learned {
        /// Rows at the top of the table that stand for no position (OPT: 2).
        offset: usize,
    },
}

/// How the `weight_scale` of a packed checkpoint becomes a unit.
///
/// Source: Hugging Face transformers 5.23.0, `integrations/bitnet.py`: `BitLinear` divides,
/// `AutoBitLinear` multiplies. The ranges overlap, so only the config can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitRule {
    /// The stored number is the unit.
    Multiply,
    /// The stored number is one over the unit.
    Divide,
}

/// The sizes and switches of a model, valid by construction.
///
/// Invariants: every size is at least 1 and within the limits of this module; `heads` is a multiple
/// of `kv_heads`; `head_dim` is even and at most 512.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ModelConfig {
    /// `architectures[0]`, one of those supported.
    pub architecture: String,
    /// The graph.
    pub topology: Topology,
    /// What the linears hold.
    pub linears: LinearKind,
    /// Whether the linears of attention have biases.
    pub attention_bias: bool,
    /// Whether the linears of the feed-forward block have biases.
    pub ffn_bias: bool,
    /// Width of the residual stream, in elements.
    pub hidden: usize,
    /// Width of the feed-forward block, in elements.
    pub ffn: usize,
    /// Number of decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Rows of the embedding table.
    pub vocab: usize,
    /// Longest context the model was trained for, in tokens.
    pub positions_max: usize,
    /// Added to the mean square (or the variance) before the square root.
    pub norm_eps: f32,
    /// How places are told.
    pub positions: Positions,
    /// Activation of the feed-forward block.
    pub activation: Activation,
    /// Whether the head is the embedding table. `None` when the file does not say: then it is tied
    /// exactly if no `lm_head.weight` is there.
    pub tied_head: Option<bool>,
    /// How to read `weight_scale`.
    pub unit_rule: UnitRule,
    /// Token that starts a text.
    pub bos: Option<u32>,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
}

impl ModelConfig {
    /// Elements of the query vector: `heads * head_dim`.
    #[must_use]
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of the key vector, and of the value vector: `kv_heads * head_dim`.
    #[must_use]
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Reads the text of `config.json`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]: nothing is allocated by the numbers before they are checked.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let object = parse_object("config.json", json)?;
        let name = object
            .get("architectures")
            .and_then(|names| names.get(0))
            .and_then(Value::as_str)
            .ok_or(ConfigError::Missing { key: "architectures" })?;
        // `model_type` is not asked: the 1bitLLM models call themselves "llama" and lose their
        // sub-norms in loaders that believe it.
        match name {
            "BitnetForCausalLM" | "BitNetForCausalLM" | "LlamaForCausalLM" => {
                families::llama_like(name, &object)
            }
            "OPTForCausalLM" => families::opt_like(name, &object),
            _ => Err(ConfigError::Architecture { architecture: readable(name) }),
        }
    }
}

/// Parses `json` as an object; the reader's recursion limit holds.
pub(crate) fn parse_object(
    file: &'static str,
    json: &[u8],
) -> Result<Map<String, Value>, ConfigError> {
    serde_json::from_slice(json)
        .map_err(|error| ConfigError::Json { file, reason: error.to_string() })
}

/// Cuts a value from a file to a length that fits a sentence.
fn readable(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Reads one token id or a list of them; `None` unless all are below `vocab`.
pub(crate) fn token_ids(value: &Value, vocab: usize) -> Option<Vec<u32>> {
    let one = |value: &Value| {
        let id = value.as_u64().filter(|id| *id < vocab as u64)?;
        u32::try_from(id).ok()
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        value => one(value).map(|id| vec![id]),
    }
}
