//! The program as scripts and people meet it: its bytes, its exit codes, its files, its chat.

#![allow(clippy::unwrap_used, reason = "a test stops where something is missing")]

mod answers;
mod prompts;

mod failures;
mod pipes;
mod truncation;

mod convert;
mod evaluate;
mod inspect;
mod replay;

mod chat;
mod hostile;
mod keys;
mod manual;
mod readme;
mod screen;
mod terminal;

mod emulator;
mod models;
mod pty;
pub(crate) mod support;
