//! From messages to token ids and back.

mod bombs;
mod encode;
mod fidelity;
mod stream;
mod tokenizers;

use tercet_host::text::{Message, Renderer};

/// Runs templates in a child process.
fn child() -> Renderer {
    Renderer::Child { program: env!("CARGO_BIN_EXE_render-child").into(), args: Vec::new() }
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.to_owned(), content: content.to_owned() }
}
