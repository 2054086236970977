//! [`Package`]: a model with everything that comes with it: config, tokenizer, chat form, defaults.

use std::path::PathBuf;

use serde_json::Value;

use crate::backend::TokenId;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{ConfigError, ModelConfig, parse_object, token_ids};
use crate::error::Error;
use crate::model::{Model, ModelError};
use crate::sampler::Sampling;
use crate::text::{BuiltinForm, ChatFormat, TemplateError, Tokenizer};

/// Side files of a model, in the order in which a `.tercet` file keeps them.
pub(crate) const SIDE_FILES: [&str; 5] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
];

/// Names that model families give to the token that ends a turn of a chat, where their config only
/// names the end of a document (BitNet 2B-4T: `<|eot_id|>`).
const END_OF_TURN: [&str; 4] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];

/// Where a model is.
#[derive(Debug, Clone)]
pub enum Source {
    /// A `.tercet` file inside the program.
    Builtin {
        /// Its name, for people.
        name: &'static str,
        /// Its bytes.
        bytes: &'static [u8],
    },
    /// A folder or a `.tercet` file.
    Path(PathBuf),
}

/// An opened model and what comes with it. Weights are not touched yet.
#[derive(Debug)]
pub struct Package {
    /// The mapped files.
    pub checkpoint: Checkpoint,
    /// Sizes and switches.
    pub config: ModelConfig,
    /// From text to tokens and back; a model without one runs on token ids.
    pub tokenizer: Option<Tokenizer>,
    /// The chat form: the model's own, or a built-in one where the model has none and is known.
    pub chat: Option<ChatFormat>,
    /// How the model's makers sample.
    pub sampling: Sampling,
    /// Tokens that end an answer.
    pub stop_tokens: Vec<TokenId>,
}

impl Package {
    /// Opens a model and reads its side files.
    ///
    /// # Errors
    ///
    /// [`Error`] when a file is absent, damaged, or does not fit the others.
    pub fn open(source: &Source) -> Result<Self, Error> {
        Self::from_checkpoint(match source {
            Source::Builtin { name, bytes } => Checkpoint::builtin(name, bytes)?,
            Source::Path(path) => Checkpoint::open(path)?,
        })
    }

    /// Reads the side files of a model that is open already.
    ///
    /// # Errors
    ///
    /// [`Error`] when a file is absent, damaged, or does not fit the others.
    pub fn from_checkpoint(checkpoint: Checkpoint) -> Result<Self, Error> {
        let json = checkpoint.file("config.json")?;
        let json = json.ok_or(CheckpointError::NoFile { name: "config.json" })?;
        let config = ModelConfig::parse(&json)?;

        let tokenizer = match checkpoint.file("tokenizer.json")? {
            Some(json) => Some(Tokenizer::from_json(&json)?),
            None => None,
        };
        if let Some(id) = tokenizer.as_ref().map(Tokenizer::max_id)
            && id as usize >= config.vocab
        {
            return Err(Error::ForeignTokenizer { id, vocab: config.vocab });
        }
        let tokenizer_config = checkpoint.file("tokenizer_config.json")?;
        let template = checkpoint.file("chat_template.jinja")?;
        let own = ChatFormat::from_files(tokenizer_config.as_deref(), template.as_deref())?;
        let chat = match (own, &tokenizer) {
            (None, Some(tokenizer)) => known_form(&json, &config, tokenizer, checkpoint.name())?,
            (own, _) => own,
        };

        let mut stop_tokens = config.eos.clone();
        let sampling = match checkpoint.file("generation_config.json")? {
            Some(json) => generation_defaults(&json, config.vocab, &mut stop_tokens)?,
            None => SAMPLING,
        };
        let mut package = Self { checkpoint, config, tokenizer, chat, sampling, stop_tokens };
        package.stop_at_turns();
        Ok(package)
    }

    /// Takes a chat form of the program instead of what the model came with, or none: then
    /// messages are continued as text. Without a tokenizer there is no text and no form.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Foreign`] when the tokenizer lacks a token that the form prints.
    pub fn use_form(&mut self, form: Option<BuiltinForm>) -> Result<(), TemplateError> {
        self.chat = match (form, &self.tokenizer) {
            (Some(form), Some(tokenizer)) => Some(ChatFormat::builtin(form, tokenizer)?),
            _ => None,
        };
        self.stop_at_turns();
        Ok(())
    }

    /// Adds what ends a turn of the chat to what ends an answer.
    fn stop_at_turns(&mut self) {
        if let (Some(tokenizer), Some(chat)) = (&self.tokenizer, &self.chat) {
            let names = END_OF_TURN.into_iter().chain(chat.eos_token());
            let ids = names.filter_map(|name| tokenizer.token_id(name));
            self.stop_tokens.extend(ids.filter(|id| tokenizer.is_special(*id)));
        }
        self.stop_tokens.sort_unstable();
        self.stop_tokens.dedup();
    }

    /// Finds and checks the weights.
    ///
    /// # Errors
    ///
    /// As [`Model::bind`].
    pub fn bind(&self) -> Result<Model<'_>, ModelError> {
        Model::bind(&self.checkpoint, self.config.clone())
    }
}

/// The built-in form of a model without a template, where the model is recognised.
fn known_form(
    config_json: &[u8],
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    name: &str,
) -> Result<Option<ChatFormat>, Error> {
    let object = parse_object("config.json", config_json)?;
    let named = object.get("_name_or_path").and_then(Value::as_str);
    let form = BuiltinForm::recognise(config, tokenizer, named.into_iter().chain([name]));
    Ok(form.map(|form| ChatFormat::builtin(form, tokenizer)).transpose()?)
}

/// Where the model does not say: a little less random than the model itself.
const SAMPLING: Sampling =
    Sampling { repetition_penalty: 1.0, temperature: 0.7, top_k: 0, top_p: 0.95, min_p: 0.0 };

/// Reads `generation_config.json`; adds its end tokens to `stop_tokens`.
fn generation_defaults(
    json: &[u8],
    vocab: usize,
    stop_tokens: &mut Vec<TokenId>,
) -> Result<Sampling, ConfigError> {
    let object = parse_object("generation_config.json", json)?;
    let error = |key, value: &Value| ConfigError::Value {
        key,
        got: value.to_string(),
        wanted: "a value in its range (generation_config.json)",
    };
    if let Some(value) = object.get("eos_token_id").filter(|value| !value.is_null()) {
        stop_tokens.extend(token_ids(value, vocab).ok_or_else(|| error("eos_token_id", value))?);
    }
    if object.get("do_sample") == Some(&Value::Bool(false)) {
        return Ok(Sampling::GREEDY);
    }
    let number = |key: &'static str, default: f32| match object.get(key) {
        None | Some(Value::Null) => Ok(default),
        #[allow(clippy::cast_possible_truncation, reason = "a policy needs no double")]
        Some(value) => value.as_f64().map(|number| number as f32).ok_or_else(|| error(key, value)),
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked below")]
    let sampling = Sampling {
        repetition_penalty: number("repetition_penalty", 1.0)?,
        temperature: number("temperature", SAMPLING.temperature)?,
        top_k: number("top_k", 0.0)?.clamp(0.0, 1e6) as usize,
        top_p: number("top_p", 1.0)?,
        min_p: number("min_p", 0.0)?,
    };
    if sampling.is_valid() {
        Ok(sampling)
    } else {
        Err(error("temperature, top_p, min_p or repetition_penalty", &Value::Object(object)))
    }
}
