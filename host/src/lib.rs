//! tercet-host
pub mod text;
