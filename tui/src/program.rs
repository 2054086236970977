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
use crate::terminal::{Ending, watcher};
use crate::{bench, chat, convert, doctor, evaluate, inspect, manual, replay, run, synth};

/// The whole program. In the library, so that tests run what users run.
#[must_use]
pub fn main() -> ExitCode {
    // Before anything else: it is started while somebody waits for it.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == watcher::ARGUMENT) {
        return watcher::main();
    }
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    // Before any thread or file of ours exists: the child that renders templates limits itself.
    if let Some(Command::Render) = cli.command {
        return tercet_host::text::render_child_main(stdin(), stdout());
    }
    guarded(|signals| obey(&cli, signals))
}

/// Does `work` under the guards of the program, and says what came of it.
pub fn guarded(work: impl FnOnce(&Signals) -> Result<(), Failure>) -> ExitCode {
    tercet_host::checkpoint::install_truncation_guard();
    let work = || Signals::install().map_err(Failure::io).and_then(|signals| work(&signals));
    // A panic is a bug of ours. Its message is on stderr already; scripts get a code of its own.
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(Failure::Internal));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        // Whoever sent the signal knows, and its name is all there is to say.
        Err(Failure::Ended(ending)) if ending != Ending::Panic => {
            ExitCode::from(ending.exit_code() as u8)
        }
        Err(failure) => {
            let (what, hint) = failure.message();
            note(format_args!("tercet: error: {}\n  hint: {hint}", OneLine(&what)));
            ExitCode::from(failure.exit_code() as u8)
        }
    }
}

/// Prints help, or what is wrong with the command line.
fn explain(error: &clap::Error) -> ExitCode {
    let args = || std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let harmless = || args().map(|arg| OneLine(&arg).to_string());
    if !error.use_stderr() || args().eq(harmless()) {
        error.exit()
    }
    // The parser repeats what it does not know as it is, among colours of its own; and a shell that
    // fills in file names gives us more than people type.
    match Cli::read(harmless().map(OsString::from)) {
        Err(error) if error.use_stderr() => error.exit(),
        _ => note(format_args!("{}", clean(&error.to_string()).trim_end())),
    }
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
