//! `tercet run`: one answer to stdout.

use std::io::{IsTerminal, Read, Write, stderr, stdin, stdout};

use serde_json::json;
use tercet_host::backend::TokenId;
use tercet_host::event::Finished;
use tercet_host::package::Package;

use crate::answer::{Piece, encode, generate, message, summary, tokenizer};
use crate::args::{DeviceArgs, RunArgs, SamplingArgs};
use crate::clean::CleanWriter;
use crate::engine::{self, Use, with_session};
use crate::failure::{Failure, note, say};
use crate::signals::Signals;

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
    let mut last = '\n';
    let finished = with_session(package, device, context, Use::Answer, |session| {
        let to_terminal = stdout().is_terminal();
        let mut show = |piece: Piece<'_>| {
            text.push_str(piece.text);
            ids.extend(piece.token);
            last = piece.text.chars().last().unwrap_or(last);
            match (form, piece.token) {
                (Form::Json, _) | (Form::Ids, None) => Ok(()),
                (Form::Ids, Some(token)) => writeln!(stdout(), "{token}"),
                (Form::Raw, _) if !to_terminal => {
                    let mut out = stdout();
                    out.write_all(piece.text.as_bytes()).and_then(|()| out.flush())
                }
                _ => CleanWriter::new(stdout()).write_text(piece.text),
            }
            .map_err(Failure::io)
        };
        generate(session, package, sampling, (prompt, seed), &signals.cancel, &mut show)
    })?;
    match form {
        Form::Json => {
            let report = report(package, &finished, &text, &ids, seed);
            say(format_args!("{report:#}"))?;
        }
        Form::Text if last != '\n' => say(format_args!(""))?,
        Form::Raw if stdout().is_terminal() && last != '\n' => {
            say(format_args!(""))?;
        }
        _ => {}
    }
    if stderr().is_terminal() && !device.quiet {
        note(format_args!("[{}, seed {seed}]", summary(&finished)));
    }
    Ok(())
}

fn report(
    package: &Package,
    finished: &Finished,
    text: &str,
    ids: &[TokenId],
    seed: u64,
) -> serde_json::Value {
    let steps = finished.tokens.saturating_sub(1);
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no 53 bits")]
    let rate = (steps > 0).then(|| steps as f64 / finished.decode.as_secs_f64());
    json!({
        "model": package.checkpoint.name(),
        "text": text,
        "tokens": ids,
        "stop_reason": finished.reason.name(),
        "seed": seed,
        "n_prompt": finished.prompt_tokens,
        "n_gen": finished.tokens,
        "prefill_ms": finished.prefill.as_secs_f64() * 1e3,
        "decode_ms": finished.decode.as_secs_f64() * 1e3,
        "decode_ts": rate,
    })
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
