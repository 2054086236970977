//! Integration tests.

mod checkpoint;
#[cfg(target_os = "linux")]
mod cli;
mod decode;
mod ops;
mod oracle;
mod text;
mod tidy;
