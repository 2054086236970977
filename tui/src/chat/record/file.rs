//! Records as files: what is written, and what is believed of what is read.

use core::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;
use tercet_host::error::Error;
use tercet_host::measure::machine::utc_now;

use super::{Prompt, Record};
use crate::failure::Failure;

/// What a session file says it is.
pub(super) const FORMAT: &str = "tercet session";
/// Version of the format that this program reads and writes.
pub(super) const VERSION: u32 = 1;
/// Longest session file read or written, in bytes.
pub const RECORD_BYTES_MAX: u64 = 64 << 20;
/// Largest context that a session may have had, in positions; that of `--ctx`.
const CONTEXT_MAX: usize = 1 << 24;

impl Record {
    /// The file's text; notes the time.
    pub(in crate::chat) fn renewed(&mut self) -> String {
        self.drop_unused();
        self.updated = utc_now();
        self.to_json()
    }

    /// The record as a session file has it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Nothing in it can fail to be JSON: its keys are names, and its numbers are finite.
        let mut json = serde_json::to_string(self).unwrap_or_default();
        json.push('\n');
        json
    }

    /// Reads the session file at `path`.
    ///
    /// # Errors
    ///
    /// [`Failure`] when it is not there, cannot be read, is longer than 64 MiB, is no session file,
    /// one of another version, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let open = || {
            // Asked before opening: opening a pipe would wait for a writer.
            if !std::fs::metadata(path)?.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            File::open(path)
        };
        let read = open().map_err(ReadError::Io).and_then(|file| Self::read_from(&file));
        read.map_err(|error| error.about(path))
    }

    /// Reads an open session file.
    pub(in crate::chat) fn read_from(file: &File) -> Result<Self, ReadError> {
        let mut bytes = Vec::new();
        file.take(RECORD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
        Self::parse(&bytes)
    }

    /// Reads the bytes of a session file.
    pub(in crate::chat) fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Mark {
            format: String,
            version: u32,
        }
        let damaged = |error: serde_json::Error| ReadError::Damaged(error.to_string());
        if bytes.len() as u64 > RECORD_BYTES_MAX {
            return Err(ReadError::TooLong);
        }
        let mark: Mark = serde_json::from_slice(bytes).map_err(damaged)?;
        if mark.format != FORMAT {
            return Err(ReadError::Damaged(format!("its format is `{}`", mark.format)));
        }
        if mark.version != VERSION {
            return Err(ReadError::Version(mark.version));
        }
        let record: Self = serde_json::from_slice(bytes).map_err(damaged)?;
        match record.contradiction() {
            Some(what) => Err(ReadError::Damaged(what)),
            None => Ok(record),
        }
    }

    /// What in it cannot be, if something.
    fn contradiction(&self) -> Option<String> {
        for (number, setup) in self.setups.iter().enumerate() {
            if !(1..=CONTEXT_MAX).contains(&setup.context) {
                return Some(format!("setup {number} has a context of {}", setup.context));
            }
        }
        let mut before = 0;
        for (turn, number) in self.turns.iter().zip(1..) {
            let Prompt { tokens, shared, rest, .. } = &turn.prompt;
            let mut what = String::new();
            let _ = if turn.setup >= self.setups.len() {
                write!(what, "names setup {} of {}", turn.setup, self.setups.len())
            } else if !turn.sampling.is_valid() {
                write!(what, "has a sampling number out of its range")
            } else if *shared > before || *tokens != shared + rest.len() {
                write!(what, "has a prompt of {tokens} tokens, {shared} shared of {before}")
            } else if *tokens + turn.tokens.len() > CONTEXT_MAX {
                write!(what, "has {} tokens", tokens + turn.tokens.len())
            } else {
                Ok(())
            };
            if !what.is_empty() {
                return Some(format!("turn {number} {what}"));
            }
            before = tokens + turn.tokens.len();
        }
        None
    }
}

/// Why a session file cannot be used.
#[derive(Debug)]
pub(in crate::chat) enum ReadError {
    Io(io::Error),
    TooLong,
    Damaged(String),
    /// Of another version, which is this.
    Version(u32),
}

impl ReadError {
    /// For the user.
    pub(in crate::chat) fn about(self, path: &Path) -> Failure {
        let name = path.display();
        match self {
            Self::Io(source) => Error::Read { path: path.to_owned(), source }.into(),
            Self::TooLong => Failure::Data {
                what: format!("`{name}` is longer than {RECORD_BYTES_MAX} bytes"),
                hint: "no session is that long: check the path",
            },
            Self::Damaged(what) => Failure::Data {
                what: format!("`{name}` is no whole session file: {what}"),
                hint: "give a file that tercet saved; another session can be resumed by its name",
            },
            Self::Version(version) => Failure::Data {
                what: format!(
                    "`{name}` has format version {version}, this program reads {VERSION}"
                ),
                hint: "open it with the version of tercet that saved it",
            },
        }
    }
}
