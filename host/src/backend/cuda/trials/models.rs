//! [`Trial`]: the shapes of model that reach every kernel.

use crate::backend::HeadType;
use crate::floats::FloatType;
use crate::preset::Preset;

/// A shape of model that is tried.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    pub(super) model: Preset,
    pub(super) head: HeadType,
}

/// A name, the type of its floats, how the head is held, how many layers, and a config.
macro_rules! trials {
    ($($name:literal $float:ident $head:ident $layers:literal {
        $($key:literal: $value:expr),+ $(,)?
    })+) => {
        &[$(Trial {
            model: Preset {
                name: $name,
                model: "none",
                config: concat!(
                    "{",
                    $("\"", $key, "\":", $value, ",",)+
                    "\"num_hidden_layers\":", $layers, ",\"max_position_embeddings\":1024}"
                ),
                float: FloatType::$float,
            },
            head: HeadType::$head,
        }),+]
    };
}

/// Every trial. Between them: every width of heads that has a kernel of its own, and one that has
/// none; a key head for each query head and for several; both kinds of linears, all float types;
/// all activations, gated and plain; sub-norms or none; layer norms, biases, learned positions;
/// widths that are no whole tiles, and beyond what a kernel for one row takes; two layers, and
/// as many as it takes for what they take turns with to come again.
pub const TRIALS: &[Trial] = trials! {
    "ternary, heads of 100, SiLU, sub-norms" F16 Stored 2 {
        "architectures": "[\"BitnetForCausalLM\"]", "hidden_act": "\"silu\"",
        "hidden_size": "260", "intermediate_size": "1100", "vocab_size": "300",
        "num_attention_heads": "3", "num_key_value_heads": "3", "head_dim": "100",
        "tie_word_embeddings": "false"
    }
    "ternary, many heads of 100, SiLU" F16 Stored 5 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"silu\"",
        "quantization_config": "{\"quant_method\":\"bitnet\"}",
        "hidden_size": "260", "intermediate_size": "1100", "vocab_size": "300",
        "num_attention_heads": "18", "num_key_value_heads": "18", "head_dim": "100",
        "tie_word_embeddings": "false"
    }
    "ternary, heads of 128 in groups, ReLU2, sub-norms" Bf16 Stored 5 {
        "architectures": "[\"BitNetForCausalLM\"]", "hidden_act": "\"relu2\"",
        "hidden_size": "512", "intermediate_size": "1100", "vocab_size": "300",
        "num_attention_heads": "20", "num_key_value_heads": "5", "head_dim": "128",
        "tie_word_embeddings": "true"
    }
    "ternary, heads of 256 in a group, wide rows" Bf16 Stored 2 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"silu\"",
        "quantization_config": "{\"quant_method\":\"bitnet\"}",
        "hidden_size": "128", "intermediate_size": "9500", "vocab_size": "300",
        "num_attention_heads": "4", "num_key_value_heads": "1", "head_dim": "256",
        "tie_word_embeddings": "false"
    }
    "ternary, many heads of 64, a wide stream, ReLU" F32 Stored 2 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"relu\"",
        "quantization_config": "{\"quant_method\":\"bitnet\"}",
        "hidden_size": "4100", "intermediate_size": "260", "vocab_size": "300",
        "num_attention_heads": "20", "num_key_value_heads": "20", "head_dim": "64",
        "tie_word_embeddings": "false"
    }
    "ternary, heads of 96, a large vocabulary" F16 Stored 2 {
        "architectures": "[\"BitNetForCausalLM\"]", "hidden_act": "\"relu2\"",
        "hidden_size": "132", "intermediate_size": "4400", "vocab_size": "17000",
        "num_attention_heads": "6", "num_key_value_heads": "2", "head_dim": "96",
        "tie_word_embeddings": "true"
    }
    "ternary, heads of 80" F16 Stored 2 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"silu\"",
        "quantization_config": "{\"quant_method\":\"bitnet\"}",
        "hidden_size": "400", "intermediate_size": "1100", "vocab_size": "300",
        "num_attention_heads": "5", "num_key_value_heads": "1", "head_dim": "80",
        "tie_word_embeddings": "false"
    }
    "f16, heads of 64, biases" F16 Stored 2 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"silu\"",
        "attention_bias": "true", "mlp_bias": "true",
        "hidden_size": "260", "intermediate_size": "1100", "vocab_size": "300",
        "num_attention_heads": "4", "num_key_value_heads": "2", "head_dim": "64",
        "tie_word_embeddings": "false"
    }
    "f16, heads of 64, a large vocabulary in INT8" F16 Int8 2 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"silu\"",
        "hidden_size": "132", "intermediate_size": "260", "vocab_size": "17000",
        "num_attention_heads": "4", "num_key_value_heads": "2", "head_dim": "64",
        "tie_word_embeddings": "true"
    }
    "bf16, heads of 80, ReLU2" Bf16 Stored 2 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"relu2\"",
        "hidden_size": "320", "intermediate_size": "1100", "vocab_size": "300",
        "num_attention_heads": "4", "num_key_value_heads": "4", "head_dim": "80",
        "tie_word_embeddings": "true"
    }
    "f32, heads of 128" F32 Stored 2 {
        "architectures": "[\"LlamaForCausalLM\"]", "hidden_act": "\"silu\"",
        "hidden_size": "260", "intermediate_size": "1100", "vocab_size": "300",
        "num_attention_heads": "2", "num_key_value_heads": "1", "head_dim": "128",
        "tie_word_embeddings": "false"
    }
    "OPT, f16, heads of 64" F16 Stored 2 {
        "architectures": "[\"OPTForCausalLM\"]", "activation_function": "\"relu\"",
        "hidden_size": "256", "ffn_dim": "1100", "vocab_size": "300",
        "num_attention_heads": "4", "tie_word_embeddings": "true"
    }
    "OPT, f32, heads of 100" F32 Stored 2 {
        "architectures": "[\"OPTForCausalLM\"]", "activation_function": "\"relu\"",
        "hidden_size": "300", "ffn_dim": "1100", "vocab_size": "300",
        "num_attention_heads": "3", "tie_word_embeddings": "false"
    }
};

impl Trial {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.model.name
    }

    /// Seed of its weights.
    pub(super) fn seed(&self) -> u64 {
        self.model.name.len() as u64
    }

    /// Whether the CPU takes its time over it.
    pub(super) fn is_wide(&self) -> bool {
        ["\"intermediate_size\":9500", "\"hidden_size\":4100", "\"vocab_size\":17000"]
            .iter()
            .any(|size| self.model.config.contains(size))
    }
}
