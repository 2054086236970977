//! Chat templates: what a model's author wrote to turn messages into one text.

use core::fmt::Write as _;
use core::ops::Range;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::jail;
use super::jinja::{self, RenderError, Request, SyntaxError};
use super::protect::{Brackets, Specials};

/// Longest source of a template, in bytes; the longest published ones have 20 KiB.
const SOURCE_LIMIT: usize = 64 * 1024;

/// SHA-256 of templates that are known to be harmless: the one of the built-in storyteller, and
/// those of the built-in forms.
const TRUSTED: [&str; 3] = [
    "89d4d6dac2b2b2d011a3eb7cd1875d114f0d9b5a3e1bab419de00fa80d7ff261",
    "327f549de0d0970be76b5270ec018f3b640cda471b135b2c3d1fccc52d7fe140",
    "fa839a2a270cce33fa9dd75edeb655a43f5c1691fbf54b1c47bba424ae3f9ddc",
];

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks; templates know `system`, `user` and `assistant`, some of them more.
    pub role: String,
    /// What is said.
    pub content: String,
}

/// What a template is rendered with.
#[derive(Clone, Debug, Default)]
pub struct TemplateContext<'a> {
    /// The conversation, oldest message first.
    pub messages: &'a [Message],
    /// Whether the text shall end where the assistant begins to speak.
    pub add_generation_prompt: bool,
    /// Text of the token that begins a sequence; undefined for the template when `None`.
    pub bos_token: Option<&'a str>,
    /// Text of the token that ends a sequence or a turn.
    pub eos_token: Option<&'a str>,
    /// Text of the token that fills a batch.
    pub pad_token: Option<&'a str>,
    /// Text of the token for what the vocabulary lacks.
    pub unk_token: Option<&'a str>,
    /// Further variables, such as `enable_thinking` or `tools`.
    pub extra: Map<String, Value>,
    /// Texts that shall stay text where messages or `extra` contain them: see
    /// [`Tokenizer::special_texts`](super::Tokenizer::special_texts).
    pub protect: &'a [String],
}

/// Where a template runs.
#[derive(Clone, Debug)]
pub enum Renderer {
    /// In this process. Time is limited by fuel, output by its length; memory is not limited, so
    /// this is for templates that are trusted.
    InProcess,
    /// In a process of its own with limits on memory and time, except for templates known to be
    /// harmless. `program args...` must call [`render_child_main`](super::render_child_main).
    Child {
        /// The program to start.
        program: PathBuf,
        /// Its arguments.
        args: Vec<OsString>,
    },
}

/// Why a template cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The source is longer than the limit.
    #[error("the chat template has {bytes} bytes, the limit is {SOURCE_LIMIT}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The source is not a template, or uses what is not supported.
    #[error("line {line} of the chat template: {message}")]
    Syntax {
        /// Line in the source, from 1.
        line: u32,
        /// What is wrong.
        message: String,
    },
    /// A file with a template cannot be read as what it should be.
    #[error("`{file}` holds no readable chat template")]
    File {
        /// Name of the file.
        file: &'static str,
        /// What is wrong, when it is wrong as JSON.
        source: Option<serde_json::Error>,
    },
    /// The template itself refused the conversation (`raise_exception`).
    #[error("the chat template refuses this conversation: {message}")]
    Raised {
        /// The template's words.
        message: String,
    },
    /// The template did something that has no result.
    #[error("the chat template fails: {message}")]
    Failed {
        /// What happened, with the line where it is known.
        message: String,
    },
    /// The template needs more time, memory or output than any conversation justifies.
    #[error("the chat template exceeds its limit of {limit}")]
    Limit {
        /// Which limit.
        limit: &'static str,
    },
    /// The template changes the text of a special token in a message, so that text and token
    /// could not be told apart.
    #[error("the chat template takes apart a message that contains the text of a special token")]
    Entangled,
    /// A built-in form prints a token that the tokenizer does not have.
    #[error("the chat form of {form} needs the token `{token}`, which the tokenizer lacks")]
    Foreign {
        /// Name of the form.
        form: &'static str,
        /// Text of the token.
        token: &'static str,
    },
    /// The child process cannot be started or spoken to.
    #[error("cannot run the chat template in a process of its own")]
    Child(#[source] std::io::Error),
}

impl TemplateError {
    /// What to do about it, in a sentence without a full stop.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::TooLong { .. } | Self::Limit { .. } => {
                "the template may be hostile; chat without it or use another model"
            }
            Self::Syntax { .. } | Self::File { .. } | Self::Failed { .. } => {
                "send the prompt as plain text, or give the model another template"
            }
            Self::Raised { .. } => "change the conversation to what the model's author allows",
            Self::Entangled => "remove the special token's text from the message",
            Self::Foreign { .. } => "take the form that the model was trained with, or none",
            Self::Child(_) => "check that this program may start itself again",
        }
    }
}

impl From<SyntaxError> for TemplateError {
    fn from(error: SyntaxError) -> Self {
        Self::Syntax { line: error.line, message: error.message }
    }
}

impl From<RenderError> for TemplateError {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Raised(message) => Self::Raised { message },
            RenderError::Failed(message) => Self::Failed { message },
            RenderError::Fuel => Self::Limit { limit: "time" },
            RenderError::Output => Self::Limit { limit: "output" },
        }
    }
}

/// A template that has been read and found usable.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    program: String,
    hash: [u8; 32],
}

impl ChatTemplate {
    /// Reads a template: Jinja2 as `transformers` sets it up (`trim_blocks`, `lstrip_blocks`,
    /// loop controls, `{% generation %}`, `tojson`, `raise_exception`, `strftime_now`; the last one
    /// tells the time in UTC, where `transformers` tells the local time).
    ///
    /// # Errors
    ///
    /// When the source is longer than 64 KiB, is no template, or uses a part of Jinja2 that this
    /// program cannot do exactly as Jinja2 does.
    pub fn new(source: String) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_LIMIT {
            return Err(TemplateError::TooLong { bytes: source.len() });
        }
        let program = jinja::translate(&source)?;
        let hash = Sha256::digest(source.as_bytes()).into();
        Ok(Self { source, program, hash })
    }

    /// The source as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// SHA-256 of the source.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// SHA-256 of the source in hexadecimal, for messages and session files.
    pub fn hash_hex(&self) -> String {
        self.hash.iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    /// Whether the template is known to be harmless and always runs in this process.
    pub fn is_trusted(&self) -> bool {
        TRUSTED.contains(&self.hash_hex().as_str())
    }

    /// Renders a conversation.
    ///
    /// Texts of `context.protect` inside of messages come out marked, see [`Rendered`].
    ///
    /// # Errors
    ///
    /// When the template refuses the conversation, fails, exceeds a limit, or cannot be run.
    pub fn render(
        &self,
        context: &TemplateContext<'_>,
        renderer: &Renderer,
    ) -> Result<Rendered, TemplateError> {
        let variables = context.variables(context.messages, &context.extra);
        let mut request = Request::new(self.program.clone(), variables);
        let Some((brackets, marked)) = context.marked(&self.source)? else {
            let [text, _] = self.run(&request, renderer)?;
            return Ok(Rendered { text, protected: Vec::new() });
        };
        request.marked = Some(marked);
        let [plain, marked] = self.run(&request, renderer)?;
        let (text, protected) = brackets.unwrap(&marked);
        if text != plain {
            return Err(TemplateError::Entangled);
        }
        Ok(Rendered { text, protected })
    }

    fn run(&self, request: &Request, renderer: &Renderer) -> Result<[String; 2], TemplateError> {
        match renderer {
            Renderer::Child { program, args } if !self.is_trusted() => {
                jail::render(request, program, args)
            }
            _ => Ok(request.render()?),
        }
    }
}

impl TemplateContext<'_> {
    fn variables(&self, messages: &[Message], extra: &Map<String, Value>) -> Map<String, Value> {
        let mut variables = extra.clone();
        let tokens = [
            ("bos_token", self.bos_token),
            ("eos_token", self.eos_token),
            ("pad_token", self.pad_token),
            ("unk_token", self.unk_token),
        ];
        for (name, token) in tokens {
            if let Some(token) = token {
                variables.insert(name.to_owned(), token.into());
            }
        }
        let messages = messages.iter().map(|message| {
            let fields = [("role", &message.role), ("content", &message.content)];
            fields.into_iter().map(|(name, text)| (name.to_owned(), text.as_str().into())).collect()
        });
        variables
            .insert("messages".to_owned(), Value::Array(messages.map(Value::Object).collect()));
        variables.insert("add_generation_prompt".to_owned(), self.add_generation_prompt.into());
        // `transformers` passes these two in every case.
        for name in ["tools", "documents"] {
            variables.entry(name).or_insert(Value::Null);
        }
        variables
    }

    /// The same variables with brackets round special texts; `None` when there are none.
    #[expect(clippy::type_complexity, reason = "one caller, which takes it apart at once")]
    fn marked(
        &self,
        source: &str,
    ) -> Result<Option<(Brackets, Map<String, Value>)>, TemplateError> {
        let specials = Specials::new(self.protect.iter().map(String::as_str))
            .ok_or(TemplateError::Limit { limit: "special tokens" })?;
        let mut texts = vec![source];
        for message in self.messages {
            texts.extend([message.role.as_str(), message.content.as_str()]);
        }
        self.extra.values().for_each(|value| collect_texts(value, &mut texts));
        if texts[1..].iter().all(|text| specials.find(text).is_empty()) {
            return Ok(None);
        }
        let brackets = Brackets::choose(texts.iter().copied()).ok_or(TemplateError::Entangled)?;
        let mut messages = self.messages.to_vec();
        let mut extra = self.extra.clone();
        brackets.wrap(&specials, &mut messages, &mut extra);
        Ok(Some((brackets, self.variables(&messages, &extra))))
    }
}

fn collect_texts<'v>(value: &'v Value, texts: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(fields) => {
            for (name, field) in fields {
                texts.push(name);
                collect_texts(field, texts);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A conversation as one text, and which parts of it must not be read as special tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    text: String,
    /// In order, not empty, not overlapping, on character boundaries.
    protected: Vec<Range<usize>>,
}

impl Rendered {
    /// The text, byte for byte what `transformers` renders.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Byte ranges of texts of special tokens that came from messages, in order.
    pub fn protected(&self) -> &[Range<usize>] {
        &self.protected
    }
}
