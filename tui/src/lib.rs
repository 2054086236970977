//! The program `tercet`: chat, and every headless mode. Thin: what can be computed is computed by
//! [`tercet_host`]; this crate reads options and writes text.

#![forbid(unsafe_code)]

pub mod args;
pub mod program;

pub mod builtin;
pub mod device;
pub mod engine;
pub mod signals;
pub mod terminal;

pub mod answer;
pub mod bench;
pub mod chat;
pub mod convert;
pub mod doctor;
pub mod evaluate;
pub mod inspect;
pub mod manual;
pub mod replay;
pub mod run;
pub mod stats;
pub mod synth;

pub mod clean;
pub mod failure;
