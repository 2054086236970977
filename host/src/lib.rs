//! The host side of Tercet: from a folder to a stream of events.
//!
//! Data goes one way, on one stack; each stage borrows from the one before it:
//!
//! ```text
//! Source ─▶ Package ─▶ Model ─▶ Backend::upload ─▶ Session ─▶ Sink
//!           │          │        │                  │          │
//!           │          │        │                  │          └ Event: prefill, token, finished
//!           │          │        │                  └ prefill, decode, choose: forward() per step
//!           │          │        └ the weights where the device wants them
//!           │          └ every tensor found by role and checked
//!           └ Checkpoint (mapped bytes), ModelConfig, Tokenizer, ChatFormat
//! ```
//!
//! ```no_run
//! use core::ops::ControlFlow;
//! use tercet_host::backend::cpu::{CpuBackend, Simd};
//! use tercet_host::backend::{Backend, KvType, Limits};
//! use tercet_host::event::Event;
//! use tercet_host::forward::Cancel;
//! use tercet_host::package::{Package, Source};
//! use tercet_host::session::{Request, Session};
//!
//! # fn main() -> Result<(), tercet_host::error::Error> {
//! let package = Package::open(&Source::Path("models/bitnet".into()))?;
//! let mut model = package.bind()?;
//! model.centre_keys(KvType::F16, &mut |_done, _total| {})?;
//! let backend = CpuBackend::new(CpuBackend::default_threads(), Simd::detect())?;
//! let weights = backend.upload(&model, &mut |_done, _total| {})?;
//! let limits =
//!     Limits { slots: 1, positions_max: 2048, rows_max: 64, logits_max: 1, kv: KvType::F16 };
//! let mut session = Session::new(backend.ops(&weights, limits)?, &package.config, limits);
//!
//! let tokenizer = package.tokenizer.as_ref();
//! let prompt = tokenizer.map_or(Ok(vec![1]), |tokenizer| tokenizer.encode_text("Once"))?;
//! let request = Request {
//!     prompt: &prompt,
//!     max_tokens: 100,
//!     sampling: package.sampling,
//!     seed: 1,
//!     stop_tokens: &package.stop_tokens,
//!     stop_texts: &[],
//! };
//! let mut print = |event: Event| {
//!     if let Event::Token { text, .. } = event {
//!         print!("{text}");
//!     }
//!     ControlFlow::Continue(())
//! };
//! session.generate(&request, tokenizer, &Cancel::default(), &mut print)?;
//! # Ok(())
//! # }
//! ```
//!
//! Start reading at [`forward`]: the transformer, on one page.

#![deny(unsafe_code)]

pub mod package;

pub mod checkpoint;
pub mod config;
pub mod text;

pub mod floats;
mod int8;
pub mod layout;
pub mod model;
pub mod ternary;

pub mod backend;
pub mod kv;
mod math;
mod rotary;

pub mod event;
pub mod forward;
pub mod sampler;
pub mod session;
mod stop;

pub mod content_hash;
pub mod convert;
pub mod doctor;
pub mod evaluate;
pub mod inspect;
pub mod measure;
pub mod preset;
pub mod process;
pub mod synth;
mod write;

pub mod error;
