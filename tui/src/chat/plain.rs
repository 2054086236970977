//! The chat line by line: for terminals that can do no more, and for those who want no more.

use std::io::{BufRead, Stdout, Write, stdin, stdout};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use tercet_host::event::Event;
use tercet_host::measure::sampler::{INTERVAL, Probe, Sampler};

use super::outside::{Begun, Outside};
use super::panel;
use super::state::{Chat, Effect};
use super::transcript::Entry;
use super::worker::News;
use crate::args::ChatArgs;
use crate::clean::{CleanWriter, OneLine};
use crate::failure::{Failure, say};
use crate::signals::Signals;

/// Chats line by line.
///
/// # Errors
///
/// [`Failure`] of the model, the device or the terminal; what goes wrong with one message is said,
/// and the chat goes on.
pub fn converse(args: &ChatArgs, signals: &Signals) -> Result<(), Failure> {
    let (sender, news) = channel();
    let Begun { chat, outside, .. } = Outside::begin(args, sender)?;
    let sampler = Sampler::start(INTERVAL).map_err(Failure::io)?;
    let mut plain = Plain { chat, outside, news, signals, probe: sampler.probe(), said: 0 };
    let talked = plain.talk(args.device.quiet);
    let Plain { mut chat, outside, .. } = plain;
    let ended = outside.end(&mut chat);
    talked.and(ended)
}

struct Plain<'a> {
    chat: Chat,
    outside: Outside<News>,
    news: Receiver<News>,
    signals: &'a Signals,
    probe: Probe,
    /// Entries of the transcript that have been printed.
    said: usize,
}
