//! Integration tests.

mod decode;
mod ops;
mod oracle;
mod text;
