//! [`ModelConfig`]: `config.json`, checked once; sizes are valid from here on.

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
                "this version runs BitNet b1.58 models: BitnetForCausalLM, BitNetForCausalLM and \
                 LlamaForCausalLM with quant_method `bitnet`"
            }
            Self::Feature { .. } => "use a model without it",
        }
    }
}

/// The function between the gate and the product of a gated feed-forward block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `max(x, 0)²`.
    Relu2,
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
    /// Added to the mean square before the square root.
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Gate activation.
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
        let keys = Keys(&object);

        let quantization = object.get("quantization_config").filter(|value| !value.is_null());
        let architecture = supported_architecture(&object, quantization.is_some())?;
        let unit_rule = match quantization {
            Some(value) => unit_rule(value)?,
            None => UnitRule::Divide,
        };
        refuse_features(&object)?;

        let hidden = keys.size("hidden_size", WIDTH_MAX)?;
        let heads = keys.size("num_attention_heads", HEADS_MAX)?;
        let kv_heads = keys.size_or("num_key_value_heads", HEADS_MAX, heads)?;
        if !heads.is_multiple_of(kv_heads) {
            let what = format!("{heads} attention heads cannot share {kv_heads} key/value heads");
            return Err(ConfigError::Contradiction { what });
        }
        if keys.present("head_dim").is_none() && !hidden.is_multiple_of(heads) {
            let what = format!("hidden_size {hidden} cannot be split into {heads} heads");
            return Err(ConfigError::Contradiction { what });
        }
        let head_dim = keys.size_or("head_dim", HEAD_DIM_MAX as u64, hidden / heads)?;
        if head_dim == 0 || head_dim > HEAD_DIM_MAX || !head_dim.is_multiple_of(2) {
            let what = format!("head_dim {head_dim} is not an even number up to {HEAD_DIM_MAX}");
            return Err(ConfigError::Contradiction { what });
        }
        if (heads * head_dim) as u64 > WIDTH_MAX {
            let what = format!("{heads} heads of {head_dim} are wider than {WIDTH_MAX}");
            return Err(ConfigError::Contradiction { what });
        }

        let vocab = keys.size("vocab_size", TOKENS_MAX)?;
        let activation = match object.get("hidden_act").and_then(Value::as_str) {
            Some("silu" | "swish") => Activation::Silu,
            Some("relu2") => Activation::Relu2,
            // The defaults of the two configuration classes in transformers 5.23.0.
            None if architecture == "BitNetForCausalLM" => Activation::Relu2,
            None => Activation::Silu,
            Some(other) => {
                let feature = format!("the activation `{}`", readable(other));
                return Err(ConfigError::Feature { feature });
            }
        };

        Ok(Self {
            hidden,
            ffn: keys.size("intermediate_size", WIDTH_MAX)?,
            layers: keys.size("num_hidden_layers", LAYERS_MAX)?,
            heads,
            kv_heads,
            head_dim,
            vocab,
            positions_max: keys.size_or("max_position_embeddings", TOKENS_MAX, 2048)?,
            #[allow(clippy::cast_possible_truncation, reason = "eps is meant to be rounded")]
            norm_eps: keys.number_or("rms_norm_eps", 1e-5, 1e-12..=1e-1)? as f32,
            rope_theta: rope_theta(&object)?,
            activation,
            tied_head: keys.flag("tie_word_embeddings")?,
            unit_rule,
            bos: keys.tokens("bos_token_id", vocab)?.first().copied(),
            eos: keys.tokens("eos_token_id", vocab)?,
            architecture,
        })
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

/// The architecture, if it is one of ours. `model_type` is not asked: the 1bitLLM models call
/// themselves "llama" and lose their sub-norms in loaders that believe it.
fn supported_architecture(
    object: &Map<String, Value>,
    quantized: bool,
) -> Result<String, ConfigError> {
    let name = object
        .get("architectures")
        .and_then(|names| names.get(0))
        .and_then(Value::as_str)
        .ok_or(ConfigError::Missing { key: "architectures" })?;
    match name {
        "BitnetForCausalLM" | "BitNetForCausalLM" => Ok(name.to_owned()),
        "LlamaForCausalLM" if quantized => Ok(name.to_owned()),
        "LlamaForCausalLM" => {
            Err(ConfigError::Architecture { architecture: format!("{name} without quantization") })
        }
        _ => Err(ConfigError::Architecture { architecture: readable(name) }),
    }
}

/// How `quantization_config` reads `weight_scale`; refuses methods other than `bitnet`.
fn unit_rule(quantization: &Value) -> Result<UnitRule, ConfigError> {
    match quantization.get("quant_method").and_then(Value::as_str) {
        Some("bitnet") => {}
        Some(other) => {
            let feature = format!("the quantisation method `{}`", readable(other));
            return Err(ConfigError::Feature { feature });
        }
        None => return Err(ConfigError::Missing { key: "quantization_config.quant_method" }),
    }
    if quantization.get("use_rms_norm").and_then(Value::as_bool) == Some(true) {
        return Err(ConfigError::Feature { feature: "a norm inside every linear".into() });
    }
    match quantization.get("linear_class").and_then(Value::as_str) {
        None | Some("bitlinear") => Ok(UnitRule::Divide),
        Some("autobitlinear") => Ok(UnitRule::Multiply),
        Some(_) => Err(ConfigError::Value {
            key: "quantization_config.linear_class",
            got: readable(&quantization["linear_class"].to_string()),
            wanted: "`bitlinear` or `autobitlinear`",
        }),
    }
}

/// Features that would change the result without changing a shape.
fn refuse_features(object: &Map<String, Value>) -> Result<(), ConfigError> {
    let on = |key: &str| object.get(key).and_then(Value::as_bool) == Some(true);
    if on("attention_bias") || on("mlp_bias") {
        return Err(ConfigError::Feature { feature: "biases in its linears".into() });
    }
    // transformers 5 writes `rope_parameters`, earlier versions `rope_scaling`.
    for key in ["rope_scaling", "rope_parameters"] {
        let Some(scaling) = object.get(key).filter(|value| !value.is_null()) else { continue };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type"));
        if kind.and_then(Value::as_str) != Some("default") {
            let feature = format!("rope scaling {}", readable(&scaling.to_string()));
            return Err(ConfigError::Feature { feature });
        }
    }
    Ok(())
}

/// The base of the rotary frequencies: a key of its own, or one of `rope_parameters`.
fn rope_theta(object: &Map<String, Value>) -> Result<f64, ConfigError> {
    let nested = object.get("rope_parameters").and_then(Value::as_object);
    let home = nested.filter(|nested| nested.contains_key("rope_theta")).unwrap_or(object);
    Keys(home).number_or("rope_theta", 10_000.0, 1.0..=1e12)
}

/// Cuts a value from a file to a length that fits a sentence.
fn readable(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Checked access to the keys of an object.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    fn present(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn size(&self, key: &'static str, max: u64) -> Result<usize, ConfigError> {
        let value = self.present(key).ok_or(ConfigError::Missing { key })?;
        match value.as_u64() {
            Some(size) if (1..=max).contains(&size) => {
                Ok(usize::try_from(size).unwrap_or(usize::MAX))
            }
            _ => Err(ConfigError::Value {
                key,
                got: readable(&value.to_string()),
                wanted: "a whole number from 1 to a sane limit",
            }),
        }
    }

    fn size_or(&self, key: &'static str, max: u64, default: usize) -> Result<usize, ConfigError> {
        if self.present(key).is_none() { Ok(default) } else { self.size(key, max) }
    }

    fn number_or(
        &self,
        key: &'static str,
        default: f64,
        range: core::ops::RangeInclusive<f64>,
    ) -> Result<f64, ConfigError> {
        let Some(value) = self.present(key) else { return Ok(default) };
        value.as_f64().filter(|number| range.contains(number)).ok_or_else(|| ConfigError::Value {
            key,
            got: readable(&value.to_string()),
            wanted: "a number in the usual range",
        })
    }

    fn flag(&self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        let Some(value) = self.present(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| ConfigError::Value {
            key,
            got: readable(&value.to_string()),
            wanted: "true or false",
        })
    }

    /// One token id or a list of them, each below `vocab`.
    fn tokens(&self, key: &'static str, vocab: usize) -> Result<Vec<u32>, ConfigError> {
        let Some(value) = self.present(key) else { return Ok(Vec::new()) };
        token_ids(value, vocab).ok_or_else(|| ConfigError::Value {
            key,
            got: readable(&value.to_string()),
            wanted: "token ids below vocab_size",
        })
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
