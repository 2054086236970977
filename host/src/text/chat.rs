//! How one model wants to be talked to.

use serde_json::Value;

use super::{
    BuiltinForm, ChatTemplate, Message, Renderer, TemplateContext, TemplateError, TokenId,
    Tokenizer, TokenizerError,
};

const CONFIG: &str = "tokenizer_config.json";

/// Why a conversation cannot be turned into tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The chat template is the reason.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The tokenizer is the reason.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

impl TextError {
    /// What to do about it, in a sentence without a full stop.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Template(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
        }
    }
}

/// A chat template with the special tokens that it prints.
#[derive(Clone, Debug)]
pub struct ChatFormat {
    template: ChatTemplate,
    form: Option<BuiltinForm>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    pad_token: Option<String>,
    unk_token: Option<String>,
}

impl ChatFormat {
    /// Reads the files of a model folder: `tokenizer_config.json` and `chat_template.jinja`.
    ///
    /// The second wins where both have a template, as in `transformers`. Of several named
    /// templates the one called `default` is taken. `None` when there is no template.
    ///
    /// # Errors
    ///
    /// When a file that is there cannot be read, or the template cannot be used.
    pub fn from_files(
        tokenizer_config: Option<&[u8]>,
        chat_template_jinja: Option<&[u8]>,
    ) -> Result<Option<Self>, TemplateError> {
        let config: Value = match tokenizer_config {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|source| TemplateError::File { file: CONFIG, source: Some(source) })?,
            None => Value::Null,
        };
        let source = match chat_template_jinja {
            Some(bytes) => match core::str::from_utf8(bytes) {
                Ok(text) => Some(text.to_owned()),
                Err(_) => {
                    let file = "chat_template.jinja";
                    return Err(TemplateError::File { file, source: None });
                }
            },
            None => source_in(&config["chat_template"])?,
        };
        let Some(source) = source else { return Ok(None) };
        Ok(Some(Self {
            template: ChatTemplate::new(source)?,
            form: None,
            bos_token: token_in(&config["bos_token"]),
            eos_token: token_in(&config["eos_token"]),
            pad_token: token_in(&config["pad_token"]),
            unk_token: token_in(&config["unk_token"]),
        }))
    }

    /// A form that is part of the program, for a model with `tokenizer`.
    ///
    /// # Errors
    ///
    /// [`TemplateError::Foreign`] when the tokenizer lacks a token that the form prints.
    pub fn builtin(form: BuiltinForm, tokenizer: &Tokenizer) -> Result<Self, TemplateError> {
        if let Some(token) = form.missing(tokenizer) {
            return Err(TemplateError::Foreign { form: form.name(), token });
        }
        Ok(Self {
            template: ChatTemplate::new(form.source().to_owned())?,
            form: Some(form),
            bos_token: Some(form.bos_token().to_owned()),
            eos_token: Some(form.eos_token().to_owned()),
            pad_token: None,
            unk_token: None,
        })
    }

    /// Which of the program's forms it is; `None` when it came with the model.
    pub fn form(&self) -> Option<BuiltinForm> {
        self.form
    }

    /// The template.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Text of the token that ends a turn, where the model's author names one.
    pub fn eos_token(&self) -> Option<&str> {
        self.eos_token.as_deref()
    }

    /// Turns a conversation into the tokens after which the assistant speaks.
    ///
    /// # Errors
    ///
    /// When the template refuses the conversation or fails, or the tokenizer fails.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        renderer: &Renderer,
        messages: &[Message],
    ) -> Result<Vec<TokenId>, TextError> {
        let protect: Vec<String> = tokenizer.special_texts().map(str::to_owned).collect();
        let context = TemplateContext {
            messages,
            add_generation_prompt: true,
            bos_token: self.bos_token.as_deref(),
            eos_token: self.eos_token.as_deref(),
            pad_token: self.pad_token.as_deref(),
            unk_token: self.unk_token.as_deref(),
            protect: &protect,
            ..TemplateContext::default()
        };
        let rendered = self.template.render(&context, renderer)?;
        Ok(tokenizer.encode_rendered(&rendered)?)
    }
}

/// A template is a text, or a list of named texts.
fn source_in(field: &Value) -> Result<Option<String>, TemplateError> {
    let unreadable = || TemplateError::File { file: CONFIG, source: None };
    match field {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            let text = default.and_then(|entry| entry["template"].as_str());
            text.map(|text| Some(text.to_owned())).ok_or_else(unreadable)
        }
        _ => Err(unreadable()),
    }
}

/// A token is a text, or an object with the text as its `content`.
fn token_in(field: &Value) -> Option<String> {
    field.as_str().or_else(|| field["content"].as_str()).map(str::to_owned)
}
