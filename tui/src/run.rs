//! `tercet run`: one answer to stdout.

use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};

use serde_json::{Value, json};
use tercet_host::backend::TokenId;
use tercet_host::package::Package;

use crate::answer::{Piece, encode, generate, message, numbers, summary, tokenizer};
use crate::args::{DeviceArgs, RunArgs, SamplingArgs};
use crate::clean::{CleanWriter, Json};
use crate::engine::{self, Use, with_session};
use crate::failure::{Failure, note, say};
use crate::signals::Signals;
use crate::stats::Stats;

/// How an answer leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Streamed text without control characters.
    Text,
    /// Streamed text as the model wrote it, unless stdout is a terminal.
    Raw,
    /// Streamed token ids.
    Ids,
    /// One JSON object at the end.
    Json,
}

/// Runs the command.
///
/// # Errors
///
/// [`Failure`] of any stage.
pub fn run(args: &RunArgs, signals: &Signals) -> Result<(), Failure> {
    let prompt = prompt(args.prompt.as_deref(), args.max_prompt_bytes)?;
    let package = engine::open_to_chat(&args.model, args.chat_form)?;
    let tokens = if args.ids {
        ids(&prompt)?
    } else if args.raw {
        tokenizer(&package)?.encode_text(&prompt)?
    } else {
        if let Some(notice) =
            engine::form_notice(&package, args.chat_form).filter(|_| !args.device.quiet)
        {
            note(format_args!("tercet: {notice}"));
        }
        let system = args.system.iter().map(|text| message("system", text));
        encode(&package, &system.chain([message("user", prompt)]).collect::<Vec<_>>())?
    };
    let form = match args {
        RunArgs { json: true, .. } => Form::Json,
        RunArgs { ids: true, .. } => Form::Ids,
        RunArgs { raw: true, .. } => Form::Raw,
        _ => Form::Text,
    };
    answer(&package, &args.sampling, &args.device, &tokens, form, signals)
}

/// Answers a prompt on stdout.
///
/// # Errors
///
/// [`Failure`] of the session or of stdout.
pub fn answer(
    package: &Package,
    sampling: &SamplingArgs,
    device: &DeviceArgs,
    prompt: &[TokenId],
    form: Form,
    signals: &Signals,
) -> Result<(), Failure> {
    let seed = engine::seed(sampling);
    let context = engine::context(package, device.ctx)?;
    let mut text = String::new();
    let mut ids = Vec::new();
    let mut clean = CleanWriter::new(stdout());
    let to_terminal = stdout().is_terminal();
    let stats = with_session(package, device, context, Use::Answer, |session| {
        let mut show = |piece: Piece<'_>| {
            text.push_str(piece.text);
            ids.extend(piece.token);
            match (form, piece.token) {
                (Form::Json, _) | (Form::Ids, None) => Ok(()),
                (Form::Ids, Some(token)) => writeln!(stdout(), "{token}"),
                (Form::Raw, _) if !to_terminal => {
                    let mut out = stdout();
                    out.write_all(piece.text.as_bytes()).and_then(|()| out.flush())
                }
                _ => clean.write_text(piece.text),
            }
            .map_err(Failure::io)
        };
        generate(session, package, sampling, (prompt, seed), &signals.cancel, &mut show)
    })?;
    match form {
        Form::Json => {
            let report = report(package, &stats, &text, &ids, seed);
            say(format_args!("{}", Json(&format!("{report:#}"))))?;
        }
        Form::Ids => {}
        Form::Raw if !to_terminal => {}
        Form::Text | Form::Raw => {
            clean.finish().map_err(Failure::io)?;
            if !clean.is_at_line_start() {
                say(format_args!(""))?;
            }
        }
    }
    if stderr().is_terminal() && !device.quiet {
        note(format_args!("[{}, seed {seed}]", summary(&stats)));
    }
    Ok(())
}

fn report(package: &Package, stats: &Stats, text: &str, ids: &[TokenId], seed: u64) -> Value {
    let answer = json!({
        "model": package.checkpoint.name(),
        "text": text,
        "tokens": ids,
        "stop_reason": stats.end().map(|end| end.reason.name()),
        "seed": seed,
    });
    let fields = answer.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| (name.clone(), value.clone()));
    Value::Object(fields.chain(numbers(stats)).collect())
}

/// The prompt of the command line and what stands on stdin, unless that is a terminal.
fn prompt(argument: Option<&str>, bytes_max: u64) -> Result<String, Failure> {
    let mut prompt = argument.unwrap_or_default().to_owned();
    if !stdin().is_terminal() {
        let input = read_stdin(bytes_max)?;
        if !prompt.is_empty() && !input.is_empty() {
            prompt.push('\n');
        }
        prompt.push_str(&input);
    }
    if prompt.trim().is_empty() {
        return Err(Failure::NoInput {
            what: "there is no prompt",
            hint: "give one with -p, or on standard input",
        });
    }
    Ok(prompt)
}

/// All of stdin, as text.
///
/// # Errors
///
/// [`Failure::Data`] for more than `bytes_max` bytes and for bytes that are no UTF-8.
pub fn read_stdin(bytes_max: u64) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    stdin().take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(Failure::io)?;
    if bytes.len() as u64 > bytes_max {
        return Err(Failure::Data {
            what: format!("standard input has more than {bytes_max} bytes"),
            hint: "shorten it, or raise --max-prompt-bytes",
        });
    }
    let mut text = String::from_utf8(bytes).map_err(|error| Failure::Data {
        what: format!("standard input is no UTF-8 text: {}", error.utf8_error()),
        hint: "convert it, for example with iconv",
    })?;
    // The line end that `echo` adds is not part of the message.
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    Ok(text)
}

fn ids(prompt: &str) -> Result<Vec<TokenId>, Failure> {
    let id = |word: &str| {
        word.parse().map_err(|_| Failure::Data {
            what: format!("`{}` is no token id", word.chars().take(20).collect::<String>()),
            hint: "with --ids the prompt is whole numbers separated by white space",
        })
    };
    prompt.split_whitespace().map(id).collect()
}
