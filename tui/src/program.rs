//! From the command line to an exit code.

use core::panic::AssertUnwindSafe;
use std::ffi::OsString;
use std::io::{stdin, stdout};
use std::panic::catch_unwind;
use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::clean::{OneLine, clean};
use crate::failure::{Failure, note};
use crate::signals::Signals;
use crate::{bench, chat, convert, doctor, evaluate, inspect, manual, replay, run, synth};

/// The whole program. In the library, so that tests run what users run.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    // Before any thread or file of ours exists: the child that renders templates limits itself.
    if let Some(Command::Render) = cli.command {
        return tercet_host::text::render_child_main(stdin(), stdout());
    }
    tercet_host::checkpoint::install_truncation_guard();
    let work = || Signals::install().map_err(Failure::io).and_then(|signals| obey(&cli, &signals));
    // A panic is a bug of ours. Its message is on stderr already; scripts get a code of its own.
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Failure::Internal));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let (what, hint) = failure.message();
            note(format_args!("tercet: error: {}\n  hint: {hint}", OneLine(&what)));
            ExitCode::from(failure.exit_code() as u8)
        }
    }
}

/// Prints help, or what is wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    // The parser repeats what it does not know as it is, between colours of its own. A shell that
    // fills in file names gives us more than people type.
    let is_plain = |arg: OsString| {
        let arg = arg.to_string_lossy();
        OneLine(&arg).to_string() == *arg
    };
    if std::env::args_os().all(is_plain) || !error.use_stderr() {
        error.exit()
    }
    note(format_args!("{}", clean(&error.to_string()).trim_end()));
    ExitCode::from(tercet_host::error::ExitCode::Usage as u8)
}

fn obey(cli: &Cli, signals: &Signals) -> Result<(), Failure> {
    match &cli.command {
        None => chat::chat(&cli.chat, signals),
        Some(Command::Run(args)) => run::run(args, signals),
        Some(Command::Inspect(args)) => inspect::inspect(args),
        Some(Command::Convert(args)) => convert::convert(args),
        Some(Command::Eval(command)) => evaluate::evaluate(command),
        Some(Command::Replay(args)) => replay::replay(args, signals),
        Some(Command::Bench(args)) => bench::bench(args, signals, &mut stdout()),
        Some(Command::Doctor(args)) => doctor::doctor(args),
        Some(Command::Synth(args)) => synth::synth(args),
        Some(Command::Completions { shell }) => manual::completions(*shell),
        Some(Command::Man { command }) => manual::man(command.as_deref()),
        Some(Command::Render) => Ok(()),
    }
}
