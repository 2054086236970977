//! Integration tests.

mod decode;
mod ops;
mod text;
