//! [`Preset`]: shapes of released models, to measure without downloading one.
//!
//! Each is the text of a `config.json`, read like any other, so a preset is as supported as its
//! architecture is. The numbers are those of the project's table of architectures (formats.md 1.1:
//! released configurations, cross-checked by parameter counts).

use crate::config::{ConfigError, ModelConfig};
use crate::floats::FloatType;

/// The shape of a released model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// What the command line calls it.
    pub name: &'static str,
    /// The model whose shape it is.
    pub model: &'static str,
    /// Text of its `config.json`.
    pub config: &'static str,
    /// Type of everything that is not ternary.
    pub float: FloatType,
}

/// All presets: ternary models, then two controls whose linears are floats.
pub static PRESETS: [Preset; 8] = [
    Preset {
        name: "bitnet-700m",
        model: "1bitLLM/bitnet_b1_58-large",
        config: include_str!("presets/bitnet-700m.json"),
        float: FloatType::F16,
    },
    Preset {
        name: "bitnet-1.3b",
        model: "1bitLLM/bitnet_b1_58-xl",
        config: include_str!("presets/bitnet-1.3b.json"),
        float: FloatType::F16,
    },
    Preset {
        name: "bitnet-3b",
        model: "1bitLLM/bitnet_b1_58-3B",
        config: include_str!("presets/bitnet-3b.json"),
        float: FloatType::F16,
    },
    Preset {
        name: "bitnet-2b-4t",
        model: "microsoft/bitnet-b1.58-2B-4T",
        config: include_str!("presets/bitnet-2b-4t.json"),
        float: FloatType::Bf16,
    },
    Preset {
        name: "llama3-8b-1.58",
        model: "HF1BitLLM/Llama3-8B-1.58-100B-tokens",
        config: include_str!("presets/llama3-8b-1.58.json"),
        float: FloatType::Bf16,
    },
    Preset {
        name: "falcon3-7b-1.58",
        model: "tiiuae/Falcon3-7B-Instruct-1.58bit",
        config: include_str!("presets/falcon3-7b-1.58.json"),
        float: FloatType::Bf16,
    },
    Preset {
        name: "llama-7b",
        model: "huggyllama/llama-7b",
        config: include_str!("presets/llama-7b.json"),
        float: FloatType::F16,
    },
    Preset {
        name: "opt-6.7b",
        model: "facebook/opt-6.7b",
        config: include_str!("presets/opt-6.7b.json"),
        float: FloatType::F16,
    },
];

impl Preset {
    /// The preset called `name`.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// Its sizes and switches.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an architecture that this version does not run.
    pub fn parse(&self) -> Result<ModelConfig, ConfigError> {
        ModelConfig::parse(self.config.as_bytes())
    }
}
