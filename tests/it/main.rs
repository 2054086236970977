//! Integration tests.

mod ops;
mod text;
