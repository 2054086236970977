//! The chat: on a terminal a conversation, elsewhere one message and its answer.

pub mod app;
pub mod code;
pub mod command;
pub mod conversation;
pub mod editor;
pub mod export;
pub mod full;
pub mod history;
pub mod markdown;
pub mod outside;
pub mod panel;
pub mod plain;
pub mod private;
pub mod record;
pub mod screen;
pub mod state;
pub mod store;
pub mod theme;
pub mod transcript;
mod view;
pub mod worker;
pub mod wrap;

use std::io::{IsTerminal, stdin, stdout};

use crate::answer::{encode, message};
use crate::args::ChatArgs;
use crate::engine;
use crate::failure::{Failure, note};
use crate::run::{Form, answer, read_stdin};
use crate::signals::Signals;
use crate::terminal::Kind;

/// Longest message read from stdin, in bytes.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;

/// Chats on a terminal; elsewhere answers all of stdin as one message.
///
/// # Errors
///
/// [`Failure`] of any stage.
pub fn chat(args: &ChatArgs, signals: &Signals) -> Result<(), Failure> {
    if stdin().is_terminal() && stdout().is_terminal() {
        let kind = Kind::detect();
        return match args.plain || kind.dumb {
            true => plain::converse(args, signals),
            false => full::converse(args, kind, signals),
        };
    }
    let text = read_stdin(MESSAGE_BYTES_MAX)?;
    if text.trim().is_empty() {
        return Err(Failure::NoInput {
            what: "standard input is empty",
            hint: "pipe a message in, or use `tercet run -p TEXT`",
        });
    }
    let package = engine::open_to_chat(&args.model, args.chat_form)?;
    if let Some(notice) =
        engine::form_notice(&package, args.chat_form).filter(|_| !args.device.quiet)
    {
        note(format_args!("tercet: {notice}"));
    }
    let system = args.system.iter().map(|text| message("system", text));
    let messages: Vec<_> = system.chain([message("user", text)]).collect();
    let tokens = encode(&package, &messages)?;
    answer(&package, &args.sampling, &args.device, &tokens, Form::Text, signals)
}
