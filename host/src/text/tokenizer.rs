//! A `tokenizer.json`, checked, and the two ways of encoding text with it.

use core::cell::Cell;
use core::ops::Range;
use core::panic::AssertUnwindSafe;
use std::collections::HashMap;
use std::panic::catch_unwind;

use serde_json::Value;

use super::vetting::{self, ID_LIMIT};
use super::{Rendered, TextStream, TokenId};

/// Why a tokenizer cannot be built or cannot encode a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenizerError {
    /// The bytes are not JSON.
    #[error("`tokenizer.json` is not valid JSON")]
    Json(#[source] serde_json::Error),
    /// The JSON describes no tokenizer that can be built.
    #[error("`tokenizer.json` does not describe a tokenizer")]
    Build(#[source] Box<dyn core::error::Error + Send + Sync>),
    /// A token has a number that no vocabulary reaches.
    #[error("token `{token}` has id {id}, the limit is {ID_LIMIT}")]
    Id {
        /// The text of the token.
        token: String,
        /// Its number in the file.
        id: u64,
    },
    /// There is not a single token.
    #[error("`tokenizer.json` has an empty vocabulary")]
    Empty,
    /// The tokenizer failed on a text.
    #[error("the tokenizer cannot encode the text")]
    Encode(#[source] Box<dyn core::error::Error + Send + Sync>),
    /// The file makes the tokenizer library fail in a way that it does not report.
    #[error("`tokenizer.json` contradicts itself")]
    Contradiction,
    /// The model inside the tokenizer knows a control token only as a control token.
    #[error("the tokenizer cannot write `{token}` as plain text")]
    Control {
        /// The text of the control token.
        token: String,
    },
}

impl TokenizerError {
    /// What to do about it, in a sentence without a full stop.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Json(_) => "download `tokenizer.json` again; the file may be cut short",
            Self::Build(_) => {
                "use a `tokenizer.json` written by Hugging Face tokenizers 0.13 to 0.23"
            }
            Self::Id { .. } | Self::Empty | Self::Contradiction => {
                "the file is damaged; take it from the model's author"
            }
            Self::Encode(_) => "shorten the text or remove unusual characters",
            Self::Control { .. } => "remove the control token's text from the message",
        }
    }
}

/// A tokenizer that keeps text and control tokens apart.
///
/// Truncation, padding and BPE dropout that a `tokenizer.json` may ask for are switched off: a
/// prompt is never cut, filled or split at random. Special tokens are matched before
/// normalization, as `transformers` does. Text that is encoded costs time in proportion to its
/// length; 10 MB take seconds.
#[derive(Debug)]
pub struct Tokenizer {
    /// Parses special tokens in the text.
    parsing: tokenizers::Tokenizer,
    /// Sees special tokens in the text as text.
    literal: tokenizers::Tokenizer,
    /// `literal` for text that does not begin the sequence, where that makes a difference.
    continuing: Option<tokenizers::Tokenizer>,
    /// Text of every special token.
    specials: HashMap<TokenId, String>,
    /// What the model gives for characters that it does not know; special, but made by text.
    unknown: Option<TokenId>,
    max_id: TokenId,
    byte_level: bool,
    unusual_patterns: Vec<String>,
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// When the bytes are not JSON, describe no tokenizer, hold no token, or give a token an id
    /// of 2^24 or more.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let mut file: Value = serde_json::from_slice(bytes).map_err(TokenizerError::Json)?;
        vetting::check(&file)?;
        vetting::make_plain(&mut file);
        let byte_level = vetting::is_byte_level(&file["decoder"]);
        let unusual_patterns = vetting::unusual_patterns(&file["pre_tokenizer"]);
        let parsing = build(&file)?;
        let mut literal = parsing.clone();
        literal.set_encode_special_tokens(true);
        let continuing = if vetting::never_prepend(&mut file["pre_tokenizer"]) {
            let mut continuing = build(&file)?;
            continuing.set_encode_special_tokens(true);
            Some(continuing)
        } else {
            None
        };

        let max_id = parsing.get_vocab(true).into_values().max().ok_or(TokenizerError::Empty)?;
        if u64::from(max_id) >= ID_LIMIT {
            let token = parsing.id_to_token(max_id).unwrap_or_default();
            return Err(TokenizerError::Id { token, id: max_id.into() });
        }
        let specials = parsing
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (id, token.content))
            .collect();
        let model = &file["model"];
        let unknown = match (&model["unk_token"], &model["unk_id"]) {
            (Value::String(token), _) => parsing.token_to_id(token),
            (_, Value::Number(id)) => id.as_u64().and_then(|id| TokenId::try_from(id).ok()),
            _ => None,
        };
        Ok(Self {
            parsing,
            literal,
            continuing,
            specials,
            unknown,
            max_id,
            byte_level,
            unusual_patterns,
        })
    }

    /// The largest id in the vocabulary; a model needs at least one more row than this.
    pub fn max_id(&self) -> TokenId {
        self.max_id
    }

    /// Patterns of the pre-tokenizer that no published tokenizer is known to use.
    ///
    /// Worth a warning: see the error of the regex engine that tokenizers 0.23 does not report.
    pub fn unusual_patterns(&self) -> &[String] {
        &self.unusual_patterns
    }

    /// The texts of all special tokens, in no order: what must not be parsed in user text.
    pub fn special_texts(&self) -> impl Iterator<Item = &str> {
        self.specials.values().map(String::as_str)
    }

    /// Encodes a plain prompt.
    ///
    /// The post-processor runs, so a model that wants a token at the beginning gets it, once.
    /// The text of a special token stays text.
    ///
    /// # Errors
    ///
    /// When the tokenizer fails, or knows the text of a special token only as that token.
    pub fn encode_text(&self, text: &str) -> Result<Vec<TokenId>, TokenizerError> {
        let encoding = encoded(|| self.literal.encode_fast(text, false))?;
        self.refuse_specials(encoding.get_ids())?;
        let encoding = encoded(|| self.literal.post_process(encoding, None, true))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Encodes a rendered chat template.
    ///
    /// The post-processor does not run: the template itself prints what begins a sequence.
    /// Special tokens that the template printed are parsed, those inside of messages are text;
    /// their neighbourhood gets the ids that it would get as plain text.
    ///
    /// # Errors
    ///
    /// When the tokenizer fails, or knows the text of a special token only as that token.
    pub fn encode_rendered(&self, rendered: &Rendered) -> Result<Vec<TokenId>, TokenizerError> {
        let text = rendered.text();
        if rendered.protected().is_empty() {
            let encoding = encoded(|| self.parsing.encode_fast(text, false))?;
            return Ok(encoding.get_ids().to_vec());
        }
        let mut ids = Vec::new();
        let mut start = 0;
        for (place, id) in self.control_tokens(rendered)? {
            self.encode_literal(text, start..place.start, &mut ids)?;
            ids.push(id);
            start = place.end;
        }
        self.encode_literal(text, start..text.len(), &mut ids)?;
        Ok(ids)
    }

    /// Finds the special tokens that the template printed: the tokenizer itself looks for them in
    /// a copy of the text in which every protected byte is an `x`.
    fn control_tokens(
        &self,
        rendered: &Rendered,
    ) -> Result<Vec<(Range<usize>, TokenId)>, TokenizerError> {
        let text = rendered.text();
        let mut shadow = String::with_capacity(text.len());
        for range in rendered.protected() {
            shadow.push_str(&text[shadow.len()..range.start]);
            shadow.extend(range.clone().map(|_| 'x'));
        }
        shadow.push_str(&text[shadow.len()..]);
        let encoding = encoded(|| self.parsing.encode(shadow.as_str(), false))?;
        let found = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(found
            .filter_map(|(&id, &(start, end))| {
                let special = self.specials.get(&id)?;
                let printed = shadow.get(start..end)?;
                (printed.trim() == special.trim()).then_some((start..end, id))
            })
            .collect())
    }

    fn encode_literal(
        &self,
        text: &str,
        range: Range<usize>,
        ids: &mut Vec<TokenId>,
    ) -> Result<(), TokenizerError> {
        if range.is_empty() {
            return Ok(());
        }
        let tokenizer = match &self.continuing {
            Some(continuing) if range.start > 0 => continuing,
            _ => &self.literal,
        };
        let encoding = encoded(|| tokenizer.encode_fast(&text[range], false))?;
        self.refuse_specials(encoding.get_ids())?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    fn refuse_specials(&self, ids: &[TokenId]) -> Result<(), TokenizerError> {
        let special =
            ids.iter().filter(|&&id| Some(id) != self.unknown).find_map(|id| self.specials.get(id));
        match special {
            Some(token) => Err(TokenizerError::Control { token: token.clone() }),
            None => Ok(()),
        }
    }

    /// The token as it stands in the vocabulary: for a byte-level tokenizer one letter a byte.
    pub fn token_text(&self, id: TokenId) -> Option<String> {
        self.parsing.id_to_token(id)
    }

    /// The id of a token as it stands in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.parsing.token_to_id(token)
    }

    /// Whether `id` is a control token, which is never shown as text.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.specials.contains_key(&id)
    }

    /// The text of a whole sequence, without special tokens; unknown ids give nothing.
    pub fn decode(&self, ids: &[TokenId]) -> String {
        encoded(|| self.parsing.decode(ids, true)).unwrap_or_default()
    }

    /// Begins to turn ids into text one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream::new(self, self.byte_level)
    }
}

fn build(file: &Value) -> Result<tokenizers::Tokenizer, TokenizerError> {
    let bytes = serde_json::to_vec(file).map_err(TokenizerError::Json)?;
    guarded(|| tokenizers::Tokenizer::from_bytes(bytes))?.map_err(TokenizerError::Build)
}

/// Runs the library on a file from a stranger: it indexes maps by what the file says.
///
/// The known cases are refused by [`check`](super::vetting::check) before; this is for the others.
fn guarded<T>(run: impl FnOnce() -> T) -> Result<T, TokenizerError> {
    EXPECTS_PANIC.set(true);
    let result = catch_unwind(AssertUnwindSafe(run));
    EXPECTS_PANIC.set(false);
    result.map_err(|_| TokenizerError::Contradiction)
}

thread_local! {
    static EXPECTS_PANIC: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread would be turned into an error, so that a panic hook can tell it
/// from one that is a bug.
#[must_use]
pub fn expects_panic() -> bool {
    EXPECTS_PANIC.get()
}

fn encoded<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    guarded(run)?.map_err(TokenizerError::Encode)
}
