//! Jinja2 as `transformers` uses it, on top of minijinja.
//!
//! A template is read by Jinja2's own grammar ([`lexer`], [`expression`], [`statement`]) and
//! written as a program for minijinja in which every operator, test and method whose meaning
//! differs is a call of a function of ours ([`operators`], [`methods`], [`filters`]). minijinja
//! supplies variables, scopes, loops, macros and fuel. What cannot be done exactly as Jinja2 3.1
//! with `ImmutableSandboxedEnvironment` does it is an error, never another text.

mod clock;
mod compare;
mod expression;
mod filters;
mod json;
mod lexer;
mod methods;
mod operators;
mod percent;
mod postfix;
mod python;
mod reader;
mod request;
mod selection;
mod sequence;
mod statement;
mod strings;

pub(super) use lexer::SyntaxError;
pub(super) use request::{RenderError, Request};
pub(super) use statement::translate;

/// Now, in Coordinated Universal Time, as ISO 8601 writes it.
pub(crate) fn utc_now() -> String {
    clock::Clock::now().format("%FT%TZ").unwrap_or_default()
}

/// Functions of ours begin with this; names in a template may not.
const PREFIX: &str = "tercet_";

/// Delimiters of the program: noncharacters, which a template may not contain.
const BLOCK: [char; 2] = ['\u{fdda}', '\u{fddb}'];
const VARIABLE: [char; 2] = ['\u{fddc}', '\u{fddd}'];
const COMMENT: [char; 2] = ['\u{fdde}', '\u{fddf}'];
