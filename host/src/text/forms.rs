//! Chat forms of models whose makers published none in a file.
//!
//! A form is a template like any other, written for this program from the code that the models were
//! trained and served with, and rendered by the same means. A model is recognised by facts that its
//! kin does not share: a wrong form is worse than none.

use super::Tokenizer;
use crate::config::ModelConfig;

/// A chat form that is part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuiltinForm {
    /// Vicuna v1.1, v1.3 and v1.5.
    ///
    /// Source: lm-sys/FastChat at 0e6d3e4, `vicuna_v1.1` in `fastchat/conversation.py` and
    /// `docs/vicuna_weights_version.md`. Answers end with `</s>`; FastChat has no stop text for
    /// them, and neither have we: an answer may well contain `USER:`.
    Vicuna,
    /// bitnet-b1.58-2B-4T.
    ///
    /// Source: microsoft/BitNet, `ChatFormat` in `gpu/tokenizer.py`. The template on Hugging Face
    /// prints the same but for the token that begins a sequence, which it leaves to the tokenizer.
    BitNet,
}

impl BuiltinForm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Vicuna, Self::BitNet];

    /// Its name, for a sentence.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vicuna => "Vicuna v1.1",
            Self::BitNet => "BitNet b1.58 2B-4T",
        }
    }

    /// The form that a model without a template was trained with, if it is known beyond doubt.
    ///
    /// `names` are what the model is called: its path, `_name_or_path` of its `config.json`.
    /// Vicuna is a LLaMA like all others, so only a name tells, and only one that begins with
    /// `vicuna`: Stable Vicuna and Wizard Vicuna are others. The first Vicuna (v0, and all deltas)
    /// had another form and often one token more. BitNet 2B-4T is told by its sizes.
    #[must_use]
    pub fn recognise<'n>(
        config: &ModelConfig,
        tokenizer: &Tokenizer,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Option<Self> {
        let sizes = (config.vocab, config.hidden, config.ffn, config.layers);
        let form = match config.architecture.as_str() {
            "BitNetForCausalLM" if sizes == (128_256, 2560, 6912, 30) => Self::BitNet,
            "LlamaForCausalLM" if config.vocab == 32_000 => {
                names.into_iter().any(names_vicuna).then_some(Self::Vicuna)?
            }
            _ => return None,
        };
        form.missing(tokenizer).is_none().then_some(form)
    }

    /// A token that the form prints and the tokenizer does not have as a special one.
    #[must_use]
    pub fn missing(self, tokenizer: &Tokenizer) -> Option<&'static str> {
        let has =
            |token: &str| tokenizer.token_id(token).is_some_and(|id| tokenizer.is_special(id));
        [self.bos_token(), self.eos_token()].into_iter().find(|token| !has(token))
    }

    /// Text of the token that begins a conversation.
    pub(super) fn bos_token(self) -> &'static str {
        match self {
            Self::Vicuna => "<s>",
            Self::BitNet => "<|begin_of_text|>",
        }
    }

    /// Text of the token that ends an answer.
    pub(super) fn eos_token(self) -> &'static str {
        match self {
            Self::Vicuna => "</s>",
            Self::BitNet => "<|eot_id|>",
        }
    }

    /// The template.
    pub(super) fn source(self) -> &'static str {
        match self {
            Self::Vicuna => include_str!("forms/vicuna.jinja"),
            Self::BitNet => include_str!("forms/bitnet.jinja"),
        }
    }
}

/// Whether a path or a repository's name has a part that is Vicuna's, version 1.1 or later.
fn names_vicuna(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // A folder of Hugging Face's cache: `models--lmsys--vicuna-7b-v1.5`.
    let mut parts = name.split(['/', '\\']).flat_map(|part| part.split("--"));
    parts.any(|part| {
        let mut words = part.split(|c: char| !c.is_ascii_alphanumeric());
        words.next() == Some("vicuna") && !words.any(|word| ["v0", "delta"].contains(&word))
    })
}

#[cfg(test)]
mod tests {
    use super::names_vicuna;

    #[test]
    fn vicuna_is_known_by_names_that_begin_with_it() {
        for name in [
            "lmsys/vicuna-7b-v1.5",
            "/models/Vicuna-13B-v1.3",
            "vicuna_7b.tercet",
            "hub/models--lmsys--vicuna-7b-v1.1/snapshots/0123",
            "vicuna",
            r"C:\models\vicuna-7b",
        ] {
            assert!(names_vicuna(name), "{name}");
        }
        for name in [
            "",
            ".",
            "llama-2-7b",
            "stable-vicuna-13b",
            "WizardVicuna-7B",
            "vicunas",
            "lmsys/vicuna-13b-delta-v0",
            "vicuna-7b-v0",
            "vicuna-7b-delta-v1.1",
            "not-vicuna/model",
        ] {
            assert!(!names_vicuna(name), "{name}");
        }
    }
}
