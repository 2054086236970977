//! From messages to token ids and back.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod bombs;
mod encode;
mod fidelity;
mod forms;
mod stream;
mod tokenizers;

use std::sync::Mutex;

use tercet_host::text::{Message, Renderer};

/// Held by tests that measure time, so that they do not measure each other.
static STOPWATCH: Mutex<()> = Mutex::new(());

/// Runs templates in a child process.
fn child() -> Renderer {
    Renderer::Child { program: env!("CARGO_BIN_EXE_render-child").into(), args: Vec::new() }
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}
