//! One reader per family of `config.json`.

use serde_json::{Map, Value};

use super::keys::Keys;
use super::{
    Activation, ConfigError, HEAD_DIM_MAX, HEADS_MAX, LAYERS_MAX, LinearKind, ModelConfig,
    Positions, TOKENS_MAX, Topology, UnitRule, WIDTH_MAX, readable,
};

/// LLaMA, Vicuna and BitNet b1.58: the same keys, ternary or not.
pub(super) fn llama_like(
    architecture: &str,
    object: &Map<String, Value>,
) -> Result<ModelConfig, ConfigError> {
    let keys = Keys(object);
    let quantization = keys.present("quantization_config");
    let ternary = architecture != "LlamaForCausalLM" || quantization.is_some();
    let unit_rule = quantization.map_or(Ok(UnitRule::Divide), unit_rule)?;
    refuse_rope_scaling(object)?;
    let attention_bias = keys.flag("attention_bias")?.unwrap_or(false);
    let ffn_bias = keys.flag("mlp_bias")?.unwrap_or(false);
    if ternary && (attention_bias || ffn_bias) {
        return Err(ConfigError::Feature { feature: "biases in ternary linears".into() });
    }

    let hidden = keys.size("hidden_size", WIDTH_MAX)?;
    let heads = keys.size("num_attention_heads", HEADS_MAX)?;
    let kv_heads = keys.size_or("num_key_value_heads", HEADS_MAX, heads)?;
    let head_dim = head_dim(&keys, hidden, heads, kv_heads)?;
    let vocab = keys.size("vocab_size", TOKENS_MAX)?;
    let activation = match keys.name("hidden_act")? {
        Some("silu" | "swish") => Activation::Silu,
        Some("relu2") => Activation::Relu2,
        Some("relu") => Activation::Relu,
        // The defaults of the configuration classes in transformers 5.23.0.
        None if architecture == "BitNetForCausalLM" => Activation::Relu2,
        None => Activation::Silu,
        Some(other) => return Err(unsupported_activation(other)),
    };
    Ok(ModelConfig {
        architecture: architecture.to_owned(),
        topology: Topology::LlamaLike,
        linears: if ternary { LinearKind::Ternary } else { LinearKind::Float },
        attention_bias,
        ffn_bias,
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
        positions: Positions::Rotary { theta: rope_theta(object)? },
        activation,
        tied_head: keys.flag("tie_word_embeddings")?,
        unit_rule,
        bos: keys.tokens("bos_token_id", vocab)?.first().copied(),
        eos: keys.tokens("eos_token_id", vocab)?,
    })
}

/// OPT (transformers 5.23.0 `models/opt`). OPT-350m differs from its sisters in two ways, and both
/// are refused by name: norms after the blocks, and projections around the decoder.
pub(super) fn opt_like(
    architecture: &str,
    object: &Map<String, Value>,
) -> Result<ModelConfig, ConfigError> {
    let keys = Keys(object);
    if keys.present("quantization_config").is_some() {
        return Err(ConfigError::Feature { feature: "a quantised OPT".into() });
    }
    if keys.flag("do_layer_norm_before")? == Some(false) {
        return Err(ConfigError::Feature {
            feature: "norms after its blocks (do_layer_norm_before: false, as OPT-350m)".into(),
        });
    }
    if keys.flag("_remove_final_layer_norm")? == Some(true) {
        return Err(ConfigError::Feature { feature: "no final norm".into() });
    }
    if keys.flag("layer_norm_elementwise_affine")? == Some(false) {
        return Err(ConfigError::Feature { feature: "norms without weights".into() });
    }
    let hidden = keys.size("hidden_size", WIDTH_MAX)?;
    if keys.size_or("word_embed_proj_dim", WIDTH_MAX, hidden)? != hidden {
        return Err(ConfigError::Feature {
            feature: "projections around the decoder (word_embed_proj_dim, as OPT-350m)".into(),
        });
    }
    let heads = keys.size("num_attention_heads", HEADS_MAX)?;
    let vocab = keys.size("vocab_size", TOKENS_MAX)?;
    let bias = keys.flag("enable_bias")?.unwrap_or(true);
    Ok(ModelConfig {
        architecture: architecture.to_owned(),
        topology: Topology::OptLike,
        linears: LinearKind::Float,
        attention_bias: bias,
        ffn_bias: bias,
        hidden,
        ffn: keys.size("ffn_dim", WIDTH_MAX)?,
        layers: keys.size("num_hidden_layers", LAYERS_MAX)?,
        heads,
        kv_heads: heads,
        head_dim: head_dim(&keys, hidden, heads, heads)?,
        vocab,
        positions_max: keys.size_or("max_position_embeddings", TOKENS_MAX, 2048)?,
        norm_eps: 1e-5,
        positions: Positions::Learned { offset: 2 },
        activation: match keys.name("activation_function")? {
            None | Some("relu") => Activation::Relu,
            Some(other) => return Err(unsupported_activation(other)),
        },
        tied_head: Some(keys.flag("tie_word_embeddings")?.unwrap_or(true)),
        unit_rule: UnitRule::Divide,
        bos: keys.tokens("bos_token_id", vocab)?.first().copied(),
        eos: keys.tokens("eos_token_id", vocab)?,
    })
}

fn unsupported_activation(name: &str) -> ConfigError {
    ConfigError::Feature { feature: format!("the activation `{}`", readable(name)) }
}

/// Elements of a head: a key of its own, or an equal share of the hidden vector.
fn head_dim(
    keys: &Keys<'_>,
    hidden: usize,
    heads: usize,
    kv_heads: usize,
) -> Result<usize, ConfigError> {
    let contradiction = |what| Err(ConfigError::Contradiction { what });
    if !heads.is_multiple_of(kv_heads) {
        return contradiction(format!(
            "{heads} attention heads cannot share {kv_heads} key/value heads"
        ));
    }
    if keys.present("head_dim").is_none() && !hidden.is_multiple_of(heads) {
        return contradiction(format!("hidden_size {hidden} cannot be split into {heads} heads"));
    }
    let head_dim = keys.size_or("head_dim", HEAD_DIM_MAX as u64, hidden / heads)?;
    if head_dim == 0 || head_dim > HEAD_DIM_MAX || !head_dim.is_multiple_of(2) {
        return contradiction(format!(
            "head_dim {head_dim} is not an even number up to {HEAD_DIM_MAX}"
        ));
    }
    if (heads * head_dim) as u64 > WIDTH_MAX {
        return contradiction(format!("{heads} heads of {head_dim} are wider than {WIDTH_MAX}"));
    }
    Ok(head_dim)
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
    let kept = quantization.get("modules_to_not_convert").and_then(Value::as_array);
    let kept = kept.into_iter().flatten().filter_map(Value::as_str);
    if let Some(module) = kept.into_iter().find(|module| *module != "lm_head") {
        let feature = format!("a module left unquantised (`{}`)", readable(module));
        return Err(ConfigError::Feature { feature });
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

/// Rope scaling would change the result without changing a shape.
fn refuse_rope_scaling(object: &Map<String, Value>) -> Result<(), ConfigError> {
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
