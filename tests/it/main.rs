//! Integration tests.

mod checkpoint;
mod clean;
#[cfg(target_os = "linux")]
mod cli;
#[cfg(target_os = "linux")]
mod cuda;
mod decode;
mod markdown;
mod ops;
mod oracle;
mod text;
mod tidy;
