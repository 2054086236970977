//! The chat: on a terminal a conversation, elsewhere one message and its answer.

pub mod plain;
pub mod theme;

pub mod markdown;
pub mod wrap;

use std::io::{IsTerminal, stdin, stdout};

use crate::answer::{encode, message};
use crate::args::ChatArgs;
use crate::engine;
use crate::failure::Failure;
use crate::run::{Form, answer, read_stdin};
use crate::signals::Signals;

/// Longest message read from stdin, in bytes.
const MESSAGE_BYTES_MAX: u64 = 16 << 20;

/// Chats on a terminal; elsewhere answers all of stdin as one message.
///
/// # Errors
///
/// [`Failure`] of any stage.
pub fn chat(args: &ChatArgs, signals: &Signals) -> Result<(), Failure> {
    if stdin().is_terminal() && stdout().is_terminal() {
        return plain::converse(args, signals);
    }
    let text = read_stdin(MESSAGE_BYTES_MAX)?;
    if text.trim().is_empty() {
        return Err(Failure::NoInput {
            what: "standard input is empty",
            hint: "pipe a message in, or use `tercet run -p TEXT`",
        });
    }
    let package = engine::open(&args.model)?;
    let system = args.system.iter().map(|text| message("system", text));
    let messages: Vec<_> = system.chain([message("user", text)]).collect();
    let tokens = encode(&package, &messages)?;
    answer(&package, &args.sampling, &args.device, &tokens, Form::Text, signals)
}
