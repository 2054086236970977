//! Integration tests.

mod text;
mod tidy;
