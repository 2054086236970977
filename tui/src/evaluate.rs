//! `tercet eval`: logits and perplexity.

use std::io::{Write, stdout};

use serde_json::json;
use tercet_host::error::Error;
use tercet_host::evaluate::{PerplexityOptions, perplexity, read_tokens, write_logits};

use crate::answer::tokenizer;
use crate::args::{EvalCommand, LogitsArgs, PplArgs};
use crate::clean::Json;
use crate::engine::{self, Progress, Use, with_session};
use crate::failure::Failure;

/// Runs the command.
///
/// # Errors
///
/// [`Failure`] of any stage.
pub fn evaluate(command: &EvalCommand) -> Result<(), Failure> {
    match command {
        EvalCommand::Logits(args) => logits(args),
        EvalCommand::Ppl(args) => ppl(args),
    }
}

fn logits(args: &LogitsArgs) -> Result<(), Failure> {
    let tokens = read_tokens(&args.tokens)?;
    let package = engine::open(&args.model)?;
    let context = engine::context(&package, args.device.ctx)?;
    let vocab = package.config.vocab;
    let progress = Progress::new("logits", args.device.quiet);
    with_session(&package, &args.device, context, Use::Evaluate, |session| {
        write_logits(session, vocab, &tokens, &args.out, &mut |done, total| {
            progress.show(done, total);
        })?;
        Ok(())
    })?;
    progress.done();
    Ok(())
}

fn ppl(args: &PplArgs) -> Result<(), Failure> {
    let path = &args.text;
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.clone(), source })?;
    let text = String::from_utf8(bytes).map_err(|error| Failure::Data {
        what: format!("`{}` is no UTF-8 text: {}", path.display(), error.utf8_error()),
        hint: "convert it, for example with iconv",
    })?;
    let text = match args.chars.and_then(|count| text.char_indices().nth(count)) {
        Some((end, _)) => &text[..end],
        None => &text,
    };
    let package = engine::open(&args.model)?;
    let context = engine::context(&package, args.device.ctx)?;
    let tokens = tokenizer(&package)?.encode_text(text)?;
    let options = PerplexityOptions {
        window: args.window.map_or(context, |window| window as usize),
        windows_max: args.windows.map_or(usize::MAX, |windows| windows as usize),
    };
    let vocab = package.config.vocab;
    let progress = Progress::new("perplexity", args.device.quiet);
    let measured = with_session(&package, &args.device, context, Use::Evaluate, |session| {
        let mut show = |done, total| progress.show(done, total);
        Ok(perplexity(session, vocab, &tokens, options, &mut show)?)
    })?;
    progress.done();
    let Some(measured) = measured else {
        return Err(Failure::Data {
            what: format!(
                "the text has {} tokens, one window has {}",
                tokens.len(),
                options.window
            ),
            hint: "give a longer text or a smaller --window",
        });
    };
    let mut out = stdout();
    if args.json {
        let report = json!({
            "model": package.checkpoint.name(),
            "perplexity": measured.perplexity,
            "windows": measured.windows,
            "window": options.window,
            "predictions": measured.predictions,
        });
        writeln!(out, "{}", Json(&format!("{report:#}")))
    } else {
        writeln!(
            out,
            "perplexity {:.4} over {} windows of {} tokens",
            measured.perplexity, measured.windows, options.window
        )
    }
    .map_err(Failure::io)
}
