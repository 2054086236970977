//! Integration tests.

#[cfg(target_os = "linux")]
mod cli;
mod text;
mod tidy;
