//! [`Error`]: one variant per stage, with the sentence, the hint and the exit code.

use std::path::PathBuf;

use crate::backend::DeviceError;
use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::model::ModelError;
use crate::session::{PromptError, SessionError};
use crate::text::{TemplateError, TextError, TokenizerError};

/// Anything that can go wrong between a path and an answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model's files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The model's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The model's tensors.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The model's tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The tokenizer knows tokens that the model does not have.
    #[error("the tokenizer has token {id}, the model only {vocab} tokens")]
    ForeignTokenizer {
        /// Largest id of the tokenizer.
        id: u32,
        /// Size of the model's vocabulary.
        vocab: usize,
    },
    /// The model's chat template.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// From text to tokens.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The prompt.
    #[error(transparent)]
    Prompt(#[from] PromptError),
    /// The device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A file that is not the model.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file of token ids that holds something else.
    #[error("`{}` is no list of token ids: {what}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What it holds.
        what: String,
    },
    /// A file that was to be made.
    #[error("cannot write `{}`: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl From<SessionError> for Error {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Prompt(error) => Self::Prompt(error),
            SessionError::Device(error) => Self::Device(error),
        }
    }
}

/// Exit codes of the program, from `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Wrong command line.
    Usage = 2,
    /// Input that cannot be used: a damaged file, a prompt that does not fit.
    Data = 65,
    /// Input that is not there.
    NoInput = 66,
    /// A device or memory that is not there.
    Unavailable = 69,
    /// A bug of ours.
    Internal = 70,
    /// Output that cannot be made.
    CannotCreate = 73,
    /// The system failed while reading or writing.
    Io = 74,
    /// A model configuration that is wrong or not supported.
    Config = 78,
    /// Ended because the terminal is gone (SIGHUP).
    HungUp = 129,
    /// Ended by the user.
    Interrupted = 130,
    /// Ended by SIGQUIT.
    Quit = 131,
    /// Ended by SIGTERM.
    Terminated = 143,
}

impl Error {
    /// What the user can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Checkpoint(error) => error.hint(),
            Self::Config(error) => error.hint(),
            Self::Model(error) => error.hint(),
            Self::Tokenizer(error) => error.hint(),
            Self::ForeignTokenizer { .. } => {
                "tokenizer.json belongs to another model: restore it from the model's repository"
            }
            Self::Template(error) => error.hint(),
            Self::Text(error) => error.hint(),
            Self::Prompt(error) => error.hint(),
            Self::Device(error) => error.hint(),
            Self::Read { .. } => "check the path and its permissions",
            Self::Tokens { .. } => {
                "give whole numbers separated by white space, or a safetensors file with one \
                 I32, I64, U32 or U16 tensor named `tokens` or `input_ids`"
            }
            Self::Write { .. } => "check the folder, its permissions and the space left",
        }
    }

    /// The exit code that scripts see.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        use std::io::ErrorKind::NotFound;
        match self {
            Self::Checkpoint(error) => match error {
                CheckpointError::Open { source, .. } if source.kind() == NotFound => {
                    ExitCode::NoInput
                }
                CheckpointError::Open { .. } => ExitCode::Io,
                CheckpointError::NoWeights { .. } | CheckpointError::NoFile { .. } => {
                    ExitCode::NoInput
                }
                _ => ExitCode::Data,
            },
            Self::Config(_) => ExitCode::Config,
            Self::Device(DeviceError::Weights(_) | DeviceError::NotFinite { .. })
            | Self::Model(_)
            | Self::Tokenizer(_)
            | Self::ForeignTokenizer { .. }
            | Self::Template(_)
            | Self::Text(_)
            | Self::Prompt(_)
            | Self::Tokens { .. } => ExitCode::Data,
            Self::Device(DeviceError::Divergence { .. }) => ExitCode::Internal,
            Self::Device(DeviceError::Cuda(error)) if error.is_sticky() => ExitCode::Internal,
            Self::Device(_) => ExitCode::Unavailable,
            Self::Read { source, .. } if source.kind() == NotFound => ExitCode::NoInput,
            Self::Read { .. } => ExitCode::Io,
            Self::Write { source, .. } => match source.kind() {
                std::io::ErrorKind::BrokenPipe => ExitCode::Io,
                _ => ExitCode::CannotCreate,
            },
        }
    }
}
