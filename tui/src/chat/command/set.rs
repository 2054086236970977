//! `/set`: how tokens are chosen, changed while the chat runs.
//!
//! Names and ranges are those of the command line: the same functions check them.

use tercet_host::sampler::Sampling;

use super::{cut, nearest};
use crate::args::{SamplingArgs, parse_at_least_zero, parse_penalty, parse_probability};

/// One change; `None` is the default: of the model's makers, or of the program.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// Always the most likely token.
    Greedy,
    /// Divides the logits; from 0.
    Temp(Option<f32>),
    /// Keeps the most likely tokens; 0 is off.
    TopK(Option<usize>),
    /// Keeps the most likely tokens up to a probability; 0 to 1.
    TopP(Option<f32>),
    /// Keeps tokens that are likely enough; 0 to 1.
    MinP(Option<f32>),
    /// Makes tokens of the context less likely; above 0, 1 is off.
    RepetitionPenalty(Option<f32>),
    /// Seed of the choices; `None` is another each time.
    Seed(Option<u64>),
    /// Most tokens of an answer; `None` is no limit.
    MaxTokens(Option<usize>),
    /// Texts that end an answer, instead of those before.
    Stop(Vec<String>),
}

/// A setting as the table has it.
pub(super) struct Entry {
    /// As the option of the command line, without its dashes.
    pub(super) name: &'static str,
    /// What follows the name.
    pub(super) usage: &'static str,
    pub(super) help: &'static str,
    /// Values that are words; completion offers them.
    pub(super) words: &'static [&'static str],
    read: Read,
    /// The value in force, as it would be typed.
    show: fn(&SamplingArgs, &Sampling) -> String,
}

/// How a setting is read.
enum Read {
    /// It has no value.
    Flag(Setting),
    /// From one word.
    Value(fn(&Word) -> Result<Setting, String>),
}

/// The table. Order is that of the command line.
pub(super) const TABLE: [Entry; 9] = [
    Entry {
        name: "greedy",
        usage: "",
        help: "always the most likely token; ended by any of the next four",
        words: &[],
        read: Read::Flag(Setting::Greedy),
        show: |_, sampling| if sampling.temperature == 0.0 { "on" } else { "off" }.to_owned(),
    },
    Entry {
        name: "temp",
        usage: "T",
        help: "divides the logits; 0 is greedy",
        words: &["default"],
        read: Read::Value(|word| or_default(word, parse_at_least_zero).map(Setting::Temp)),
        show: |_, sampling| sampling.temperature.to_string(),
    },
    Entry {
        name: "top-k",
        usage: "K",
        help: "keep the K most likely tokens; 0 is off",
        words: &["default"],
        read: Read::Value(|word| or_default(word, whole).map(Setting::TopK)),
        show: |_, sampling| sampling.top_k.to_string(),
    },
    Entry {
        name: "top-p",
        usage: "P",
        help: "keep the most likely tokens that together reach probability P",
        words: &["default"],
        read: Read::Value(|word| or_default(word, parse_probability).map(Setting::TopP)),
        show: |_, sampling| sampling.top_p.to_string(),
    },
    Entry {
        name: "min-p",
        usage: "P",
        help: "keep tokens at least P times as likely as the likeliest",
        words: &["default"],
        read: Read::Value(|word| or_default(word, parse_probability).map(Setting::MinP)),
        show: |_, sampling| sampling.min_p.to_string(),
    },
    Entry {
        name: "repetition-penalty",
        usage: "X",
        help: "makes tokens of the context less likely; 1 is off",
        words: &["default"],
        read: Read::Value(|word| or_default(word, parse_penalty).map(Setting::RepetitionPenalty)),
        show: |_, sampling| sampling.repetition_penalty.to_string(),
    },
    Entry {
        name: "seed",
        usage: "N or random",
        help: "the same seed gives the same answer",
        words: &["random"],
        read: Read::Value(|word| word.or("random", whole).map(Setting::Seed)),
        show: |args, _| args.seed.map_or_else(|| "random".to_owned(), |seed| seed.to_string()),
    },
    Entry {
        name: "max-tokens",
        usage: "N or none",
        help: "most tokens of an answer",
        words: &["none"],
        read: Read::Value(|word| word.or("none", whole).map(Setting::MaxTokens)),
        show: |args, _| args.max_tokens.map_or_else(|| "none".to_owned(), |most| most.to_string()),
    },
    Entry {
        name: "stop",
        usage: "\"TEXT\" or none",
        help: "text that ends an answer; may be given several times, \\n is a new line",
        words: &["none"],
        read: Read::Value(|word| {
            Ok(Setting::Stop(if word.is("none") { Vec::new() } else { vec![word.text.clone()] }))
        }),
        show: |args, _| {
            let stops: Vec<String> = args.stop.iter().map(|stop| format!("{stop:?}")).collect();
            if stops.is_empty() { "none".to_owned() } else { stops.join(" ") }
        },
    },
];

/// Reads `NAME VALUE NAME VALUE ...`. Texts in double quotes may have spaces and `\n`, `\t`, `\"`
/// and `\\`. Several `stop` of one line are one list.
pub(super) fn read(rest: &str) -> Result<Vec<Setting>, String> {
    let mut settings: Vec<Setting> = Vec::new();
    let words = words(rest)?;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        // As typed on the command line, too.
        let name = word.text.trim_start_matches('-');
        let entry = TABLE.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let meant = nearest::setting(name).map(|name| format!("; did you mean `{name}`?"));
            format!("there is no setting `{}`{}", cut(&word.text), meant.unwrap_or_default())
        })?;
        let setting = match &entry.read {
            Read::Flag(setting) => setting.clone(),
            Read::Value(read) => {
                let value = words.next();
                let value = value.ok_or_else(|| format!("`{name}` wants {}", entry.usage))?;
                read(value)
                    .map_err(|wanted| format!("`{name}` is `{}`, {wanted}", cut(&value.text)))?
            }
        };
        match (settings.iter_mut().find_map(stops), setting) {
            (Some(list), Setting::Stop(more)) if !more.is_empty() => list.extend(more),
            (_, setting) => settings.push(setting),
        }
    }
    Ok(settings)
}

/// The list of a `stop`.
fn stops(setting: &mut Setting) -> Option<&mut Vec<String>> {
    match setting {
        Setting::Stop(list) => Some(list),
        _ => None,
    }
}

/// Changes `args`. Everything that shapes the distribution ends `greedy`, and the other way round.
pub fn apply(setting: &Setting, args: &mut SamplingArgs) {
    match setting {
        Setting::Greedy => {
            args.greedy = true;
            (args.temp, args.top_k, args.top_p, args.min_p) = (None, None, None, None);
        }
        Setting::Temp(value) => (args.temp, args.greedy) = (*value, false),
        Setting::TopK(value) => (args.top_k, args.greedy) = (*value, false),
        Setting::TopP(value) => (args.top_p, args.greedy) = (*value, false),
        Setting::MinP(value) => (args.min_p, args.greedy) = (*value, false),
        Setting::RepetitionPenalty(value) => args.repetition_penalty = *value,
        Setting::Seed(value) => args.seed = *value,
        Setting::MaxTokens(value) => args.max_tokens = *value,
        Setting::Stop(list) => args.stop.clone_from(list),
    }
}

/// Names and values in force, as `/set` takes them; `sampling` is what becomes of `args` with the
/// model's own.
pub fn shown(
    args: &SamplingArgs,
    sampling: &Sampling,
) -> impl Iterator<Item = (&'static str, String)> {
    TABLE.iter().map(|entry| (entry.name, (entry.show)(args, sampling)))
}

/// A word of the line.
struct Word {
    text: String,
    /// Words in quotes are texts and never names of values.
    quoted: bool,
}

impl Word {
    fn is(&self, name: &str) -> bool {
        !self.quoted && self.text == name
    }

    /// `None` for the word `none`, otherwise what `read` says.
    fn or<T>(
        &self,
        none: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.is(none) {
            return Ok(None);
        }
        read(&self.text).map(Some).map_err(|wanted| format!("{wanted} or {none}"))
    }
}

fn or_default<T>(
    word: &Word,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    word.or("default", read)
}

fn whole<T: core::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "wanted a whole number".to_owned())
}

/// Cuts at white space outside of double quotes.
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let Some(first) = chars.peek() else { return Ok(words) };
        let quoted = *first == '"';
        let mut word = String::new();
        if quoted {
            chars.next();
            loop {
                match chars.next() {
                    Some('"') => break,
                    Some('\\') => word.push(match chars.next() {
                        Some('n') => '\n',
                        Some('t') => '\t',
                        Some(c @ ('"' | '\\')) => c,
                        _ => return Err(r#"after \ stands n, t, " or \"#.to_owned()),
                    }),
                    Some(c) => word.push(c),
                    None => return Err("the closing \" is missing".to_owned()),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                word.push(c);
            }
        }
        words.push(Word { text: word, quoted });
    }
}
