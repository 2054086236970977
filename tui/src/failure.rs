//! [`Failure`]: what is printed when something went wrong, and the exit code.

use core::fmt;
use std::io::{self, Write, stderr, stdout};

use tercet_host::error::{Error, ExitCode};

use crate::terminal::Ending;

/// An error on its way to the user.
#[derive(Debug)]
pub enum Failure {
    /// From the host: carries its own sentence, hint and code.
    Host(Error),
    /// Nothing to work on.
    NoInput {
        /// What is missing.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// Input that cannot be used.
    Data {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A device that is not there.
    Unavailable {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// Something that computes wrongly.
    Wrong {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A command line that cannot be meant.
    Usage {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// A bug of ours; the panic's own message is on stderr.
    Internal,
    /// Reading stdin or writing stdout failed.
    Io(io::Error),
    /// Ended by the user, and what was done until then is there.
    Interrupted,
    /// The chat was ended by a signal, or by a panic of another thread.
    Ended(Ending),
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Host(error.into())
    }
}

impl Failure {
    /// A failure of standard input or output.
    #[must_use]
    pub fn io(error: io::Error) -> Self {
        Self::Io(error)
    }

    /// The sentence and the hint.
    #[must_use]
    pub fn message(&self) -> (String, &'static str) {
        match self {
            Self::Host(error) => (error.to_string(), error.hint()),
            Self::NoInput { what, hint } => ((*what).to_owned(), hint),
            Self::Data { what, hint }
            | Self::Unavailable { what, hint }
            | Self::Wrong { what, hint }
            | Self::Usage { what, hint } => (what.clone(), hint),
            Self::Internal | Self::Ended(Ending::Panic) => (
                "internal error (see the message above)".into(),
                "this is a bug in tercet: please report it with the command line and the message",
            ),
            Self::Io(error) => (
                format!("cannot read standard input or write standard output: {error}"),
                "check what the program is connected to",
            ),
            Self::Interrupted => {
                ("interrupted".into(), "what was finished until then is in the output")
            }
            Self::Ended(_) => ("ended by a signal".into(), "what was said until then is saved"),
        }
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Host(error) => error.exit_code(),
            Self::NoInput { .. } => ExitCode::NoInput,
            Self::Data { .. } => ExitCode::Data,
            Self::Unavailable { .. } => ExitCode::Unavailable,
            Self::Usage { .. } => ExitCode::Usage,
            Self::Wrong { .. } | Self::Internal => ExitCode::Internal,
            Self::Io(_) => ExitCode::Io,
            Self::Interrupted => ExitCode::Interrupted,
            Self::Ended(ending) => ending.exit_code(),
        }
    }

    /// Whether whoever read our output went away, which is no error (`tercet ... | head`).
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Writes a line to stdout.
///
/// # Errors
///
/// [`Failure::Io`], where `println!` would panic.
pub fn say(line: fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(stdout(), "{line}").map_err(Failure::io)
}

/// Writes a line about the program itself to stderr. Nobody is left to tell when that fails.
pub fn note(line: fmt::Arguments<'_>) {
    let _ = writeln!(stderr(), "{line}");
}
