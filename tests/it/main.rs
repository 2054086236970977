//! Integration tests.

mod checkpoint;
mod decode;
mod ops;
mod oracle;
mod text;
